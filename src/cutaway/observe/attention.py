"""Attention: where heads look, over the real tokens.

Three readings of the same site, `pattern` (the weights after softmax, and after any soft cap, mask
and sink):

- `attention_patterns`: the whole pattern of a few heads on a few examples, without padding;
- `attention_to`: for every head, how much the position `end` attends to each position label;
- `attention_between`: the same from every label, with what goes to no label as `elsewhere`, so that
  each row adds up to 1 (to less in families whose softmax has a sink: what the sink takes).

A weight says where a head reads, not what it writes: see `attribution` for that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
import xarray as xr
from jaxtyping import Int
from torch import Tensor

from cutaway.behaviours.behaviour import Behaviour
from cutaway.errors import InputError, SiteError
from cutaway.measure.batches import (
    Progress,
    Prompts,
    batch_size_for,
    batches,
    coordinate,
    named_positions,
    side,
)
from cutaway.measure.result import Result, interval, provenance
from cutaway.model.model import Model
from cutaway.model.ports import Passing
from cutaway.model.select import positions_of
from cutaway.model.sites import Site
from cutaway.model.tokens import Tokens
from cutaway.observe.attention_picture import ELSEWHERE, draw_between
from cutaway.observe.heads import Head, layer_and_head
from cutaway.views.attention import attention as attention_map
from cutaway.views.figure import Figure


@dataclass(frozen=True, kw_only=True, eq=False)
class Patterns(Result):
    """Attention patterns of chosen heads on chosen examples."""

    values: xr.DataArray
    """(example, head, query_position, key_position): weights counted from each prompt's first real
    token, NaN beyond its length. `head` holds "layer.head"; `example` the behaviour's numbering."""
    tokens: tuple[tuple[str, ...], ...]
    """The tokens of each example."""
    provenance: Mapping[str, Any] = field(repr=False)
    """Versions, model, data and settings."""

    @property
    def mean(self) -> xr.DataArray:
        """(head, query_position, key_position): averaged over the examples that reach there."""
        return self.values.mean("example", skipna=True)

    def of(self, head: Head, example: int) -> xr.DataArray:
        """One pattern (query_position, key_position), as long as its prompt."""
        examples = self.values["example"].to_numpy().tolist()
        name = ".".join(str(part) for part in layer_and_head(head))
        if example not in examples or name not in self.values["head"].to_numpy():
            raise SiteError(
                f"These patterns have no head {name!r} on example {example}; they hold the heads "
                f"{', '.join(self.values['head'].to_numpy())} on the examples "
                f"{', '.join(map(str, examples))}."
            )
        length = len(self.tokens[examples.index(example)])
        return self.values.sel(head=name, example=example)[:length, :length]

    def plot(self, head: Head, example: int) -> Figure:
        """Where a head looks on one example: a map, and the text shaded by it."""
        pattern = self.of(head, example).to_numpy()
        layer, index = layer_and_head(head)
        row = self.values["example"].to_numpy().tolist().index(example)
        tokens, most = self.tokens[row], int(pattern[-1].argmax())
        return attention_map(
            pattern, tokens, title=f"Head {layer}.{index} on example {example}",
            shows=f"From its last token, “{tokens[-1].strip()}”, head {layer}.{index} looks most "
            f"at “{tokens[most].strip()}” (token {most + 1}): {pattern[-1, most]:.2f}.",
            part=f"a{layer}.h{index}", reproduce=f'patterns.of("{layer}.{index}", {example})',
        )  # fmt: skip

    def to_dataset(self) -> xr.Dataset:
        """The patterns; the tokens stand in the attributes."""
        return xr.Dataset(
            {"values": self.values},
            attrs={"tokens": [list(row) for row in self.tokens], "provenance": self.provenance},
        )

    @classmethod
    def from_dataset(cls, data: xr.Dataset) -> Self:
        """The inverse of `to_dataset`."""
        tokens = tuple(tuple(row) for row in data.attrs["tokens"])
        return cls(values=data["values"], tokens=tokens, provenance=data.attrs["provenance"])


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionTo(Result):
    """How much one position attends to others, for every head."""

    values: xr.DataArray
    """(example, layer, head, position): the weight from `query` to each position."""
    query: str
    """The position that attends."""
    provenance: Mapping[str, Any] = field(repr=False)
    """Versions, model, data and settings."""

    @property
    def mean(self) -> xr.DataArray:
        """(layer, head, position): averaged over examples."""
        return self.values.mean("example")

    def interval(self, level: float = 0.95) -> xr.Dataset:
        """`mean`, `low`, `high` over examples."""
        return interval(self.values, level)

    def to_dataset(self) -> xr.Dataset:
        """The weights; the query's name stands in the attributes."""
        return xr.Dataset(
            {"values": self.values}, attrs={"query": self.query, "provenance": self.provenance}
        )

    @classmethod
    def from_dataset(cls, data: xr.Dataset) -> Self:
        """The inverse of `to_dataset`."""
        return cls(values=data["values"], **data.attrs)


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionBetween(Result):
    """How much every head attends from each position label to each."""

    values: xr.DataArray
    """(example, layer, head, from, to): the weight; `to` ends with "elsewhere", which holds the sum
    over all tokens without a label."""
    provenance: Mapping[str, Any] = field(repr=False)
    """Versions, model, data and settings."""

    @property
    def mean(self) -> xr.DataArray:
        """(layer, head, from, to): averaged over examples."""
        return self.values.mean("example")

    def interval(self, level: float = 0.95) -> xr.Dataset:
        """`mean`, `low`, `high` over examples."""
        return interval(self.values, level)

    def top(self, k: int = 10) -> pd.DataFrame:
        """The `k` largest mean weights between labels: layer, head, from, to, mean, low, high.

        What a position gives itself or `elsewhere` is left out.
        """
        mean = self.mean
        between = (mean["to"] != mean["from"]) & (mean["to"] != ELSEWHERE)
        flat = mean.where(between, -1.0).to_numpy()
        order = np.argsort(-flat, axis=None, kind="stable")[: min(k, int((flat >= 0).sum()))]
        places = np.unravel_index(order, flat.shape)
        chosen = self.values.to_numpy()[(slice(None), *places)]
        data = interval(xr.DataArray(chosen, dims=("example", "weight")))
        names = {
            str(dim): mean[dim].to_numpy()[place]
            for dim, place in zip(mean.dims, places, strict=True)
        }
        return pd.DataFrame(names | {key: data[key].to_numpy() for key in ("mean", "low", "high")})

    def plot(self, head: Head | None = None, *, query: str = "end") -> Figure:
        """One head's weights between labels; without a head, every head's from `query`.

        Of many heads, the 32 that look most at labels other than `query` itself. Raises `SiteError`
        for a head, or a label, that is not here.
        """
        return draw_between(self.interval(), head, query)

    def to_dataset(self) -> xr.Dataset:
        """The weights."""
        return xr.Dataset({"values": self.values}, attrs={"provenance": self.provenance})

    @classmethod
    def from_dataset(cls, data: xr.Dataset) -> Self:
        """The inverse of `to_dataset`."""
        return cls(values=data["values"], provenance=data.attrs["provenance"])


def attention_patterns(
    model: Model,
    behaviour: Behaviour,
    heads: Sequence[Head],
    *,
    examples: Sequence[int] = (0,),
    prompts: Prompts = "clean",
) -> Patterns:
    """The attention patterns of some heads on some examples.

    Raises `SiteError` for a head that the model does not have, `BehaviourError` for an example
    that the behaviour does not have.
    """
    if not heads:
        raise SiteError("No head was given; give at least one, for example heads=[(0, 1)].")
    pairs = [layer_and_head(head) for head in heads]
    sites = [model.check_site(Site("pattern", layer, head)) for layer, head in pairs]
    rows = behaviour.rows(list(examples))
    run = model.run(side(rows, prompts), keep=list({site.whole for site in sites}))
    longest = int(run.tokens.lengths.max())
    values = np.full((len(rows), len(sites), longest, longest), np.nan)
    for row, (first, length) in enumerate(
        zip(run.tokens.first.tolist(), run.tokens.lengths.tolist(), strict=True)
    ):
        real = slice(first, first + length)
        for column, site in enumerate(sites):
            values[row, column, :length, :length] = run[site][row, real, real].float().cpu()
    coords = {
        "example": torch.arange(len(behaviour))[list(examples)].numpy(),
        "head": [f"{layer}.{head}" for layer, head in pairs],
    }
    dims = ("example", "head", "query_position", "key_position")
    shown = rows.token_texts if prompts == "clean" else rows.corrupt_token_texts
    return Patterns(
        values=xr.DataArray(values, coords, dims, "attention"),
        tokens=shown,
        provenance=provenance(
            model, behaviour, {"method": "attention patterns", "prompts": prompts}
        ),
    )


def attention_to(
    model: Model,
    behaviour: Behaviour,
    *,
    query: str = "end",
    positions: Sequence[int | str] | int | str | None = None,
    prompts: Prompts = "clean",
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> AttentionTo:
    """Every head's attention from one position label to others (every label when not given)."""
    tokens = side(behaviour, prompts)
    names = named_positions(tokens, positions)
    named_positions(tokens, query)
    values = np.empty((len(behaviour), model.n_layers, model.n_heads, len(names)))
    for where, rows in batches(behaviour, batch_size_for(model, behaviour, batch_size), progress):
        batch = side(rows, prompts)
        tap = _Looking(positions_of((query,), batch), positions_of(names, batch))
        model.run(batch, taps=[tap])
        for layer, weights in tap.kept.items():
            values[where, layer] = weights[:, :, 0].numpy()
    coords = {
        "layer": np.arange(model.n_layers),
        "head": np.arange(model.n_heads),
        "position": coordinate(names),
    }
    dims = ("example", "layer", "head", "position")
    return AttentionTo(
        values=xr.DataArray(values, coords, dims, "attention"),
        query=query,
        provenance=provenance(
            model, behaviour, {"method": f"attention from {query}", "prompts": prompts}
        ),
    )


def attention_between(
    model: Model,
    behaviour: Behaviour,
    *,
    positions: Sequence[int | str] | int | str | None = None,
    prompts: Prompts = "clean",
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> AttentionBetween:
    """Every head's attention from each position label to each, and to all other tokens.

    `positions` are labels or numbers; when not given, every label that names a token of its own.
    Raises `InputError` for two names of one token, whose weight would be counted twice.
    """
    names = apart(side(behaviour, prompts), positions)
    shape = (len(behaviour), model.n_layers, model.n_heads, len(names), len(names) + 1)
    values = np.empty(shape)
    for where, rows in batches(behaviour, batch_size_for(model, behaviour, batch_size), progress):
        batch = side(rows, prompts)
        places = positions_of(names, batch)
        tap = _Looking(places, places)
        model.run(batch, taps=[tap])
        for layer, weights in tap.kept.items():
            rest = tap.whole[layer] - weights.sum(dim=3)
            values[where, layer] = torch.cat([weights, rest[..., None]], dim=3).numpy()
    listed = [str(name) for name in names]
    coords = {
        "layer": np.arange(model.n_layers), "head": np.arange(model.n_heads),
        "from": listed, "to": [*listed, ELSEWHERE],
    }  # fmt: skip
    dims = ("example", "layer", "head", "from", "to")
    return AttentionBetween(
        values=xr.DataArray(values, coords, dims, "attention"),
        provenance=provenance(
            model, behaviour, {"method": "attention between labels", "prompts": prompts}
        ),
    )


def apart(tokens: Tokens, positions: Sequence[int | str] | int | str | None) -> list[int | str]:
    """The names asked for, each of a token of its own on every prompt.

    Of every label, when none was asked for, those that share no token with an earlier one. Raises
    `InputError` when two that were asked for do.
    """
    names = list(named_positions(tokens, positions))
    where = positions_of(names, tokens)
    kept: list[int] = []
    for column, name in enumerate(names):
        twin = next((k for k in kept if bool((where[:, k] == where[:, column]).any())), None)
        if twin is None:
            kept.append(column)
        elif positions is not None:
            raise InputError(
                f"The positions {names[twin]!r} and {name!r} are the same token in some prompts, "
                "so its share would be counted twice; ask for one of them."
            )
    return [names[column] for column in kept]


class _Looking:
    """The tap that keeps the weights from some positions to others, (batch, head, query, key)."""

    def __init__(self, queries: Int[Tensor, "batch query"], keys: Int[Tensor, "batch key"]) -> None:
        self.queries, self.keys = queries, keys
        self.kept: dict[int, Tensor] = {}
        self.whole: dict[int, Tensor] = {}

    def wants(self, site: Site) -> bool:
        return site.kind == "pattern"

    def __call__(self, site: Site, x: Tensor, now: Passing) -> Tensor:
        assert site.layer is not None
        rows = torch.arange(x.shape[0], device=x.device)[:, None]
        asked = x.detach()[rows, :, self.queries.to(x.device)].float()
        keys = self.keys.to(x.device)[:, None, None].expand(*asked.shape[:3], -1)
        self.kept[site.layer] = asked.gather(3, keys).transpose(1, 2).cpu()
        self.whole[site.layer] = asked.sum(dim=3).transpose(1, 2).cpu()
        return x
