"""Ports: how the tensor of a site is read from, and written to, what a module passes.

Each port sits on one side of one module. Its codec turns what passes there into the site's shape
(`view`), and a changed value back (`write`); a port whose value is not changed is never written,
so that connecting it leaves every bit alone. Two sites need more than that:

- `head_out` is z · W_O per head, which no module passes: it is made from what the output projection
  reads, and a change is added to what it returns;
- `resid_mid` is what the norm before the MLP reads, but the layer adds the same tensor again as its
  residual: a change is written into that tensor.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from einops import einsum, rearrange
from torch import Tensor, nn

from cutaway.errors import SiteError
from cutaway.model.anatomy import Anatomy, Layer, weight_of
from cutaway.model.sites import Site

Side = Literal["in", "out"]


@dataclass
class Passing:
    """What is known about the forward pass under way."""

    batch: int = 0
    """Rows passing now (a beam search passes several per prompt)."""
    width: int = 0
    """Positions passing now (1 while generating with a cache)."""
    past: int = 0
    """Positions that are already cached."""
    zs: dict[int, Tensor] = field(default_factory=dict)
    """z of each layer whose `head_out` is wanted."""


class Codec(Protocol):
    """Between what a module passes and what a site holds."""

    def view(self, passed: Tensor, now: Passing) -> Tensor:
        """The site's tensor."""
        ...

    def write(self, passed: Tensor, old: Tensor, new: Tensor, now: Passing) -> Tensor:
        """What to pass on when the site's tensor was changed from `old` to `new`."""
        ...


@dataclass(frozen=True)
class Port:
    """Where one site's tensor is read and written."""

    site: Site
    """The site."""
    module: nn.Module
    """The module that passes it."""
    side: Side
    """Whether it is read before or after the module."""
    codec: Codec
    """How."""
    all_keys: bool = False
    """True where the tensor spans every cached position even while generating."""


class Stream:
    """A tensor of width d_model, multiplied by a constant before it joins the stream."""

    def __init__(self, multiplier: float = 1.0) -> None:
        self.multiplier = multiplier

    def view(self, passed: Tensor, now: Passing) -> Tensor:
        shaped = passed.reshape(-1, now.width, passed.shape[-1])
        if shaped.shape[0] == 1 and now.batch > 1:
            shaped = shaped.expand(now.batch, -1, -1)
        return shaped if self.multiplier == 1.0 else shaped * self.multiplier

    def write(self, passed: Tensor, old: Tensor, new: Tensor, now: Passing) -> Tensor:
        scaled = new if self.multiplier == 1.0 else new / self.multiplier
        if passed.numel() != scaled.numel():
            return scaled
        return scaled.reshape(passed.shape)


class Half:
    """The first half of a fused gate-and-up projection."""

    def view(self, passed: Tensor, now: Passing) -> Tensor:
        return passed.reshape(-1, now.width, passed.shape[-1]).chunk(2, dim=-1)[0]

    def write(self, passed: Tensor, old: Tensor, new: Tensor, now: Passing) -> Tensor:
        up = passed.chunk(2, dim=-1)[1]
        return torch.cat([new.reshape(up.shape), up], dim=-1)


class Heads:
    """Equal slices of the last axis, one per head."""

    def __init__(self, heads: int, clip: float | None = None) -> None:
        self.heads, self.clip = heads, clip

    def view(self, passed: Tensor, now: Passing) -> Tensor:
        kept = passed if self.clip is None else passed.clamp(-self.clip, self.clip)
        return kept.reshape(now.batch, -1, self.heads, passed.shape[-1] // self.heads)

    def write(self, passed: Tensor, old: Tensor, new: Tensor, now: Passing) -> Tensor:
        return new.reshape(passed.shape)


class Packed:
    """q, k or v inside a fused projection (see `family.Packing`)."""

    def __init__(self, which: Literal["q", "k", "v"], anatomy: Anatomy) -> None:
        self.which = which
        self.packing = anatomy.packing
        self.heads, self.kv_heads = anatomy.n_heads, anatomy.n_kv_heads
        self.clip = anatomy.clip_qkv

    def _split(self, passed: Tensor) -> list[Tensor]:
        """q, k and v as (batch, position, head, d_head) views."""
        batch, width = passed.shape[:2]
        group = self.heads // self.kv_heads
        if self.packing == "concat":
            size = passed.shape[-1] // (self.heads + 2 * self.kv_heads)
            counts = (self.heads, self.kv_heads, self.kv_heads)
            parts = passed.split([count * size for count in counts], dim=-1)
            return [p.reshape(batch, width, n, size) for p, n in zip(parts, counts, strict=True)]
        if self.packing == "grouped":
            each = passed.reshape(batch, width, self.kv_heads, group + 2, -1)
            return [each[..., :-2, :].flatten(2, 3), each[..., -2, :], each[..., -1, :]]
        blocks = passed.reshape(batch, width, 4, 3, -1)
        q, v, k = (blocks[:, :, :, i].reshape(batch, width, self.heads, -1) for i in range(3))
        return [q, k, v]

    def _join(self, parts: list[Tensor], shape: torch.Size) -> Tensor:
        q, k, v = parts
        group = self.heads // self.kv_heads
        if self.packing == "concat":
            return torch.cat([part.flatten(2) for part in parts], dim=-1)
        if self.packing == "grouped":
            queries = q.unflatten(2, (self.kv_heads, group))
            return torch.cat([queries, k[..., None, :], v[..., None, :]], dim=3).reshape(shape)
        blocks = [part.reshape(*shape[:2], 4, 1, -1) for part in (q, v, k)]
        return torch.cat(blocks, dim=3).reshape(shape)

    def view(self, passed: Tensor, now: Passing) -> Tensor:
        kept = passed if self.clip is None else passed.clamp(-self.clip, self.clip)
        return self._split(kept)["qkv".index(self.which)]

    def write(self, passed: Tensor, old: Tensor, new: Tensor, now: Passing) -> Tensor:
        parts = self._split(passed)
        parts["qkv".index(self.which)] = new
        return self._join(parts, passed.shape)


class Latent:
    """k (its part without rotary) or v inside latent attention's up-projection."""

    def __init__(self, which: Literal["k", "v"], heads: int, d_key: int) -> None:
        self.which, self.heads, self.d_key = which, heads, d_key

    def _split(self, passed: Tensor, now: Passing) -> tuple[Tensor, Tensor]:
        each = passed.reshape(now.batch, -1, self.heads, passed.shape[-1] // self.heads)
        return each[..., : self.d_key], each[..., self.d_key :]

    def view(self, passed: Tensor, now: Passing) -> Tensor:
        k, v = self._split(passed, now)
        return k if self.which == "k" else v

    def write(self, passed: Tensor, old: Tensor, new: Tensor, now: Passing) -> Tensor:
        k, v = self._split(passed, now)
        pair = (new, v) if self.which == "k" else (k, new)
        return torch.cat(pair, dim=-1).reshape(passed.shape)


class HeadOut:
    """z · W_O per head, beside what the output projection returns."""

    def __init__(self, layer: int, projection: nn.Module, heads: int, multiplier: float) -> None:
        self.layer, self.projection = layer, projection
        self.heads, self.multiplier = heads, multiplier

    def view(self, passed: Tensor, now: Passing) -> Tensor:
        out = per_head(self.projection, now.zs[self.layer])
        return out if self.multiplier == 1.0 else out * self.multiplier

    def write(self, passed: Tensor, old: Tensor, new: Tensor, now: Passing) -> Tensor:
        if torch.is_grad_enabled() and new.requires_grad:
            return passed + ((new - old).sum(dim=2) / self.multiplier).to(passed.dtype)
        # Summed afresh rather than corrected, so that no heads at all leave exactly the bias: a
        # post-norm would blow up the residue.
        summed = new.sum(dim=2) / self.multiplier + nothing(self.projection, now.zs[self.layer])
        same = (new == old).all(dim=2)
        return torch.where(same, passed, summed.to(passed.dtype))


class StreamInPlace(Stream):
    """The stream that a module reads while the layer holds on to the same tensor as its residual.

    Handing the module another tensor would leave the residual as it was, so a change is written
    into the tensor itself, which belongs to this pass alone.
    """

    def write(self, passed: Tensor, old: Tensor, new: Tensor, now: Passing) -> Tensor:
        passed.copy_(new.reshape(passed.shape))
        return passed


def per_head(projection: nn.Module, z: Tensor) -> Tensor:
    """Each head's share of an output projection, without its bias.

    `z` is (batch, position, head, d_head); the result (batch, position, head, d_model). A plain
    linear layer is contracted head by head; anything else that is affine (a quantised or adapted
    layer) is called once per head on that head alone, less what it gives for nothing.
    """
    weight = plain_weight(projection)
    if weight is not None:
        split = rearrange(weight, "d_model (head d_head) -> head d_head d_model", head=z.shape[2])
        return einsum(z, split, "b p head d_head, head d_head d_model -> b p head d_model")
    bias = nothing(projection, z)
    alone: list[Tensor] = []
    for head in range(z.shape[2]):
        only = torch.zeros_like(z)
        only[:, :, head] = z[:, :, head]
        alone.append(projection.forward(only.flatten(2)) - bias)
    return torch.stack(alone, dim=2)


def nothing(projection: nn.Module, z: Tensor) -> Tensor:
    """What a projection gives for no heads at all: its bias, as (1, 1, d_model)."""
    # `forward`, not a call: this happens inside a hook of the very module.
    return projection.forward(torch.zeros_like(z[:1, :1]).flatten(2))


def plain_weight(projection: nn.Module) -> Tensor | None:
    """An (out, in) weight when the module is exactly a linear layer, else None."""
    weight = getattr(projection, "weight", None)
    if not isinstance(weight, nn.Parameter) or type(weight.data) is not Tensor or weight.is_meta:
        return None
    if type(projection).__name__ == "Conv1D":
        return weight.T
    exact = type(projection) is nn.Linear or type(projection).__name__ == "FalconLinear"
    return weight if exact and weight.is_floating_point() else None


class Mixture:
    """The router's weights, one per expert, from its (logits, weights, indices)."""

    def __init__(self, experts: int) -> None:
        self.experts = experts

    def view(self, passed: Tensor, now: Passing) -> Tensor:
        return passed.reshape(now.batch, now.width, self.experts)

    def write(self, passed: Tensor, old: Tensor, new: Tensor, now: Passing) -> Tensor:
        return new.reshape(passed.shape)

    def dense(self, weights: Tensor, indices: Tensor) -> Tensor:
        """(token, expert) with zeros where an expert is not chosen."""
        empty = weights.new_zeros(weights.shape[0], self.experts)
        return empty.scatter(1, indices, weights)

    def chosen(self, dense: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """(weights, indices) that mix what `dense` says, with as many slots as before."""
        slots = indices.shape[1]
        used = int((dense != 0).sum(dim=1).max())
        if used > slots:
            raise SiteError(
                f"The edit of 'router' gives weight to {used} experts of one token, but the layer "
                f"mixes {slots}; set the others to zero."
            )
        inside = dense.gather(1, indices)
        if bool((((dense != 0).sum(1)) == (inside != 0).sum(1)).all()):
            return inside, indices
        picked = dense.abs().topk(slots, dim=1).indices
        return dense.gather(1, picked), picked


def layer_ports(anatomy: Anatomy, index: int, layer: Layer, *, parallel: bool) -> list[Port]:
    """The ports of one layer, in the order in which they pass."""

    def at(kind: str) -> Site:
        return Site(kind, index)

    heads, scale = anatomy.n_heads, anatomy.multiplier
    attn_end = layer.attn_post_norm or layer.o_proj
    return [
        Port(at("resid_pre"), layer.block, "in", Stream()),
        Port(at("attn_in"), layer.attn, "in", Stream()),
        *_projection_ports(anatomy, index, layer),
        Port(at("z"), layer.o_proj, "in", Heads(heads)),
        Port(
            at("head_out"), layer.o_proj, "out",
            HeadOut(index, layer.o_proj, heads, 1.0 if layer.attn_post_norm else scale),
        ),
        Port(at("attn_out"), attn_end, "out", Stream(scale)),
        *([] if parallel else [Port(at("resid_mid"), layer.reads_mid, "in", StreamInPlace())]),
        *_mlp_ports(index, layer, scale),
        Port(at("resid_post"), layer.block, "out", Stream()),
    ]  # fmt: skip


def _projection_ports(anatomy: Anatomy, index: int, layer: Layer) -> list[Port]:
    heads, kv_heads, clip = anatomy.n_heads, anatomy.n_kv_heads, anatomy.clip_qkv
    q, k, v = Site("q", index), Site("k", index), Site("v", index)
    if anatomy.packing is not None:
        return [
            Port(q, layer.q, "out", Packed("q", anatomy)),
            Port(k, layer.k, "out", Packed("k", anatomy)),
            Port(v, layer.v, "out", Packed("v", anatomy)),
        ]
    if anatomy.d_key is not None:
        return [
            Port(q, layer.q, "out", Heads(heads)),
            Port(k, layer.k, "out", Latent("k", heads, anatomy.d_key), all_keys=True),
            Port(v, layer.v, "out", Latent("v", heads, anatomy.d_key), all_keys=True),
        ]
    return [
        Port(q, layer.q, "out", Heads(heads, clip)),
        Port(k, layer.k, "out", Heads(kv_heads, clip)),
        Port(v, layer.v, "out", Heads(kv_heads, clip)),
    ]


def _mlp_ports(index: int, layer: Layer, scale: float) -> list[Port]:
    end = layer.mlp_post_norm or layer.down or layer.mlp
    reads = layer.up if layer.mlp_in_layer and layer.up is not None else layer.mlp
    ports = [Port(Site("mlp_in", index), reads, "in", Stream())]
    if layer.router is not None:
        experts = weight_of(layer.router).shape[0]
        ports.append(Port(Site("router", index), layer.router, "out", Mixture(int(experts))))
    if layer.up is not None and layer.down is not None:
        fused = layer.up is getattr(layer.mlp, "gate_up_proj", None)
        first = Half() if fused else Stream()
        ports.append(Port(Site("mlp_pre", index), layer.up, "out", first))
        ports.append(Port(Site("mlp_post", index), layer.down, "in", Stream()))
    return [*ports, Port(Site("mlp_out", index), end, "out", Stream(scale))]


def model_ports(anatomy: Anatomy, hf: nn.Module) -> tuple[list[Port], list[Port]]:
    """The ports before the first layer and those after the last."""
    before = [Port(Site("embed"), anatomy.embed, "out", Stream())]
    if anatomy.pos_embed is not None:
        before.append(Port(Site("pos_embed"), anatomy.pos_embed, "out", Stream()))
    after = [
        Port(Site("resid_final"), anatomy.final_norm, "in", Stream()),
        Port(Site("final_norm"), anatomy.final_norm, "out", Stream()),
        Port(Site("logits"), hf, "out", Stream()),
    ]
    return before, after
