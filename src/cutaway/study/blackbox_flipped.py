"""What the search for flips leaves: each prompt's smallest change, and what each value does."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
import pandas as pd
import xarray as xr

from cutaway.behaviours import Behaviour, bootstrap
from cutaway.measure.result import Result, provenance
from cutaway.model import Model


@dataclass(frozen=True, kw_only=True)
class Flip:
    """The smallest change found for one prompt."""

    example: int
    """Which example of the behaviour."""
    margin: float
    """Its margin as it is: the largest logit of a right answer less that of a wrong one."""
    changes: int | None
    """In how many slots the change is; 0 where the answer is wrong as it is, None if none flips."""
    before: str
    """The prompt."""
    after: str = ""
    """The prompt that is answered wrongly; empty where there is none."""
    edit: Mapping[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    """For each changed slot what stood there and what stands there now."""
    tokens: int = 0
    """How many tokens differ (edit distance)."""
    flipped_margin: float | None = None
    """The margin of the changed prompt, zero or below; None where there is none."""
    ids: tuple[int, ...] = ()
    """The changed prompt's tokens."""
    answers: tuple[int, ...] = ()
    """What is right after the change."""
    wrong_answers: tuple[int, ...] = ()
    """What is wrong after it."""


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One slot of one prompt changed."""

    example: int
    """Which example of the behaviour."""
    slot: str
    """What was changed."""
    value: str
    """What it was changed to."""
    margin: float
    """The changed prompt's margin."""
    logit_diff: float
    """Its logit difference."""


@dataclass(frozen=True, kw_only=True)
class Searched:
    """How much of one size was searched."""

    size: int
    """In how many slots."""
    prompts: int
    """Of so many prompts."""
    possible: int
    """So many changes the pools allow."""
    tried: int
    """So many were run (and, for three or more, the parts of those that flip)."""
    void: int
    """So many give no prompt, or one that was run already."""

    @property
    def exhausted(self) -> bool:
        """Whether every change of this size was run."""
        return self.tried + self.void >= self.possible


@dataclass(frozen=True, kw_only=True, eq=False)
class Flips(Result):
    """A search for the smallest changes that flip the answer."""

    found: tuple[Flip, ...]
    """One for each prompt that was searched."""
    levels: tuple[Searched, ...]
    """What was searched, by the number of changed slots."""
    slot: xr.DataArray
    """`change`: the slot of each single change that was run."""
    value: xr.DataArray
    """`change`: what it was changed to."""
    of: xr.DataArray
    """`change`: the example that was changed."""
    margin: xr.DataArray
    """`change`: the changed prompt's margin; above zero it is answered well."""
    logit_diff: xr.DataArray
    """`change`: its logit difference."""
    provenance: Mapping[str, Any] = field(repr=False)
    """Versions, model, data and settings."""

    def to_dataset(self) -> xr.Dataset:
        """The single changes as arrays, the rest as JSON."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        record = {name: json.dumps([asdict(one) for one in getattr(self, name)])
                  for name in ("found", "levels")}  # fmt: skip
        return xr.Dataset(arrays, attrs={**record, "provenance": self.provenance})

    @classmethod
    def from_dataset(cls, data: xr.Dataset) -> Self:
        """The inverse of `to_dataset`."""
        return cls(
            found=tuple(_flip(one) for one in json.loads(data.attrs["found"])),
            levels=tuple(Searched(**one) for one in json.loads(data.attrs["levels"])),
            **{name: data[name] for name in _ARRAYS},
            provenance=data.attrs["provenance"],
        )

    @property
    def seed(self) -> int:
        """The seed of the search, which intervals are drawn with too."""
        return int(self.provenance["configuration"]["seed"])

    def flipped(self, changes: int) -> int:
        """How many prompts are flipped by so many changes and no fewer."""
        return sum(one.changes == changes for one in self.found)

    def by_slot(self) -> pd.DataFrame:
        """Accuracy and logit difference with each value of each slot, on the searched prompts.

        One row for each slot and value: slot, value, n, and mean, low and high of both measures
        over the prompts that had another value there.
        """
        slots, values = self.slot.to_numpy(), self.value.to_numpy()
        rows: list[dict[str, object]] = []
        for slot, value in dict.fromkeys(zip(slots.tolist(), values.tolist(), strict=True)):
            at = np.flatnonzero((slots == slot) & (values == value))
            row: dict[str, object] = {"slot": str(slot), "value": str(value), "n": len(at)}
            for name, each in (
                ("accuracy", (self.margin.to_numpy()[at] > 0).astype(float)),
                ("logit_diff", self.logit_diff.to_numpy()[at]),
            ):
                found = bootstrap(each, seed=self.seed)
                row |= {name: float(found.mean), f"{name}_low": float(found.low),
                        f"{name}_high": float(found.high)}  # fmt: skip
            rows.append(row)
        return pd.DataFrame(rows, columns=_COLUMNS)


_ARRAYS = ("slot", "value", "of", "margin", "logit_diff")
_COLUMNS = ["slot", "value", "n", *(f"{name}{end}" for name in ("accuracy", "logit_diff")
                                    for end in ("", "_low", "_high"))]  # fmt: skip


def gathered(
    model: Model,
    behaviour: Behaviour,
    found: Sequence[Flip],
    singles: Sequence[Tried],
    levels: Sequence[Searched],
    settings: Mapping[str, object],
) -> Flips:
    """What was found, as a result that can be saved."""

    def column(name: str, kind: type) -> xr.DataArray:
        return xr.DataArray(
            np.array([getattr(one, name) for one in singles], dtype=kind), dims="change"
        )

    return Flips(
        found=tuple(found), levels=tuple(levels), slot=column("slot", str),
        value=column("value", str), of=column("example", int), margin=column("margin", float),
        logit_diff=column("logit_diff", float),
        provenance=provenance(model, behaviour, {"method": "smallest flips", **settings}),
    )  # fmt: skip


def _flip(record: Mapping[str, Any]) -> Flip:
    """A flip from JSON, whose lists were tuples."""
    fields: dict[str, Any] = dict(record)
    fields |= {name: tuple(record[name]) for name in ("ids", "answers", "wrong_answers")}
    fields["edit"] = {slot: tuple(pair) for slot, pair in record["edit"].items()}
    return Flip(**fields)
