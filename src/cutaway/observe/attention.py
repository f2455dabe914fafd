"""Attention: where heads look, over the real tokens.

Two readings of the same site, `pattern` (the weights after softmax, and after any soft cap, mask
and sink):

- `attention_patterns`: the whole pattern of a few heads on a few examples, without padding;
- `attention_to`: for every head, how much the position `end` attends to each position label.

A weight says where a head reads, not what it writes: see `attribution` for that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from cutaway.behaviours.behaviour import Behaviour
from cutaway.errors import SiteError
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

Head = str | Site | tuple[int, int]
"""A head: (layer, head), "9.6", "pattern.9.6", or a site that names one."""


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
        tap = _Looking(positions_of((query,), batch)[:, 0], positions_of(names, batch))
        model.run(batch, taps=[tap])
        for layer, weights in tap.kept.items():
            values[where, layer] = weights.numpy()
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


class _Looking:
    """The tap that keeps the weights from one position to some others, (batch, head, position)."""

    def __init__(self, query: Tensor, keys: Tensor) -> None:
        self.query, self.keys = query, keys
        self.kept: dict[int, Tensor] = {}

    def wants(self, site: Site) -> bool:
        return site.kind == "pattern"

    def __call__(self, site: Site, x: Tensor, now: Passing) -> Tensor:
        assert site.layer is not None
        rows = torch.arange(x.shape[0], device=x.device)[:, None]
        query, keys = self.query.to(x.device)[:, None], self.keys.to(x.device)
        picked = x.detach()[rows, :, query, keys]
        self.kept[site.layer] = picked.float().transpose(1, 2).cpu()
        return x


def layer_and_head(head: Head) -> tuple[int, int]:
    """A head's layer and number, however it is written."""
    if isinstance(head, tuple):
        return int(head[0]), int(head[1])
    text = str(head)
    parts = text.split(".")[-2:]
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        raise SiteError(f"{text!r} is not a head; write (layer, head) or 'LAYER.HEAD'.")
    return int(parts[0]), int(parts[1])
