"""Direct attribution inside of a part: a head by source position, an MLP by neuron.

`attribution` says what each part adds to a target. Two parts are sums themselves:

- a head's output at `end` is  Σ_p pattern[end, p] · (v_p · W_O), so each position that it attends
  to contributes its share: which tokens a head moves what from (Elhage et al. 2021). What a family
  does to z besides (a gate, a value of its own) is in `rest`, as are the positions not asked for;
- an MLP's output is  Σ_n mlp_post[n] · W_out[n] + bias, so each neuron contributes its own. The
  bias, and that of a norm behind the MLP, is in `rest`.

Shares and rest add up to the part's contribution exactly; post-norms are held at their scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from cutaway.behaviours.behaviour import Behaviour
from cutaway.behaviours.metrics import at_least_float32
from cutaway.measure.batches import (
    Progress,
    Prompts,
    batch_size_for,
    batches,
    coordinate,
    side,
)
from cutaway.measure.finite import check_run
from cutaway.measure.result import Result, interval, provenance
from cutaway.model import weights as read
from cutaway.model.model import Model
from cutaway.model.norm import FrozenNorm
from cutaway.model.ports import Passing
from cutaway.model.select import positions_of
from cutaway.model.sites import Site
from cutaway.observe.aim import Aim, AtEnd, Target, dot, linear_norm, through_post_norm
from cutaway.observe.attention import apart


@dataclass(frozen=True, kw_only=True, eq=False)
class Shares(Result):
    """What the pieces of some parts contribute to a target at `end`."""

    values: xr.DataArray
    """(example, layer, head, position) for heads, (example, layer, neuron) for MLPs."""
    rest: xr.DataArray
    """The same without its last axis: what no piece accounts for."""
    provenance: Mapping[str, Any] = field(repr=False)
    """Versions, model, data and settings."""

    @property
    def total(self) -> xr.DataArray:
        """What each part contributes: pieces and rest."""
        return self.values.sum(str(self.values.dims[-1])) + self.rest

    def interval(self, level: float = 0.95) -> xr.Dataset:
        """`mean`, `low`, `high` of every piece over examples."""
        return interval(self.values, level)

    def top(self, k: int = 10) -> pd.DataFrame:
        """The `k` pieces with the largest mean contribution by magnitude."""
        mean = self.values.mean("example")
        order = np.argsort(-np.abs(mean.to_numpy()), axis=None, kind="stable")[:k]
        places = np.unravel_index(order, mean.shape)
        chosen = self.values.to_numpy()[(slice(None), *places)]
        data = interval(xr.DataArray(chosen, dims=("example", "piece")))
        names = {
            str(dim): mean[dim].to_numpy()[place]
            for dim, place in zip(mean.dims, places, strict=True)
        }
        return pd.DataFrame(names | {key: data[key].to_numpy() for key in ("mean", "low", "high")})

    def to_dataset(self) -> xr.Dataset:
        """All arrays in one."""
        arrays = {"values": self.values, "rest": self.rest}
        return xr.Dataset(arrays, attrs={"provenance": self.provenance})

    @classmethod
    def from_dataset(cls, data: xr.Dataset) -> Self:
        """The inverse of `to_dataset`."""
        return cls(values=data["values"], rest=data["rest"], **data.attrs)


def attribute_sources(
    model: Model,
    behaviour: Behaviour,
    *,
    target: Target = None,
    positions: Sequence[int | str] | int | str | None = None,
    prompts: Prompts = "clean",
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Shares:
    """Every head's contribution by the position that it attends to.

    `positions` are labels or numbers; when not given, every label that names a token of its own.
    Raises `InputError` for two names of one token, whose share would be counted twice.
    """
    names = apart(side(behaviour, prompts), positions)
    aim = Aim.of(model, behaviour, target)
    sources = Sources(model)
    shape = (len(behaviour), model.n_layers, model.n_heads)
    values, rest = np.empty((*shape, len(names))), np.empty(shape)
    for where, rows in batches(behaviour, batch_size_for(model, behaviour, batch_size), progress):
        tokens = side(rows, prompts)
        looking = Weighing(tokens.labels["end"], positions_of(names, tokens))
        ends = (Site("resid_final"), Site("final_norm"))
        tap = AtEnd([*sources.sites, *ends], tokens.labels["end"])
        run = model.run(tokens, taps=[tap, looking])
        check_run(model, run, where.start, prompts)
        g = aim.at(rows, tap.kept, where.start, run.logits).g
        for layer in range(model.n_layers):
            share, whole = sources.shares(layer, tap.kept[Site("z", layer)], looking, g)
            values[where, layer] = share.cpu().numpy()
            rest[where, layer] = (whole - share.sum(dim=-1)).cpu().numpy()
    coords = {"layer": np.arange(shape[1]), "head": np.arange(shape[2])}
    dims = ("example", "layer", "head", "position")
    return Shares(
        values=xr.DataArray(values, coords | {"position": coordinate(names)}, dims, "share"),
        rest=xr.DataArray(rest, coords, dims[:-1], "rest"),
        provenance=_recorded(model, behaviour, aim, "attribution by source position", prompts),
    )


def attribute_neurons(
    model: Model,
    behaviour: Behaviour,
    *,
    layers: Sequence[int] | None = None,
    target: Target = None,
    prompts: Prompts = "clean",
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Shares:
    """Every neuron's contribution in some layers (all of them when not given).

    Raises `ModelError` for a mixture of experts, which has no single output matrix.
    """
    chosen = list(range(model.n_layers)) if layers is None else list(layers)
    sites = [model.check_site(Site("mlp_post", layer)) for layer in chosen]
    aim = Aim.of(model, behaviour, target)
    weights = [read.mlp_output(model, layer).float() for layer in chosen]
    norms = [linear_norm(model, model.anatomy.layers[layer].mlp_post_norm) for layer in chosen]
    values = np.empty((len(behaviour), len(chosen), len(weights[0])))
    rest = np.empty((len(behaviour), len(chosen)))
    outs = [Site("mlp_out", layer) for layer in chosen]
    ends = [Site("resid_final"), Site("final_norm")]
    for where, rows in batches(behaviour, batch_size_for(model, behaviour, batch_size), progress):
        tokens = side(rows, prompts)
        tap = AtEnd([*sites, *outs, *ends], tokens.labels["end"])
        run = model.run(tokens, taps=[tap])
        check_run(model, run, where.start, prompts)
        g = aim.at(rows, tap.kept, where.start, run.logits).g
        for number, site in enumerate(sites):
            post = tap.kept[site]
            through = through_mlp(model, chosen[number], norms[number], post, g).to(post)
            share = post * (through @ weights[number].to(post).mT)
            whole = dot(tap.kept[outs[number]], g)
            values[where, number] = share.cpu().numpy()
            rest[where, number] = (whole - share.sum(dim=-1).to(whole)).cpu().numpy()
    coords = {"layer": chosen}
    return Shares(
        values=xr.DataArray(values, coords, ("example", "layer", "neuron"), "share").assign_coords(
            neuron=np.arange(values.shape[2])
        ),
        rest=xr.DataArray(rest, coords, ("example", "layer"), "rest"),
        provenance=_recorded(model, behaviour, aim, "attribution by neuron", prompts),
    )


class Weighing:
    """The tap that keeps the weights from `end` to some positions, and the values there."""

    def __init__(self, end: Int[Tensor, " batch"], keys: Int[Tensor, "batch position"]) -> None:
        self.end, self.keys = end, keys
        self.weights: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}

    def wants(self, site: Site) -> bool:
        """The patterns and values of every layer."""
        return site.kind in ("pattern", "v")

    def __call__(self, site: Site, x: Tensor, now: Passing) -> Tensor:
        """Keep, and hand on unchanged."""
        assert site.layer is not None
        row, keys = torch.arange(x.shape[0], device=x.device)[:, None], self.keys.to(x.device)
        if site.kind == "v":
            self.values[site.layer] = at_least_float32(x.detach()[row, keys])
        else:
            picked = x.detach()[row, :, self.end.to(x.device)[:, None], keys]
            self.weights[site.layer] = at_least_float32(picked)
        return x

    def moved(self, layer: int) -> Float[Tensor, "batch head position d_head"]:
        """Weight times value."""
        weights, values = self.weights[layer], self.values[layer].to(self.weights[layer].device)
        shared = values.repeat_interleave(weights.shape[2] // values.shape[2], dim=2)
        return (weights[..., None] * shared).transpose(1, 2)


class Sources:
    """What each head takes from each position, in terms of a direction of the last stream."""

    def __init__(self, model: Model) -> None:
        layers = range(model.n_layers)
        self.model = model
        self.sites = [Site("z", layer) for layer in layers]
        """What has to be kept at `end`."""
        self._norms = [
            linear_norm(model, model.anatomy.layers[layer].attn_post_norm) for layer in layers
        ]
        self._rows = [read.output(model, layer).float() for layer in layers]

    @torch.no_grad()
    def shares(
        self,
        layer: int,
        z: Float[Tensor, "batch head d_head"],
        looking: Weighing,
        g: Float[Tensor, "batch d_model"],
    ) -> tuple[Float[Tensor, "batch head position"], Float[Tensor, "batch head"]]:
        """Each head's share from each position that was weighed, and all that the head writes."""
        rows = self._rows[layer].to(z)
        heads = torch.einsum("bhe,hed->bhd", z, rows)
        through = through_post_norm(self.model, layer, self._norms[layer], heads, g).to(z)
        direction = torch.einsum("hed,bd->bhe", rows, through)
        share = torch.einsum("bhpe,bhe->bhp", looking.moved(layer).to(z), direction)
        return share, (z * direction).sum(dim=-1)


def through_mlp(
    model: Model, layer: int, norm: FrozenNorm | None, post: Tensor, g: Tensor
) -> Float[Tensor, "batch d_model"]:
    """g as the neurons meet it, pulled back through the norm behind the MLP."""
    if norm is None:
        return g
    down = model.anatomy.layers[layer].down
    assert down is not None
    with torch.no_grad():
        before = at_least_float32(down.forward(post.to(model.dtype)))
    return norm.pull_back(g.to(before.device)) / norm.scale(before)


def _recorded(
    model: Model, behaviour: Behaviour, aim: Aim, method: str, prompts: Prompts
) -> dict[str, object]:
    settings = {"method": method, "prompts": prompts, "target": aim.name}
    return provenance(model, behaviour, settings)
