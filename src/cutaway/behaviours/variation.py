"""Black-box probing: does the behaviour hold up when its wording changes?

Three questions, none of which looks inside the model:

- `probes`: which variations a built-in behaviour's generator can be asked for, one at a time, so
  that each can be built and measured by itself.
- `by_place`: the same examples, told apart by how long they are and where their parts stand.
- `breakdown`: within examples that are measured already, how the values differ between templates,
  orders, names and whatever else varies, each with its interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from cutaway.behaviours.behaviour import Behaviour
from cutaway.behaviours.builtin import VARIATIONS
from cutaway.behaviours.interval import bootstrap
from cutaway.errors import BehaviourError

_COLUMNS = ("metric", "variation", "value", "n", "mean", "low", "high")
_MOST_VALUES = 40
_MOST_GROUPS = 5


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One change of one thing, everything else as by default."""

    behaviour: str
    """The built-in behaviour."""
    keyword: str
    """What is varied."""
    value: str
    """What it is set to."""

    @property
    def variation(self) -> dict[str, str]:
        """The keywords for `build`."""
        return {self.keyword: self.value}

    def __str__(self) -> str:
        return f"{self.behaviour} with {self.keyword} = {self.value}"


def probes(behaviour: str) -> list[Probe]:
    """Every single variation of a built-in behaviour; "any" (a mixture) is not one.

    Raises `BehaviourError` for a behaviour that is not built in.
    """
    if behaviour not in VARIATIONS:
        raise BehaviourError(
            f"{behaviour!r} is not built in and has no generator to vary; built in are: "
            f"{', '.join(VARIATIONS)}."
        )
    return [
        Probe(behaviour=behaviour, keyword=keyword, value=value)
        for keyword, values in VARIATIONS[behaviour].items()
        for value in values
        if value != "any"
    ]


def breakdown(
    behaviour: Behaviour,
    values: Mapping[str, object],
    *,
    columns: Sequence[str] | None = None,
    n_boot: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Mean, interval and n of each metric, overall and per value of each variation column.

    `values` has one number per example under each metric's name. Without `columns`, those are
    taken that say something: at least two values, at most forty, and fewer values than examples.
    The frame has the columns metric, variation, value, n, mean, low, high; the rows over all
    examples have the variation "all". Raises `BehaviourError` for a column that the behaviour does
    not have, or for another number of values than examples.
    """
    chosen = informative_columns(behaviour) if columns is None else list(columns)
    unknown = [column for column in chosen if column not in behaviour.variations]
    if unknown:
        raise BehaviourError(
            f"The behaviour {behaviour.name!r} has no variation column {unknown[0]!r}; it has "
            f"{', '.join(behaviour.variations) or 'none'}."
        )
    rows: list[tuple[object, ...]] = []
    for metric, given in values.items():
        numbers = np.asarray(given, dtype=np.float64)
        if numbers.shape != (len(behaviour),):
            raise BehaviourError(
                f"The breakdown of {metric!r} needs one value for each of the {len(behaviour)} "
                f"examples; found the shape {numbers.shape}."
            )
        groups = [("all", "all", np.arange(len(behaviour)))]
        groups += [
            (column, value, where)
            for column in chosen
            for value, where in _groups(behaviour.variations[column])
        ]
        for column, value, where in groups:
            found = bootstrap(numbers[where], n_boot=n_boot, confidence=confidence, seed=seed)
            ends = (float(found.mean), float(found.low), float(found.high))
            rows.append((metric, column, value, int(found.n), *ends))
    return pd.DataFrame(rows, columns=list(_COLUMNS))


def informative_columns(behaviour: Behaviour) -> list[str]:
    """The variation columns with at least two values, at most forty, and fewer than examples."""
    most = min(_MOST_VALUES, len(behaviour) - 1)
    return [
        column for column, values in behaviour.variations.items() if 2 <= len(set(values)) <= most
    ]


def by_place(behaviour: Behaviour) -> Behaviour:
    """The same examples with other variations: their length, and the place of each label but end.

    Both are in tokens, as ranges of at most five groups of about equally many examples. What does
    not vary, or is the same as something before it, is left out.
    """
    numbers = {"length in tokens": behaviour.clean.lengths.tolist()}
    first = behaviour.clean.first
    numbers |= {
        f"position of {name}": (where - first).tolist()
        for name, where in behaviour.clean.labels.items()
        if name != "end"
    }
    columns: dict[str, tuple[str, ...]] = {}
    seen: list[list[int]] = []
    for name, values in numbers.items():
        column = _ranges(values)
        # which examples are together, whatever their range is called
        together = [column.index(value) for value in column]
        if any(together) and together not in seen:
            columns[name] = column
            seen.append(together)
    return replace(behaviour, variations=columns)


def _ranges(values: Sequence[int]) -> tuple[str, ...]:
    """Numbers as ranges; written so that their order as text is that of the numbers."""
    known = sorted(set(values))
    if len(known) > _MOST_GROUPS:
        edges = np.quantile(values, np.linspace(0, 1, _MOST_GROUPS + 1)[1:-1], method="lower")
        parts = np.searchsorted(np.unique(edges), values, side="left")
    else:
        parts = np.searchsorted(known, values)
    wide = len(str(max(values)))
    ends = {
        part: (min(inside), max(inside))
        for part in set(parts.tolist())
        for inside in [[value for value, at in zip(values, parts, strict=True) if at == part]]
    }
    return tuple(
        f"{low:{wide}d}" if low == high else f"{low:{wide}d} to {high}"
        for low, high in (ends[part] for part in parts.tolist())
    )


def _groups(values: Sequence[str]) -> list[tuple[str, np.ndarray]]:
    """Each value, sorted, with the examples that have it."""
    table = np.asarray(values, dtype=object)
    return [(value, np.flatnonzero(table == value)) for value in sorted(set(values))]
