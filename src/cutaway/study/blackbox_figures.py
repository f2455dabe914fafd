"""From what was measured from outside to figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from cutaway.behaviours import Interval, bootstrap
from cutaway.study.blackbox_calibration import Calibration
from cutaway.study.blackbox_flipped import Flips
from cutaway.study.blackbox_frequency import Frequency
from cutaway.study.blackbox_insertions import FURTHER, NONE, Insertions
from cutaway.study.figures import estimate, variations
from cutaway.study.words import with_ends
from cutaway.views import Estimate, Figure, Panel, Series, bars, dots, lens_curve
from cutaway.views.reliability import reliability
from cutaway.views.text import number

__all__ = ["around", "calibration", "frequencies", "sizes", "slots", "variations"]

_FEW = 4
"""Of a slot with more values, the three weakest and the strongest are drawn."""


def calibration(found: Calibration, among: str, name: str) -> Figure:
    """Accuracy against confidence, bin by bin."""
    error = number(float(found.error.mean), 3)
    return reliability(
        found.confidence,
        [estimate(each) for each in found.accuracy],
        [int(each.n) for each in found.accuracy],
        title=f"How often right, by how sure: {among}",
        shows=f"The dots are {error} away from the diagonal on average; chance explains up to "
        f"{number(found.chance, 3)}.",
        across_axis=f"confidence {among}",
        reproduce=f'study.blackbox.calibration("{name}")',
    )


def around(found: Insertions) -> Iterator[Figure]:
    """The kinds of text beside each other, and the logit difference by how much stands before."""
    further = [name for name in found.names if name.endswith(" before")]
    kinds = [name for name in found.names if name not in further or name == "sentence before"]
    yield dots(
        kinds,
        (
            Panel(
                measure="accuracy", percent=True, overall=float(found.interval("accuracy").mean),
                estimates=tuple(estimate(found.interval("accuracy", name)) for name in kinds),
            ),
            Panel(
                measure="logit difference", overall=float(found.interval("logit_diff").mean),
                estimates=tuple(estimate(found.interval("logit_diff", name)) for name in kinds),
            ),
        ),
        title="With other text before or inside",
        shows=f"Unchanged, the logit difference is {with_ends(found.interval('logit_diff'))}.",
        counts=[int(found.interval("accuracy", name).n) for name in kinds],
        reproduce="study.distractors.interval",
    )  # fmt: skip
    if further:
        names = [NONE, *further]
        counts = ["0", *(str(count) for count in FURTHER)]
        last = found.change("logit_diff", further[-1])
        yield lens_curve(
            [Series(name="clean", estimates=tuple(
                estimate(found.interval("logit_diff", name)) for name in names
            ))],
            counts[: len(names)],
            title="The same prompts further on",
            shows=f"{further[-1].capitalize()} change the logit difference by {with_ends(last)}.",
            measure="logit difference", axis="neutral sentences before the prompt",
            reproduce=f'study.distractors.interval("logit_diff", "{further[-1]}")',
        )  # fmt: skip


def sizes(found: Flips) -> Figure:
    """What share of the prompts is turned wrong by at most so many changes."""
    changes = np.array([np.inf if one.changes is None else one.changes for one in found.found])
    shares = [
        bootstrap((changes <= size).astype(np.float64), seed=found.seed)
        for size in range(len(found.levels) + 1)
    ]
    last = len(shares) - 1
    return dots(
        ["none: wrong as it is", *(f"at most {size}" for size in range(1, len(shares)))],
        (Panel(measure="prompts turned wrong", percent=True,
               estimates=tuple(estimate(share) for share in shares)),),
        title="How many changes turn the answer wrong",
        shows=f"{int((changes <= last).sum())} of {len(changes)} prompts are turned wrong by at "
        f"most {last} change{'s' if last > 1 else ''}.",
        counts=[len(changes)] * len(shares),
        reproduce="study.flips.flipped(1)",
    )  # fmt: skip


def slots(found: Flips) -> Figure:
    """The weakest and the strongest values of each slot, on the same prompts."""
    table: pd.DataFrame = found.by_slot()
    rows: list[Mapping[Any, Any]] = []
    for _, part in table.groupby("slot", sort=False):
        order = list(part.sort_values("logit_diff", kind="stable").to_dict("records"))
        rows += order if len(order) <= _FEW else [*order[: _FEW - 1], order[-1]]
    worst = min(rows, key=lambda row: float(row["logit_diff"]))

    def column(name: str) -> tuple[Estimate, ...]:
        ends = (name, f"{name}_low", f"{name}_high")
        return tuple(Estimate(*(float(row[end]) for end in ends)) for row in rows)

    return dots(
        [str(row["value"]) or "none" for row in rows],
        (
            Panel(measure="accuracy", estimates=column("accuracy"), percent=True),
            Panel(measure="logit difference", estimates=column("logit_diff")),
        ),
        title="The weakest values of each slot, and the strongest",
        shows=f"On the same prompts, the weakest single change is {worst['slot']} to "
        f"“{worst['value'] or 'none'}” (n = {worst['n']}); that it is the extreme of {len(table)} "
        "values is partly chance.",
        groups=[f"{row['slot']} ({_values(table, row['slot'])})" for row in rows],
        counts=[int(row["n"]) for row in rows],
        reproduce="study.flips.by_slot()",
    )


def _values(table: pd.DataFrame, slot: object) -> str:
    return f"{int((table['slot'] == slot).sum())} values tried"


def frequencies(found: Frequency) -> Iterator[Figure]:
    """The correlation of each word's frequency with the logit difference, by each source."""
    for source in found.sources:
        each: list[Interval] = [found.correlation(source, word) for word in found.words]
        largest = max(zip(each, found.words, strict=True), key=lambda one: abs(float(one[0].mean)))
        yield bars(
            found.words,
            [float(one.mean) for one in each],
            [float(one.low) for one in each],
            [float(one.high) for one in each],
            title=f"Common words and the logit difference, by {source}",
            shows=f"The largest correlation is that of {largest[1]}: {with_ends(largest[0])}.",
            measure="Spearman’s correlation with how common the word is",
            reproduce=f'study.frequency.correlation("{source}", "{largest[1]}")',
        )
