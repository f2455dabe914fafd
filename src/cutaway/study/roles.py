"""The roles stage: what each head reads and writes, where it matters most.

For every head, on the patched examples:

- from which place it works: the one at which its estimated effect is largest (`estimates`);
- what it attends to from there: its mean weight on each place;
- what it writes at the end: the tokens whose logits it raises most, its output read through the
  final norm at that prompt's scale and the unembedding, averaged over examples and centred over
  the vocabulary. Where a norm stands between attention and stream nothing is said of this.

These describe a head; what it does is for patching and the circuit to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from cutaway.behaviours import Behaviour
from cutaway.measure.batches import batch_size_for, batches
from cutaway.measure.result import Result, provenance
from cutaway.model import Model, Site
from cutaway.model.ports import Passing
from cutaway.model.tokens import token_strings
from cutaway.observe import attention_to
from cutaway.study.estimates import Estimated
from cutaway.study.patching import patched
from cutaway.study.places import place_name, places
from cutaway.study.stage import Inputs

_TOKENS = 5
_ARRAYS = ("attends", "query", "token", "writes")


@dataclass(frozen=True, kw_only=True, eq=False)
class Roles(Result):
    """What each head reads and writes."""

    attends: xr.DataArray
    """`layer head position`: the mean weight from the head's own place to each place."""
    query: xr.DataArray
    """`layer head`: the place it works from, by name."""
    token: xr.DataArray
    """`layer head rank`: the tokens that it raises most, strongest first."""
    writes: xr.DataArray
    """`layer head rank`: by how much, in logits; NaN where it was not measured."""
    provenance: Mapping[str, Any] = field(repr=False)
    """Versions, model, data and settings."""

    def to_dataset(self) -> xr.Dataset:
        """All arrays in one."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        return xr.Dataset(arrays, attrs={"provenance": self.provenance})

    @classmethod
    def from_dataset(cls, data: xr.Dataset) -> Self:
        """The inverse of `to_dataset`."""
        arrays = {name: data[name] for name in _ARRAYS}
        return cls(**arrays, provenance=data.attrs["provenance"])


def describe(inputs: Inputs) -> Roles:
    """Read every head's attention from its own place, and its output at the end."""
    model, rows = inputs.model, patched(inputs)
    where = places(inputs.behaviour)
    effects = inputs.of(Estimated).heads_at.effects.mean.transpose("layer", "head", "position")
    best = np.abs(effects.to_numpy()).argmax(axis=2)
    labels = [place if isinstance(place, str) else "end" for place in where]
    attends = np.empty((model.n_layers, model.n_heads, len(where)))
    queries = sorted({labels[at] for at in best.ravel()})
    for done, query in enumerate(queries, start=1):
        found = attention_to(model, rows, query=query, positions=where).mean.to_numpy()
        here = np.array([labels[at] == query for at in best.ravel()]).reshape(best.shape)
        attends[here] = found[here]
        inputs.tick(done, len(queries) + 1)
    token, writes = _written(model, rows)
    inputs.tick(1, 1)
    grid = {"layer": np.arange(model.n_layers), "head": np.arange(model.n_heads)}
    named = np.array([[place_name(labels[at]) for at in row] for row in best])
    return Roles(
        attends=xr.DataArray(
            attends, {**grid, "position": [place_name(place) for place in where]},
            ("layer", "head", "position"),
        ),
        query=xr.DataArray(named, grid, ("layer", "head")),
        token=xr.DataArray(token, grid, ("layer", "head", "rank")),
        writes=xr.DataArray(writes, grid, ("layer", "head", "rank")),
        provenance=provenance(
            model, rows, {"method": "head roles", "seed": inputs.settings.seed}
        ),
    )  # fmt: skip


@torch.no_grad()
def _written(model: Model, behaviour: Behaviour) -> tuple[np.ndarray, np.ndarray]:
    """The tokens that each head's output at the end raises most, and by how much."""
    shape = (model.n_layers, model.n_heads, _TOKENS)
    token, writes = np.full(shape, "", dtype=object), np.full(shape, np.nan)
    if any(layer.attn_post_norm is not None for layer in model.anatomy.layers):
        return token.astype(str), writes
    nothing = model.unembed(torch.zeros(1, model.d_model, dtype=model.dtype, device=model.device))
    for layer, mean in enumerate(_mean_outputs(model, behaviour)):
        logits = (model.unembed(mean.to(nothing)) - nothing).float()
        best = (logits - logits.mean(dim=-1, keepdim=True)).topk(_TOKENS, dim=-1)
        writes[layer] = best.values.cpu().numpy()
        for head, ids in enumerate(best.indices.tolist()):
            names = token_strings(model.tokenizer, ids) if model.tokenizer else map(str, ids)
            token[layer, head] = list(names)
    return token.astype(str), writes


def _mean_outputs(model: Model, behaviour: Behaviour) -> list[Float[Tensor, "head d_model"]]:
    """Each layer's heads at the end as the unembedding reads them, averaged over examples."""
    norm = model.frozen_norm
    total = [torch.zeros(model.n_heads, model.d_model) for _ in range(model.n_layers)]
    for _, rows in batches(behaviour, batch_size_for(model, behaviour, None)):
        tap = _AtEnd(rows.clean.labels["end"])
        model.run(rows.clean, taps=[tap])
        scale = norm.scale(tap.kept[Site("resid_final")])
        for layer in range(model.n_layers):
            heads = tap.kept[Site("head_out", layer)].to(scale)
            read = norm.centred(heads * model.anatomy.multiplier) * norm.gain / scale[:, None]
            total[layer] += read.sum(dim=0).cpu()
    return [each / len(behaviour) for each in total]


class _AtEnd:
    """The tap that keeps heads' outputs and the last stream at the position `end`."""

    def __init__(self, end: Tensor) -> None:
        self.end = end
        self.kept: dict[Site, Tensor] = {}

    def wants(self, site: Site) -> bool:
        return site.kind in ("head_out", "resid_final")

    def __call__(self, site: Site, x: Tensor, now: Passing) -> Tensor:
        rows = torch.arange(x.shape[0], device=x.device)
        self.kept[site] = x[rows, self.end.to(x.device)].detach().float()
        return x
