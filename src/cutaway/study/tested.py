"""What a hypothesis asks for, what was measured, and the verdict.

A role asks for several conditions. A condition has one margin per example: how far the example is
on the side that was predicted. Its p-value is that of a sign-flip test of the margins
(`cutaway.measure.significance`); the p-values of all conditions of all hypotheses are corrected
together by Holm's method. A condition

- holds, when the corrected p is below 0.05 and the margins' mean is above zero;
- fails, when the corrected p is below 0.05 and the mean is below zero.

One that is not a mean over examples (a score of the weights, or an interval that another
measurement gave) holds when its lower end is above what is asked for, and fails when its upper end
is below.

| verdict | when |
|---|---|
| `supported` | every condition holds |
| `refuted` | a condition that decides against the role fails |
| `undecided` | otherwise, or when it could not be tested; `found` says why |

Two conditions are asked of the behaviour and not of a role: that the model does it, and that the
corruption takes it away. Where these do not hold nothing is supported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, Self

import numpy as np
import xarray as xr
from jaxtyping import Float
from numpy import ndarray

from cutaway.behaviours import bootstrap
from cutaway.measure.result import Result
from cutaway.measure.significance import sign_flips
from cutaway.study.hypothesis import RoleHypothesis
from cutaway.study.verdict import LEVEL, holm

Verdict = Literal["supported", "refuted", "undecided"]
Origin = Literal["stated", "observed", "published", "wrong"]
"""Who says so: the user, the study itself (from prompts that do not test it), the literature about
another model, or nobody (a control that has to be refuted)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Condition:
    """One thing that a role asks for, measured."""

    name: str
    """What is asked for, in words."""
    effect: float
    """What was measured, in `unit`."""
    low: float
    """Lower end of its 95 % interval over examples."""
    high: float
    """Upper end of it."""
    unit: str
    """What the effect is counted in."""
    bound: float
    """What was predicted, in the same unit: at least so much (for "does not matter" at most)."""
    decides: bool = True
    """Whether its failing refutes the role; where not, it leaves it undecided."""
    margins: Float[ndarray, " example"] = field(default_factory=lambda: np.empty(0), repr=False)
    """How far each example is on the predicted side; none where it is not a mean over examples."""
    p: float = float("nan")
    """Of the margins, by sign flips."""
    p_corrected: float = float("nan")
    """The same, corrected for all conditions."""

    @property
    def holds(self) -> bool:
        """Whether it is shown to be so."""
        if len(self.margins):
            return self.p_corrected < LEVEL and float(self.margins.mean()) > 0
        return self.low > self.bound

    @property
    def fails(self) -> bool:
        """Whether it is shown not to be so."""
        if len(self.margins):
            return self.p_corrected < LEVEL and float(self.margins.mean()) < 0
        return self.high < self.bound


def condition(
    name: str, effect: Float[ndarray, " example"], margins: Float[ndarray, " example"], *,
    bound: float, unit: str, decides: bool = True,
) -> Condition:  # fmt: skip
    """A condition that is a mean over examples, not yet decided; NaN examples are left out."""
    found = bootstrap(effect)
    return Condition(
        name=name, effect=float(found.mean), low=float(found.low), high=float(found.high),
        unit=unit, bound=bound, decides=decides, margins=margins[~np.isnan(margins)],
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Tested:
    """A hypothesis and what came of it."""

    hypothesis: RoleHypothesis
    """What was stated."""
    origin: Origin
    """Who says so."""
    says: str = ""
    """In the literature's words, or why it is a wrong one."""
    conditions: tuple[Condition, ...] = ()
    """What its role asks for; none when it could not be tested."""
    found: str = ""
    """Why it could not be tested."""
    verdict: Verdict = "undecided"
    """Supported, refuted or undecided."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Hypotheses(Result):
    """Every hypothesis of a study, tested."""

    tested: tuple[Tested, ...]
    """Each with its verdict, in the order in which they were stated."""
    behaviour: tuple[Condition, ...]
    """That there is something to have a role in."""
    chosen_on: int
    """So many prompts the study's own hypotheses were chosen on."""
    tested_on: int
    """So many others they were tested on."""
    provenance: Mapping[str, Any] = field(repr=False)
    """Versions, model, data and settings."""

    def of(self, *verdicts: Verdict, origin: Origin | None = None) -> list[Tested]:
        """Those with one of these verdicts, from one origin or from all."""
        return [
            each
            for each in self.tested
            if each.verdict in verdicts and origin in (None, each.origin)
        ]

    def to_dataset(self) -> xr.Dataset:
        """The margins, NaN where there are fewer; all else as attributes."""
        every = [*self.behaviour, *(one for each in self.tested for one in each.conditions)]
        longest = max((len(one.margins) for one in every), default=0)
        margins = np.full((len(every), longest), np.nan)
        for row, one in enumerate(every):
            margins[row, : len(one.margins)] = one.margins
        tested = [
            {
                "hypothesis": asdict(each.hypothesis), "origin": each.origin, "says": each.says,
                "found": each.found, "verdict": each.verdict,
                "conditions": [_plain(one) for one in each.conditions],
            }
            for each in self.tested
        ]  # fmt: skip
        return xr.Dataset(
            {"margins": (("condition", "example"), margins)},
            attrs={
                "tested": tested, "behaviour": [_plain(one) for one in self.behaviour],
                "chosen_on": self.chosen_on, "tested_on": self.tested_on,
                "provenance": dict(self.provenance),
            },
        )  # fmt: skip

    @classmethod
    def from_dataset(cls, data: xr.Dataset) -> Self:
        """The inverse of `to_dataset`."""
        margins = iter(data["margins"].to_numpy())

        def conditions(rows: Sequence[Mapping[str, Any]]) -> tuple[Condition, ...]:
            each = [(row, next(margins)) for row in rows]
            return tuple(Condition(**row, margins=one[~np.isnan(one)]) for row, one in each)

        behaviour = conditions(data.attrs["behaviour"])
        tested = tuple(
            Tested(
                **{key: value for key, value in row.items() if key not in _NESTED},
                hypothesis=RoleHypothesis(**row["hypothesis"]),
                conditions=conditions(row["conditions"]),
            )
            for row in data.attrs["tested"]
        )
        single = {name: data.attrs[name] for name in ("chosen_on", "tested_on", "provenance")}
        return cls(tested=tested, behaviour=behaviour, **single)


_NESTED = ("hypothesis", "conditions")
_SINGLE = tuple(each.name for each in fields(Condition) if each.name != "margins")


def _plain(one: Condition) -> dict[str, Any]:
    return {name: getattr(one, name) for name in _SINGLE}


def decided(
    tested: Sequence[Tested], behaviour: Sequence[Condition], *, seed: int
) -> tuple[tuple[Tested, ...], tuple[Condition, ...]]:
    """Every condition with its p-value, corrected together, and the verdicts that these give."""
    every = [*behaviour, *(one for each in tested for one in each.conditions)]
    able = [at for at, one in enumerate(every) if len(one.margins) > 1]
    each = [float(sign_flips(every[at].margins[None], seed=seed).p[0]) for at in able]
    for at, p, corrected in zip(able, each, holm(each), strict=True):
        every[at] = replace(every[at], p=p, p_corrected=corrected)
    there, rest = tuple(every[: len(behaviour)]), iter(every[len(behaviour) :])
    found: list[Tested] = []
    for one in tested:
        conditions = tuple(next(rest) for _ in one.conditions)
        found.append(replace(one, conditions=conditions, verdict=_verdict(conditions, there)))
    return tuple(found), there


def _verdict(conditions: Sequence[Condition], there: Sequence[Condition]) -> Verdict:
    if any(one.fails and one.decides for one in conditions):
        return "refuted"
    if conditions and all(one.holds for one in (*there, *conditions)):
        return "supported"
    return "undecided"
