"""The report's sections about what the behaviour depends on, as seen from outside.

`CHAPTERS` lists them as the report wants them: the heading, the stages they tell of, and the
function from a stage's inputs to the section.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from cutaway.behaviours import Interval
from cutaway.behaviours.variation import breakdown, by_place
from cutaway.study import blackbox_figures as draw
from cutaway.study.blackbox import BlackBox
from cutaway.study.blackbox_calibration import Calibration
from cutaway.study.blackbox_flipped import Flip, Flips, Searched
from cutaway.study.blackbox_frequency import Frequency
from cutaway.study.blackbox_insertions import NONE, Insertions
from cutaway.study.stage import Inputs
from cutaway.study.words import listed, percent, plain, with_ends
from cutaway.views import Section, Table
from cutaway.views.text import number, shortened

SURE = "Is it as often right as it is sure?"
AROUND = "Does it depend on what stands around it?"
BREAKS = "What breaks it?"
COMMON = "Does it depend on how common the words are?"


def sure(inputs: Inputs) -> Section:
    """Calibration, and how it goes with the prompts' lengths and the places of their parts."""
    box, behaviour = inputs.of(BlackBox), inputs.behaviour
    values = {name: box.each(name) for name in ("accuracy", "logit_diff")}
    placed = by_place(behaviour)
    table: pd.DataFrame = breakdown(placed, values, seed=inputs.settings.seed)
    by_length = draw.variations(box, table, "By the prompts’ lengths and the places of their parts")
    sides, vocabulary = box.calibration(), box.calibration("vocabulary")
    return Section(
        heading=SURE,
        sentences=(
            f"Between the right and the wrong answers alone, {_error(sides)}",
            f"Over the whole vocabulary, {_error(vocabulary)}",
        ),
        figures=(
            draw.calibration(sides, "between the two sides", "sides"),
            draw.calibration(vocabulary, "over the vocabulary", "vocabulary"),
            *([by_length] if by_length else []),
        ),
        reproduce="study.blackbox.calibration().error, "
        'study.blackbox.calibration("vocabulary").error',
    )


def _error(found: Calibration) -> str:
    """How far confidence and accuracy are apart, beside what chance gives."""
    mean, low, high = (float(end) for end in (found.error.mean, found.error.low, found.error.high))
    verdict = (
        "so it is as sure as it should be, as far as these prompts can tell"
        if found.calibrated
        else "so it is not as sure as it should be"
    )
    return (
        f"confidence and accuracy are apart by {number(mean, 3)} on average (expected calibration "
        f"error, 95 % CI {number(low, 3)} to {number(high, 3)}). A perfectly calibrated model with "
        f"these confidences would stay below {number(found.chance, 3)} 19 times out of 20, "
        f"{verdict}."
    )


def around(inputs: Inputs) -> Section:
    """Distractors before and inside, and the same prompts further on."""
    found = inputs.of(Insertions)
    n = found.values.sizes["example"]
    others = [name for name in found.names if name != NONE]
    changes = {name: found.change("logit_diff", name) for name in others}
    return Section(
        heading=AROUND,
        sentences=(
            f"The same {n} prompts with other text around them, which leaves what they ask as it "
            f"was. As they are, the accuracy is "
            f"{with_ends(found.interval('accuracy'), as_percent=True)}.",
            _strongest(changes, found),
        ),
        figures=tuple(draw.around(found)),
        table=_changes(found, changes),
        reproduce='study.distractors.change("logit_diff", "sentence before")',
    )


def _strongest(changes: dict[str, Interval], found: Insertions) -> str:
    """Which text weakens it most, where one does."""
    sure = together(len(changes))
    lower = {
        name: each for name, each in changes.items()
        if float(found.change("logit_diff", name, confidence=sure).high) < 0
    }  # fmt: skip
    if not lower:
        return "No text around the prompts takes away more of the logit difference than chance may."
    worst = min(lower, key=lambda name: float(lower[name].mean))
    return (
        f"What weakens it most is “{worst}”: the logit difference changes by "
        f"{with_ends(lower[worst])}, and the accuracy is "
        f"{with_ends(found.interval('accuracy', worst), as_percent=True)}. Of {len(changes)} kinds "
        f"of text, {len(lower)} weaken it beyond chance (corrected for their number)."
    )


def together(many: int) -> float:
    """The confidence of each of many intervals that hold together with 95 % (Bonferroni)."""
    return 1 - 0.05 / max(many, 1)


def _changes(found: Insertions, changes: dict[str, Interval]) -> Table:
    rows = tuple(
        (
            name,
            f"{np.nanmean(found.added.sel(insertion=name).to_numpy()):.1f}",
            str(int(each.n)),
            with_ends(found.interval("accuracy", name), as_percent=True),
            with_ends(each),
        )
        for name, each in changes.items()
    )
    return Table(
        caption="The same prompts with text around them; changes are paired",
        columns=("text", "tokens added", "prompts", "accuracy", "change of the logit difference"),
        rows=rows,
    )


def breaks(inputs: Inputs) -> Section:
    """The smallest changes that flip the answer, and what each value of each slot does."""
    found = inputs.of(Flips)
    return Section(
        heading=BREAKS,
        sentences=(how_many(found), _searched(found)),
        figures=(draw.sizes(found), draw.slots(found)),
        table=_edits(found),
        reproduce="study.flips.found, study.flips.levels, study.flips.by_slot()",
    )


def how_many(found: Flips) -> str:
    """How many prompts are flipped by how many changes."""
    n = len(found.found)
    ways = [(found.flipped(0), "wrong without any change")]
    ways += [
        (found.flipped(level.size), f"turned wrong by {_changed(level.size)}")
        for level in found.levels
    ]
    ways += [(sum(one.changes is None for one in found.found), "turned wrong by none that was run")]
    told = [f"{count} {'is' if count == 1 else 'are'} {way}" for count, way in ways if count]
    return (
        "A change puts another value into one slot of the prompt (a name, the template, a "
        "sentence before it); the right answer is the changed prompt’s own. Of the "
        f"{n} prompts searched, {listed(told)}."
    )


def _changed(size: int) -> str:
    return "one change" if size == 1 else f"{size} changes"


def _searched(found: Flips) -> str:
    """What the search looked at."""
    return f"Searched were {listed([_level(level) for level in found.levels])}."


def _level(level: Searched) -> str:
    what = "single changes" if level.size == 1 else f"edits of {level.size} changes"
    if level.exhausted:
        return f"all {level.possible:,} {what} of {level.prompts} prompts ({level.tried:,} differ)"
    return f"{level.tried:,} of {level.possible:,} {what} of {level.prompts} prompts"


def _edits(found: Flips) -> Table:
    """The smallest change of each prompt."""
    rows = tuple(
        (
            shortened(one.before, 300), "–" if one.changes is None else str(one.changes),
            str(one.tokens) if one.changes else "–", _edit(one),
            f"{plain(one.margin)} → {plain(one.flipped_margin)}"
            if one.flipped_margin is not None else plain(one.margin),
        )
        for one in found.found
    )  # fmt: skip
    return Table(
        caption="The smallest change found for each prompt, and its margin (the best right logit "
        "less the best wrong one)",
        columns=("prompt", "changes", "tokens", "what is changed", "margin"),
        rows=rows,
    )


def _edit(one: Flip) -> str:
    if one.changes == 0:
        return "nothing: wrong as it is"
    if one.changes is None:
        return "none of those tried flips it"
    return "; ".join(
        f"{slot}: {_value(before)} → {_value(after)}" for slot, (before, after) in one.edit.items()
    )


def _value(text: str) -> str:
    return f"“{shortened(text, 90)}”" if text else "none"


def common(inputs: Inputs) -> Section:
    """Whether common words are easier."""
    found = inputs.of(Frequency)
    told = [_correlations(found, source) for source in found.sources]
    return Section(
        heading=COMMON,
        sentences=(
            "How common a word is in text a model does not say. Two things stand for it: how early "
            "the tokenizer learnt the token (merge rank), and the model’s own mean probability of "
            "it over neutral sentences (unigram). Correlations are Spearman’s, with 95 % "
            "bootstrap intervals; above zero, common words are easier.",
            *told,
            *(f"Left out: {reason}" for reason in found.left_out.values()),
        ),
        figures=tuple(draw.frequencies(found)),
        reproduce=f'study.frequency.correlation("{found.sources[0]}", "{found.words[0]}")',
    )


def _correlations(found: Frequency, source: str) -> str:
    """Which words' frequencies go with the logit difference."""
    sure = together(len(found.words) * len(found.sources))
    each = {word: found.correlation(source, word, confidence=sure) for word in found.words}
    clear = [
        f"{word} ({plain(float(one.mean))})"
        for word, one in each.items()
        if float(one.low) > 0 or float(one.high) < 0
    ]
    if not clear:
        return f"By {source}, no word’s frequency goes with the logit difference beyond chance."
    return (
        f"By {source}, the logit difference goes with the frequency of {listed(clear)}; "
        f"{percent(len(clear) / len(each))} of {len(each)} words (corrected for their number)."
    )


CHAPTERS = (
    (SURE, ("blackbox",), sure),
    (AROUND, ("distractors",), around),
    (BREAKS, ("flips",), breaks),
    (COMMON, ("frequency",), common),
)
"""Heading, stages and section of each, in the report's order."""
