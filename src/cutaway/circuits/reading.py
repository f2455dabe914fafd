"""How each reader turns its own copy of the stream into what the model goes on with.

A masked forward gives every reader an input of its own, so the norm before the projection is made
once per reader, and the projection takes from each reader's input that reader's own rows of the
weight. For n readers that is n norms, and one projection's FLOPs: head h needs only its own
d_head rows. The readers' inputs are never asked of the model: sites `q`, `k`, `v`, `mlp_in` (and
`attn_in` for the rotary key that latent attention shares) are given the result.

- The norm before a part, and which rows of a (fused, packed) weight are which head's, are read as
  `model.weights` says. A part may have no norm and read the stream itself (OLMo 2).
- A projection that is not a plain linear layer (quantised, adapted) is called once per reader.
- Latent attention projects the input down before the heads' own projection; that is part of
  reading, and is done per reader as well.

Everything found is held against the probe's own sites, and a model whose parts read in another way
is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor, nn

from cutaway.circuits.graph import CircuitError, Graph, ReaderKind
from cutaway.errors import ModelError
from cutaway.model.model import Model
from cutaway.model.ports import Latent, Passing, Port, plain_weight
from cutaway.model.run import Run
from cutaway.model.sites import Site
from cutaway.model.weights import norm_before, own_rows, picked

Step = Callable[[Tensor], Tensor]

_PROBE = 6


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Readers of one kind in one layer."""

    kind: ReaderKind
    """Which kind."""
    site: Site
    """The site that is given what they read."""
    rows: slice
    """Where they stand among the graph's readers, with a row for each label."""
    many: int
    """How many they are, labels apart."""
    norm: nn.Module | None
    """The norm between the stream and the part; None where it reads the stream itself."""
    inner: Step | None = field(default=None, repr=False)
    """What comes between the norm and the heads' own projection, in latent attention."""
    port: Port | None = field(default=None, repr=False)
    """Where the heads' projection is; None where readers read what the norm gives."""

    @property
    def plain(self) -> bool:
        """Whether what follows the norm is linear and its weight is at hand."""
        if self.port is None:
            return True
        clipped = getattr(self.port.codec, "clip", None) is not None
        return self.inner is None and not clipped and plain_weight(self.port.module) is not None

    def weight(self) -> Float[Tensor, "reader d_head d_model"] | None:
        """Each reader's rows of the projection; None where readers read what the norm gives.

        For readings that are `plain`.
        """
        if self.port is None:
            return None
        weight = plain_weight(self.port.module)
        assert weight is not None
        return picked(weight, own_rows(self.port, weight.shape[0]))

    def __call__(
        self, streams: Float[Tensor, "mask reader row position d_model"]
    ) -> Float[Tensor, "mask_row position *site"]:
        """The site's tensor, the rows of one mask after those of another."""
        seen = streams if self.norm is None else self.norm.forward(streams)
        if self.inner is not None:
            seen = self.inner(seen)
        if self.port is None:
            return rearrange(seen, "mask 1 row position d -> (mask row) position d")
        clip: float | None = getattr(self.port.codec, "clip", None)
        found = self._projected(self.port, seen)
        return found if clip is None else found.clamp(-clip, clip)

    def _projected(self, port: Port, seen: Tensor) -> Tensor:
        weight, many = plain_weight(port.module), seen.shape[1]
        if weight is None:
            return self._one_by_one(port, seen)
        own = own_rows(port, weight.shape[0])
        found = einsum(
            seen, picked(weight, own), "m r b p d, r e d -> m b p r e"
        ).flatten(0, 1)  # fmt: skip
        bias: Tensor | None = getattr(port.module, "bias", None)
        assert own.shape[0] == many
        return found if bias is None else found + bias[own.to(bias.device)]

    def _one_by_one(self, port: Port, seen: Tensor) -> Tensor:
        """Each reader's part of the whole projection of its own input."""
        now = Passing(batch=seen.shape[0] * seen.shape[2], width=seen.shape[3])
        found = [
            port.codec.view(port.module.forward(seen[:, reader].flatten(0, 1)), now)[:, :, reader]
            for reader in range(seen.shape[1])
        ]
        return torch.stack(found, dim=2)


class Readings:
    """Every reader of a model, found and proven on a probe."""

    def __init__(self, model: Model, graph: Graph) -> None:
        kinds = {"resid_pre", "resid_mid", "attn_in", "mlp_in", "q", "k", "v"}
        tokens = torch.arange(_PROBE).remainder(model.d_vocab)[None]
        self._probe: Run = model.run(tokens, keep=lambda site: site.kind in kinds)
        self._model, self._graph = model, graph
        self.by_site: dict[Site, Reading] = {}
        """Each reading by the site that is given its result."""
        for layer in range(model.n_layers):
            for reading in self._of_layer(layer):
                self._check(reading, layer)
                self.by_site[reading.site] = reading

    def of(self, layer: int) -> list[Reading]:
        """The readings of one layer."""
        return [reading for site, reading in self.by_site.items() if site.layer == layer]

    def stream_site(self, reading: Reading) -> Site:
        """The stream that these readers read."""
        middle = reading.kind == "mlp" and not self._graph.parallel
        return Site("resid_mid" if middle else "resid_pre", reading.site.layer)

    def _of_layer(self, layer: int) -> Iterator[Reading]:
        part, graph = self._model.anatomy.layers[layer], self._graph
        ports = {port.site: port for port in self._model.ports}
        before_attention = self._norm(layer, Site("resid_pre", layer), Site("attn_in", layer))
        for kind in ("q", "k", "v"):
            site = Site(kind, layer)
            rows = graph.rows(layer, kind)
            yield Reading(
                kind=kind, site=site, rows=rows, many=(rows.stop - rows.start) // len(graph.labels),
                norm=before_attention, inner=_inner(part.attn, ports[site]), port=ports[site],
            )  # fmt: skip
        if graph.shared_key:
            yield Reading(
                kind="kr", site=Site("attn_in", layer), rows=graph.rows(layer, "kr"), many=1,
                norm=before_attention,
            )  # fmt: skip
        stream = Site("resid_pre" if graph.parallel else "resid_mid", layer)
        seen = Site("mlp_in", layer)
        yield Reading(
            kind="mlp", site=seen, rows=graph.rows(layer, "mlp"), many=1,
            norm=self._norm(layer, stream, seen),
        )  # fmt: skip

    def _norm(self, layer: int, stream: Site, seen: Site) -> nn.Module | None:
        """The norm of this layer that turns one of the probe's tensors into the other."""
        try:
            return norm_before(self._model, self._probe, stream, seen)
        except ModelError as error:
            raise self._refusal(seen, 1.0) from error

    def _check(self, reading: Reading, layer: int) -> None:
        stream = self._probe[self.stream_site(reading)]
        with torch.no_grad():
            found = reading(stream[None, None].expand(1, reading.many, -1, -1, -1))
        error = _error(found, self._probe[reading.site])
        if not error < (1e-4 if self._model.dtype == torch.float32 else 3e-2):
            raise self._refusal(reading.site, error)

    def _refusal(self, site: Site, error: float) -> CircuitError:
        return CircuitError(
            f"The circuits of {self._model.name} cannot be run: what {str(site)!r} holds could not "
            f"be made again from the residual stream (relative error {error:.1e}); this family's "
            "layers read the stream in a way that is not known here."
        )


def _inner(attn: nn.Module, port: Port) -> Step | None:
    """The way down that comes before the heads' projection, in latent attention."""
    down: nn.Module | None = getattr(attn, "q_a_proj", None)
    if port.site.kind == "q" and down is not None:
        norm: nn.Module = attn.get_submodule("q_a_layernorm")
        return lambda x: norm.forward(down.forward(x))
    if not isinstance(port.codec, Latent):
        return None
    both: nn.Module = attn.get_submodule("kv_a_proj_with_mqa")
    norm_kv: nn.Module = attn.get_submodule("kv_a_layernorm")
    rank = int(attn.kv_lora_rank)  # type: ignore[arg-type]
    return lambda x: norm_kv.forward(both.forward(x)[..., :rank])


def _error(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape:
        return float("inf")
    return float((found - expected).float().norm() / expected.float().norm())
