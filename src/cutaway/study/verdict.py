"""The verdict: every attack on a finding, what it showed, and whether the finding survived.

An attack measures one margin per example (or template, or answer): how far the finding is on the
right side of what the attack asks for. Its p-value is that of a sign-flip test of the margins
(`cutaway.measure.significance`), and the p-values of all attacks are corrected together by Holm's
step-down method (Holm 1979, "A simple sequentially rejective multiple test procedure"): sorted
upwards, the i-th of n is multiplied by n − i + 1, and none is below the one before.

| outcome | when |
|---|---|
| `survives` | the corrected p is below 0.05 and the margins' mean above zero |
| `fails` | the corrected p is below 0.05 and the mean below zero |
| `undecided` | the corrected p is 0.05 or more |
| `not applicable` | the attack cannot be made here; `found` says why |

Controls, on which the whole search is run where there is nothing to find, have no margins: the
finding survives when their search finds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Self

import numpy as np
import xarray as xr
from jaxtyping import Float
from numpy import ndarray

from cutaway.measure.result import Result
from cutaway.measure.significance import sign_flips

Outcome = Literal["survives", "fails", "undecided", "not applicable"]

LEVEL = 0.05


@dataclass(frozen=True, kw_only=True, eq=False)
class Attack:
    """One attack, made."""

    kind: str
    """Which kind of attack it is."""
    name: str
    """What was done."""
    found: str
    """What it showed, or why it could not be made."""
    effect: float = float("nan")
    """What was measured, in `unit`."""
    low: float = float("nan")
    """Lower end of its interval over examples."""
    high: float = float("nan")
    """Upper end of its interval over examples."""
    unit: str = ""
    """What the effect is: faithfulness, logits, …"""
    margins: Float[ndarray, " example"] = field(default_factory=lambda: np.empty(0), repr=False)
    """How far each example is on the finding's side; none for controls."""
    p: float = float("nan")
    """Of the margins, by sign flips."""
    p_corrected: float = float("nan")
    """The same, corrected for all attacks."""
    outcome: Outcome = "not applicable"
    """Whether the finding survived."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RedTeam(Result):
    """Everything that was tried against the finding."""

    attacks: tuple[Attack, ...]
    """Each attack with its outcome."""
    provenance: Mapping[str, Any] = field(repr=False)
    """Versions, model, data and settings."""

    def of(self, *outcomes: Outcome) -> list[Attack]:
        """The attacks with one of these outcomes."""
        return [attack for attack in self.attacks if attack.outcome in outcomes]

    def to_dataset(self) -> xr.Dataset:
        """The margins, NaN where an attack has fewer; all else as attributes."""
        longest = max((len(attack.margins) for attack in self.attacks), default=0)
        margins = np.full((len(self.attacks), longest), np.nan)
        for row, attack in enumerate(self.attacks):
            margins[row, : len(attack.margins)] = attack.margins
        rows = [{name: getattr(attack, name) for name in _SINGLE} for attack in self.attacks]
        return xr.Dataset(
            {"margins": (("attack", "example"), margins)},
            attrs={"attacks": rows, "provenance": dict(self.provenance)},
        )

    @classmethod
    def from_dataset(cls, data: xr.Dataset) -> Self:
        """The inverse of `to_dataset`."""
        margins = data["margins"].to_numpy()
        attacks = tuple(
            Attack(**row, margins=each[~np.isnan(each)])
            for row, each in zip(data.attrs["attacks"], margins, strict=True)
        )
        return cls(attacks=attacks, provenance=data.attrs["provenance"])


_SINGLE = tuple(field.name for field in fields(Attack) if field.name != "margins")


def settled(attacks: Sequence[Attack], *, seed: int = 0) -> tuple[Attack, ...]:
    """The attacks with their p-values, corrected together, and the outcomes that these give."""
    tested = [at for at, attack in enumerate(attacks) if len(attack.margins) > 1]
    each = [float(sign_flips(attacks[at].margins[None], seed=seed).p[0]) for at in tested]
    found = list(attacks)
    for at, p, corrected in zip(tested, each, holm(each), strict=True):
        outcome: Outcome = "undecided"
        if corrected < LEVEL:
            outcome = "survives" if attacks[at].margins.mean() > 0 else "fails"
        found[at] = replace(attacks[at], p=p, p_corrected=corrected, outcome=outcome)
    return tuple(found)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's corrected p-values, in the given order."""
    order = np.argsort(p, kind="stable")
    steps = np.asarray(p, dtype=float)[order] * np.arange(len(p), 0, -1)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return corrected.tolist()
