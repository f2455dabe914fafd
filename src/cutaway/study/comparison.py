"""What two studies share and where they differ: the result of `compare`, as values and as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cutaway.views.text import number, p_value

LEVEL = 0.05
_NONE = float("nan")


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One number of both studies."""

    name: str
    """What was measured."""
    one: tuple[float, float, float]
    """Mean, lower and upper end in the first study."""
    other: tuple[float, float, float]
    """The same in the second."""
    difference: tuple[float, float, float] = (_NONE, _NONE, _NONE)
    """First less second, with its interval; NaN where no example says."""
    p: float = float("nan")
    """Its p-value, corrected for the measures of the same kind."""

    @property
    def verdict(self) -> str:
        """Whether the two differ, in a word."""
        if self.p != self.p:
            return "not tested"
        return "different" if self.p < LEVEL else "no difference shown"


@dataclass(frozen=True, kw_only=True, eq=False)
class Heads:
    """What every head does in both studies, as a share of the behaviour."""

    name: str
    """What was done with them."""
    correlation: tuple[float, float, float]
    """Pearson's over heads, with its interval over examples."""
    table: pd.DataFrame
    """One row per head: `head`, `one`, `other`, `difference`, `low`, `high`, `p`."""

    @property
    def differing(self) -> list[str]:
        """The heads that differ, p < 0.05 corrected for all heads, the furthest apart first."""
        found = self.table[self.table["p"] < LEVEL]
        order = found["difference"].abs().sort_values(ascending=False, kind="stable").index
        return [str(head) for head in found.loc[order, "head"]]


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """What both studies say of one thing: a role, or an attack."""

    about: str
    """The role or the attack."""
    one: str
    """The first study's verdict; "–" where it has none."""
    other: str
    """The second's."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StudyComparison:
    """Two studies, held together."""

    names: tuple[str, str]
    """What they are called here."""
    differs: tuple[str, ...]
    """What was studied otherwise: model, behaviour, settings, versions."""
    measures: tuple[Measure, ...]
    """Numbers of both."""
    heads: tuple[Heads, ...]
    """What every head does in both."""
    circuits: pd.DataFrame | None
    """What their circuits share, beside chance; see `cutaway.circuits.compare`."""
    roles: tuple[Verdicts, ...]
    """Every role that one of them tested."""
    attacks: tuple[Verdicts, ...]
    """Every attack that one of them made."""
    left_out: Mapping[str, str]
    """What could not be compared, with the reason."""

    def sentences(self) -> list[str]:
        """What is the same and what is not, in sentences."""
        told = [f"{self.names[0]} beside {self.names[1]}."]
        if self.differs:
            told.append(f"Studied otherwise: {'; '.join(self.differs)}.")
        told += [_apart(each, self.names) for each in self.measures if each.p < LEVEL]
        told += [_alike(each) for each in self.heads]
        if self.circuits is not None:
            told += [_shared(row) for row in self.circuits.to_dict("records")]
        told += _agreement(self.roles, "roles that both tested")
        told += _agreement(self.attacks, "attacks that both withstood or not")
        told += [f"Left out, {what}: {why}" for what, why in self.left_out.items()]
        return told

    def rows(self) -> list[tuple[str, ...]]:
        """Every measure as it is printed: name, first, second, difference, corrected p, verdict."""
        return [
            (
                each.name, ends(each.one), ends(each.other), ends(each.difference),
                "–" if each.p != each.p else p_value(each.p), each.verdict,
            )
            for each in self.measures
        ]  # fmt: skip

    def __str__(self) -> str:
        header = ("", *self.names, "difference", "p", "")
        table = [header, *self.rows()] if self.measures else []
        widths = [max(len(row[at]) for row in table) for at in range(len(header))] if table else []
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in table
        ]
        return "\n".join([*lines, *([""] if lines else []), *self.sentences()])


def ends(found: Sequence[float]) -> str:
    """A mean with its interval, or a dash."""
    mean, low, high = found
    if mean != mean:
        return "–"
    return number(mean) + ("" if low != low else f" ({number(low)} to {number(high)})")


def _apart(each: Measure, names: tuple[str, str]) -> str:
    more = names[0] if each.difference[0] > 0 else names[1]
    mean, low, high = each.difference
    by = (mean, low, high) if mean > 0 else (-mean, -high, -low)
    return f"{each.name}: more in {more}, by {ends(by)}."


def _alike(each: Heads) -> str:
    apart = each.differing
    many = f"{len(apart)} of {len(each.table)} heads differ"
    told = (
        f"{many} (most {', '.join(apart[:5])})"
        if apart
        else f"none of {len(each.table)} heads is shown to differ"
    )
    return f"{each.name}: over heads the two correlate by {ends(each.correlation)}; {told}."


def _shared(row: Mapping[Any, Any]) -> str:
    share, chance, p = (
        float(str(row[name])) for name in ("similarity", "by_chance", "p_corrected")
    )
    return (
        f"Their circuits share {number(share)} of their {row['level']} (by chance "
        f"{number(chance)}, {p_value(p)})."
    )


def _agreement(found: Sequence[Verdicts], what: str) -> list[str]:
    both = [each for each in found if "–" not in (each.one, each.other)]
    if not both:
        return []
    same = sum(each.one == each.other for each in both)
    return [f"Of {len(both)} {what}, {same} came out the same."]
