"""What writers add to the stream, and what replacing it changes.

A head's change is W_O^h (z_replacement − z_current), so that biases cancel; an MLP's and the
input's is the plain difference. Where the attention's output passes a norm N before it joins the
stream (OLMo 2, Gemma 2, GLM 4), the heads' changes come before N: a reader that sees them in the
shares s sees N(Σ_head current + bias + Σ_head s · change) in place of N(Σ_head current + bias).

A neuron's change is its activation's times its row of the MLP's output projection, and the rest of
the MLP changes by what the chosen neurons leave. With a post-norm on the MLP they come before it,
as heads do before theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor, nn

from cutaway.circuits.graph import Graph
from cutaway.circuits.written import Written
from cutaway.model.model import Model
from cutaway.model.ports import per_head, plain_weight


@dataclass(frozen=True, kw_only=True)
class Change:
    """What replacing some writers changes, before any post-norm."""

    columns: slice
    """Where the writers stand among the graph's."""
    values: Float[Tensor, "mask writer row *position d_model"]
    """Each writer's replacement less what it writes."""
    total: Float[Tensor, "mask row *position d_model"] | None = None
    """What all of them together write before the post-norm, where there is one."""
    norm: nn.Module | None = None
    """The post-norm."""
    scale: float = 1.0
    """What the post-norm's output is multiplied by."""

    def added(
        self,
        streams: Float[Tensor, "mask reader row *position d_model"],
        share: Float[Tensor, "mask reader writer"],
    ) -> Float[Tensor, "mask reader row *position d_model"]:
        """The readers' streams with each reader's share of each change added."""
        if self.norm is None:
            mixed = torch.baddbmm(streams.flatten(2), share, self.values.flatten(2))
            return mixed.view(streams.shape)
        assert self.total is not None
        change = torch.bmm(share, self.values.flatten(2)).view(streams.shape)
        total = self.total[:, None]
        seen = self.norm.forward(total + change) - self.norm.forward(total)
        return streams + self.scale * seen

    def linear(
        self, total: Float[Tensor, "row position d_model"] | None = None
    ) -> Float[Tensor, "writer row position d_model"]:
        """What each writer's change adds to the stream, to first order.

        Without a post-norm it is the change itself. With one it is the norm's derivative along it,
        at `total` (all that these writers write; what they write now, when not given).
        """
        values = self.values[0]
        if self.norm is None:
            return values
        assert self.total is not None
        where = (self.total[0] if total is None else total).expand(values.shape).contiguous()
        return self.scale * torch.func.jvp(self.norm.forward, (where,), (values,))[1]

    def until(self, reach: int) -> Change | None:
        """Only the writers before a column; None when there is none."""
        if reach <= self.columns.start:
            return None
        if reach >= self.columns.stop:
            return self
        assert self.norm is None
        first = self.columns.start
        return replace(self, columns=slice(first, reach), values=self.values[:, : reach - first])

    def part(self, where: slice) -> Change:
        """The same at some of the positions."""
        total = None if self.total is None else self.total[:, :, where]
        return replace(self, values=self.values[:, :, :, where], total=total)

    def at(self, rows: Tensor, position: Tensor) -> Change:
        """The same at one position of each row; the position axis goes."""
        total = None if self.total is None else self.total[:, rows, position]
        return replace(self, values=self.values[:, :, rows, position], total=total)


def heads_change(
    model: Model, layer: int, columns: slice,
    now: Float[Tensor, "mask row position head d_head"],
    instead: Float[Tensor, "row_or_1 position_or_1 head d_head"],
) -> Change:  # fmt: skip
    """What replacing a layer's heads changes, from their z."""
    part, scale = model.anatomy.layers[layer], model.anatomy.multiplier
    projection, norm = part.o_proj, part.attn_post_norm
    values = contributions(projection, instead.to(now) - now)
    if norm is None:
        return Change(columns=columns, values=values if scale == 1.0 else values * scale)
    total = projection.forward(now.flatten(0, 1).flatten(2)).unflatten(0, now.shape[:2])
    return Change(columns=columns, values=values, total=total, norm=norm, scale=scale)


def contributions(
    projection: nn.Module, z: Float[Tensor, "mask row position head d_head"]
) -> Float[Tensor, "mask head row position d_model"]:
    """Each head's share of an output projection, without its bias."""
    weight = plain_weight(projection)
    if weight is None:
        alone = per_head(projection, z.flatten(0, 1)).unflatten(0, z.shape[:2])
        return rearrange(alone, "mask row p head d -> mask head row p d")
    split = rearrange(weight, "d_model (head d_head) -> head d_head d_model", head=z.shape[3])
    return einsum(z, split, "m row p head d_head, head d_head d_model -> m head row p d_model")


def part_change(
    columns: slice,
    now: Float[Tensor, "mask row position d_model"],
    instead: Float[Tensor, "row_or_1 position_or_1 d_model"],
) -> Change:
    """What replacing a part that writes by itself changes."""
    return Change(columns=columns, values=(instead.to(now) - now)[:, None])


def mlp_change(
    model: Model, graph: Graph, layer: int,
    now: Float[Tensor, "mask row position d_model"],
    instead: Float[Tensor, "row_or_1 position_or_1 d_model"],
    post: Float[Tensor, "mask row position neuron"] | None,
    post_instead: Float[Tensor, "row_or_1 position_or_1 neuron"] | None,
) -> Change:  # fmt: skip
    """What replacing a layer's MLP changes, or its neurons where it is split (`post`)."""
    columns = graph.columns(layer, "mlp")
    if post is None or post_instead is None:
        return part_change(columns, now, instead)
    part, scale = model.anatomy.layers[layer], model.anatomy.multiplier
    down, norm, chosen = part.down, part.mlp_post_norm, list(graph.alone[layer])
    weight = None if down is None else plain_weight(down)
    assert down is not None
    assert weight is not None  # the graph was checked against the model
    change = post_instead.to(post) - post
    alone = einsum(change[..., chosen], weight[:, chosen], "m row p n, d n -> m n row p d")
    if norm is None:
        alone, whole, total = alone * scale, instead.to(now) - now, None
    else:
        whole = nn.functional.linear(change, weight)
        total = down.forward(post.flatten(0, 1)).unflatten(0, post.shape[:2])
    values = torch.cat([alone, (whole - alone.sum(dim=1))[:, None]], dim=1)
    return Change(columns=columns, values=values, total=total, norm=norm, scale=scale)


def all_changes(model: Model, graph: Graph, current: Written, instead: Written) -> Iterator[Change]:
    """The change of every writer, layer by layer, between two runs (one mask)."""
    yield part_change(slice(0, 1), current.input[None], instead.input)
    for layer in range(graph.n_layers):
        heads, post = graph.columns(layer, "head"), current.post.get(layer)
        yield heads_change(model, layer, heads, current.z[layer][None], instead.z[layer])
        yield mlp_change(
            model, graph, layer, current.mlp[layer][None], instead.mlp[layer],
            None if post is None else post[None], instead.post.get(layer),
        )  # fmt: skip
