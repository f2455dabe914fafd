"""Neurons that do nothing, and neurons that there are twice.

**Dead** (`dead_neurons`): never active on any token of the given prompts, active meaning a
pre-activation (`mlp_pre`; the gate's, in a gated MLP) above zero. Over n tokens this bounds how
often the neuron is active at all: below 1 − 0.05^(1/n) with 95 % confidence. Chance: as many
random directions, of the weights' own norms and with their own biases, read the same inputs; the
share of them that is never active is what a random start would have.

**Duplicate** (`duplicate_neurons`): another neuron of the layer with the same input and output
directions up to sign and scale (and the same direction of the value's side, in a gated MLP). A
pair's similarity is the smallest of the absolute cosines; each neuron is given with its nearest.
Similarities are computed in chunks, so that a neuron × neuron matrix never exists. Chance: the
cosine of random directions of d dimensions has  cos² ~ Beta(1/2, (d − 1)/2), exactly; `chance` is
what no pair of a layer of random neurons reaches, with a probability of 99 %. Biases are not
compared, and where the input's sign differs the two are mirror images, not copies.

A mixture of experts is refused: which of its neurons a token meets is chosen by the router.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
import xarray as xr
from jaxtyping import Float
from scipy.stats import beta
from torch import Tensor

from cutaway.measure.result import Result
from cutaway.model import weights as read
from cutaway.model.model import Inputs, Model
from cutaway.model.ports import plain_weight
from cutaway.model.sites import Site
from cutaway.model.tokens import Tokens
from cutaway.observe.factored import WeightsError
from cutaway.observe.weights import origin, reading

LEVEL = 0.01
"""The chance of even one false finding that bounds allow."""
_ROWS = 32
_CHUNK = 512


def layers_with_neurons(model: Model, layers: Sequence[int] | None = None) -> list[int]:
    """The layers asked for, or all; each must have a plain or gated MLP.

    Raises `WeightsError` for a mixture of experts and for layers that there are not.
    """
    asked = list(range(model.n_layers)) if layers is None else [int(each) for each in layers]
    if not asked or not set(asked) <= set(range(model.n_layers)):
        raise WeightsError(f"{model.name} has the layers 0 to {model.n_layers - 1}; found {asked}.")
    mixed = [layer for layer in asked if model.anatomy.layers[layer].down is None]
    if mixed:
        plain = [n for n, layer in enumerate(model.anatomy.layers) if layer.down is not None]
        instead = f"choose layers among {plain}" if plain else "choose another model"
        raise WeightsError(
            f"Layer {mixed[0]} of {model.name} is a mixture of experts, whose neurons differ from "
            f"token to token; {instead}."
        )
    return asked


def by_neuron(values: Sequence[Tensor], layers: Sequence[int]) -> xr.DataArray:
    """(layer, neuron), NaN where a layer is narrower than the widest."""
    width = max(len(each) for each in values)
    found = np.full((len(values), width), np.nan)
    for row, each in zip(found, values, strict=True):
        row[: len(each)] = each.double().cpu().numpy()
    return xr.DataArray(
        found, {"layer": list(layers), "neuron": np.arange(width)}, ("layer", "neuron")
    )


# ── dead ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True, eq=False)
class DeadNeurons(Result):
    """How often neurons are active over some prompts."""

    active: xr.DataArray
    """(layer, neuron): the share of tokens with a pre-activation above zero."""
    largest: xr.DataArray
    """(layer, neuron): the largest pre-activation."""
    chance: xr.DataArray
    """(layer,): the share of random directions that are never active on the same inputs."""
    tokens: int
    """How many tokens were read."""
    provenance: Mapping[str, Any] = field(repr=False)
    """The model."""

    @property
    def bound(self) -> float:
        """A dead neuron is active on fewer tokens than this share, with 95 % confidence."""
        return float(1 - 0.05 ** (1 / self.tokens))

    @property
    def dead(self) -> pd.DataFrame:
        """The neurons that were never active: layer, neuron, largest pre-activation."""
        never = np.argwhere(self.active.to_numpy() == 0)
        layers = self.active["layer"].to_numpy()
        return pd.DataFrame(
            {
                "layer": layers[never[:, 0]],
                "neuron": never[:, 1],
                "largest": self.largest.to_numpy()[tuple(never.T)],
            }
        )

    def __str__(self) -> str:
        lines = [f"Dead neurons over {self.tokens:,} tokens (active on < {self.bound:.1%}, 95 %)"]
        for layer in self.active["layer"].to_numpy():
            share = self.active.sel(layer=layer).dropna("neuron")
            lines.append(
                f"layer {layer}: {int((share == 0).sum())} of {share.size} "
                f"({float((share == 0).mean()):.1%}; random directions "
                f"{float(self.chance.sel(layer=layer)):.1%})"
            )
        return "\n".join(lines)

    def to_dataset(self) -> xr.Dataset:
        """All of it."""
        arrays = {name: getattr(self, name) for name in ("active", "largest", "chance")}
        return xr.Dataset(arrays, attrs={"tokens": self.tokens, "provenance": self.provenance})

    @classmethod
    def from_dataset(cls, data: xr.Dataset) -> Self:
        """The inverse of `to_dataset`."""
        arrays = {name: data[name] for name in ("active", "largest", "chance")}
        return cls(**arrays, **data.attrs)


def dead_neurons(
    model: Model, prompts: Inputs, *, layers: Sequence[int] | None = None, seed: int = 0
) -> DeadNeurons:
    """Which neurons no token of the prompts makes active; `seed` draws the random directions.

    Raises `WeightsError` for a mixture of experts and for layers that there are not.
    """
    asked = layers_with_neurons(model, layers)
    tokens = model.tokens(prompts)
    generator = torch.Generator().manual_seed(seed)
    random = {layer: _like(model, layer, generator) for layer in asked}
    count = {layer: torch.zeros(0) for layer in asked}
    most, drawn = dict(count), dict(count)
    for start in range(0, len(tokens), _ROWS):
        rows = tokens.rows(slice(start, start + _ROWS))
        for layer, (pre, chance) in _read(model, rows, asked, random).items():
            first = start == 0
            active, fired = (pre > 0).sum(dim=0), (chance > 0).sum(dim=0)
            count[layer] = active if first else count[layer] + active
            drawn[layer] = fired if first else drawn[layer] + fired
            top = pre.amax(dim=0)
            most[layer] = top if first else torch.maximum(most[layer], top)
    total = int(tokens.lengths.sum())
    return DeadNeurons(
        active=by_neuron([count[layer] / total for layer in asked], asked),
        largest=by_neuron([most[layer] for layer in asked], asked),
        chance=xr.DataArray(
            [float((drawn[layer] == 0).float().mean()) for layer in asked],
            {"layer": asked}, ("layer",),
        ),
        tokens=total, provenance=origin(model, seed=seed),
    )  # fmt: skip


def _like(model: Model, layer: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random rows with the norms of a layer's own, and its own biases."""
    site = Site("mlp_pre", layer)
    rows = read.projection(model, site).float()
    drawn = torch.randn(rows.shape, generator=generator).to(rows.device)
    drawn = drawn * rows.norm(dim=1, keepdim=True) / drawn.norm(dim=1, keepdim=True)
    up = model.anatomy.layers[layer].up
    bias: Tensor | None = getattr(up, "bias", None)
    if bias is None:
        return drawn, torch.zeros(len(rows), device=rows.device)
    port = next(port for port in model.ports if port.site == site)
    own = read.own_rows(port, len(bias)).to(bias.device)
    return drawn, bias.detach().float()[own]


def _read(
    model: Model, rows: Tokens, layers: Sequence[int], random: Mapping[int, tuple[Tensor, Tensor]]
) -> dict[int, tuple[Tensor, Tensor]]:
    """(token, neuron): pre-activations of real tokens, and those of the random directions."""
    run = model.run(rows, keep=[Site(k, n) for k in ("mlp_pre", "mlp_in") for n in layers])
    found: dict[int, tuple[Tensor, Tensor]] = {}
    for layer in layers:
        pre, seen = (run[Site(kind, layer)].float() for kind in ("mlp_pre", "mlp_in"))
        real = run.tokens.mask.to(pre.device)
        drawn, bias = random[layer]
        found[layer] = pre[real], seen[real] @ drawn.mT + bias
    return found


# ── duplicates ───────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True, eq=False)
class DuplicateNeurons(Result):
    """Each neuron's nearest other neuron of its layer."""

    similarity: xr.DataArray
    """(layer, neuron): the smallest absolute cosine between the two's directions."""
    partner: xr.DataArray
    """(layer, neuron): which neuron it is."""
    signs: xr.DataArray
    """(layer, neuron): the signs of the cosines, inputs first, such as "++" for a copy."""
    chance: xr.DataArray
    """(layer,): what no pair of random neurons reaches, with a probability of 99 %."""
    provenance: Mapping[str, Any] = field(repr=False)
    """The model."""

    def pairs(self, least: float = 0.95) -> pd.DataFrame:
        """Neurons whose nearest is at least so similar, each pair once: layer, neuron, partner,
        similarity, signs. Raises `WeightsError` for a `least` that random neurons reach."""
        if not float(self.chance.max()) < least <= 1:
            raise WeightsError(
                f"Random neurons of this width reach a similarity of "
                f"{float(self.chance.max()):.2f}; give a `least` above it and up to 1, not {least}."
            )
        found: list[dict[str, object]] = []
        for row, layer in enumerate(self.similarity["layer"].to_numpy()):
            near = self.similarity.to_numpy()[row]
            for one in np.flatnonzero(near >= least):
                other = int(self.partner.to_numpy()[row, one])
                mutual = int(self.partner.to_numpy()[row, other]) == int(one)
                if not (mutual and other < one):
                    found.append({
                        "layer": int(layer), "neuron": int(one), "partner": other,
                        "similarity": float(near[one]),
                        "signs": str(self.signs.to_numpy()[row, one]),
                    })  # fmt: skip
        columns = ["layer", "neuron", "partner", "similarity", "signs"]
        table = pd.DataFrame(found, columns=pd.Index(columns))
        return table.sort_values("similarity", ascending=False, kind="stable", ignore_index=True)

    def __str__(self) -> str:
        lines = ["Duplicate neurons (nearest other neuron of the layer)"]
        for layer in self.similarity["layer"].to_numpy():
            near = self.similarity.sel(layer=layer)
            lines.append(
                f"layer {layer}: {int((near >= 0.95).sum())} of {int(near.count())} with 0.95 or "
                f"more; the nearest {float(near.max()):.2f}, random ones stay under "
                f"{float(self.chance.sel(layer=layer)):.2f}"
            )
        return "\n".join(lines)

    def to_dataset(self) -> xr.Dataset:
        """All of it."""
        arrays = {name: getattr(self, name) for name in _DUPLICATE}
        return xr.Dataset(arrays, attrs={"provenance": self.provenance})

    @classmethod
    def from_dataset(cls, data: xr.Dataset) -> Self:
        """The inverse of `to_dataset`."""
        arrays = {name: data[name] for name in _DUPLICATE}
        return cls(**arrays, provenance=data.attrs["provenance"])


_DUPLICATE = ("similarity", "partner", "signs", "chance")


def duplicate_neurons(model: Model, *, layers: Sequence[int] | None = None) -> DuplicateNeurons:
    """The nearest other neuron of every neuron, by input and output directions.

    Raises `WeightsError` for a mixture of experts and for layers that there are not.
    """
    asked = layers_with_neurons(model, layers)
    similarity, partner, signs, chance = [], [], [], []
    for layer in asked:
        # a neuron without a direction is like no other
        sides = [
            each / each.norm(dim=1, keepdim=True).clamp(min=1e-30)
            for each in _directions(model, layer)
        ]
        near = [_nearest(sides, start) for start in range(0, len(sides[0]), _CHUNK)]
        values, places, marks = (torch.cat([part[n] for part in near]) for n in range(3))
        similarity.append(values)
        partner.append(places)
        signs.append(["".join("+" if mark > 0 else "-" for mark in row) for row in marks.tolist()])
        chance.append(_random_similarity(len(values), model.d_model, len(sides)))
    found = by_neuron(similarity, asked)
    texts = np.full(found.shape, "", dtype=f"U{max(len(row[0]) for row in signs)}")
    for row, each in zip(texts, signs, strict=True):
        row[: len(each)] = each
    return DuplicateNeurons(
        similarity=found, partner=by_neuron(partner, asked), signs=found.copy(data=texts),
        chance=xr.DataArray(chance, {"layer": asked}, ("layer",)), provenance=origin(model),
    )  # fmt: skip


def _directions(model: Model, layer: int) -> list[Float[Tensor, "neuron d_model"]]:
    """Input, the value's side where the MLP is gated, and output."""
    first = reading(model, Site("mlp_pre", layer))
    value = _value_rows(model, layer, len(first))
    last = read.mlp_output(model, layer).float()
    return [first, *([] if value is None else [value.float()]), last]


def _value_rows(model: Model, layer: int, width: int) -> Tensor | None:
    """The rows that the gate multiplies: beside the gate's own, or in a projection of their own."""
    part, site = model.anatomy.layers[layer], Site("mlp_pre", layer)
    assert part.up is not None
    rows = plain_weight(part.up)
    assert rows is not None
    if len(rows) == 2 * width:
        port = next(port for port in model.ports if port.site == site)
        other = torch.ones(len(rows), dtype=torch.bool)
        other[read.own_rows(port, len(rows)).flatten()] = False
        return rows.detach()[other.to(rows.device)]
    if part.mlp_in_layer:
        return None
    for module in part.mlp.modules():
        weight = None if module in (part.up, part.down) else plain_weight(module)
        if weight is not None and tuple(weight.shape) == (width, model.d_model):
            return weight.detach()
    return None


def _nearest(sides: Sequence[Tensor], start: int) -> tuple[Tensor, Tensor, Tensor]:
    """For a chunk of neurons: the similarity, the number and the signs of the nearest other."""
    cosines = torch.stack([each[start : start + _CHUNK] @ each.mT for each in sides])
    joint = cosines.abs().amin(dim=0)
    row = torch.arange(len(joint), device=joint.device)
    joint[row, start + row] = -1.0
    best = joint.max(dim=1)
    return best.values, best.indices, cosines[:, row, best.indices].mT


def _random_similarity(width: int, dimensions: int, sides: int) -> float:
    """What the largest of all pairs stays under by chance; see the module."""
    pairs = width * (width - 1) / 2
    each = (LEVEL / pairs) ** (1 / sides)
    return float(np.sqrt(beta.isf(each, 0.5, (dimensions - 1) / 2)))
