"""The report's sections about the behaviour: what it is, and how well the model does it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cutaway.behaviours import breakdown as break_down
from cutaway.study import figures as draw
from cutaway.study import sentences as say
from cutaway.study.blackbox import BlackBox, answer_texts
from cutaway.study.stage import Inputs
from cutaway.views import ExamplePrompt, Section, Table
from cutaway.views.text import word

STUDIED, OUTSIDE = "What is the behaviour?", "How well does the model do it?"
"""The sections' headings."""
_EXAMPLES = 6


def behaviour(inputs: Inputs) -> Section:
    """What is studied, with prompts."""
    studied = inputs.behaviour
    kept = sum(studied.held_out)
    told = f"{len(studied)} pairs" + (f", {kept} of them held out" if kept else "")
    shown = range(min(_EXAMPLES, len(studied)))
    return Section(
        heading=STUDIED,
        sentences=(
            studied.description,
            f"{told}. Each clean prompt has a corrupt twin of as many tokens, which differs where "
            "it is marked; the metric compares the correct answer’s logit with the wrong one’s.",
        ),
        examples=tuple(example(inputs, row) for row in shown),
        reproduce="study.blackbox.top_text, study.blackbox.top_probability",
    )


def example(inputs: Inputs, row: int, prefix: str = "") -> ExamplePrompt:
    """One pair as its tokens, with what the model said."""
    studied, box = inputs.behaviour, inputs.of(BlackBox)
    first = int(studied.clean.first[row])
    gap, probability = box.each("logit_diff")[row], float(box.top_probability[row])
    texts = [answer_texts(inputs.model, [[token] for token in side[row]])
             for side in (studied.answers, studied.wrong_answers)]  # fmt: skip
    return ExamplePrompt(
        tokens=studied.token_texts[row],
        answers=tuple(texts[0]),
        wrong_answers=tuple(texts[1]),
        labels={name: int(at[row]) - first for name, at in studied.clean.labels.items()},
        corrupt_tokens=studied.corrupt_token_texts[row],
        note=f"{prefix}The model’s likeliest next token is “{word(str(box.top_text[row].item()))}” "
        f"({say.percent(probability)}); logit difference {say.plain(gap)}.",
    )


def black_box(inputs: Inputs) -> Section:
    """How well the model does it, and where it fails."""
    box = inputs.of(BlackBox)
    values = {name: box.each(name) for name in ("accuracy", "logit_diff")}
    table: pd.DataFrame = break_down(inputs.behaviour, values, seed=inputs.settings.seed)
    by_variation = draw.variations(box, table)
    drawn = [draw.examples(box), *([by_variation] if by_variation else [])]
    told = (say.accuracy(box), say.held_out(box), say.corruption(box))
    order = np.argsort(box.each("logit_diff"), kind="stable")
    extremes = [(int(order[-1]), "The best. "), (int(order[0]), "The worst. ")]
    return Section(
        heading=OUTSIDE,
        sentences=tuple(sentence for sentence in told if sentence),
        examples=tuple(example(inputs, row, word) for row, word in extremes),
        figures=tuple(drawn),
        table=_measures(box),
        reproduce='study.blackbox.interval("accuracy"), study.blackbox.interval("logit_diff"), '
        'study.blackbox.interval("logit_diff", "corrupt")',
    )


def _measures(box: BlackBox) -> Table:
    """Every measure with its interval, clean, held out and corrupt."""
    kinds: list[tuple[str, str, bool | None]] = [("clean", "clean", None)]
    if 0 < box.n_held_out < box.n:
        kinds.append(("clean, held out", "clean", True))
    kinds.append(("corrupt, with the clean answers", "corrupt", None))
    rows = tuple(
        (
            name,
            *(
                say.with_ends(box.interval(measure, run, held_out=kept), as_percent=percent)
                for measure, percent in (
                    ("accuracy", True), ("logit_diff", False), ("prob_diff", False),
                )
            ),
        )
        for name, run, kept in kinds
    )  # fmt: skip
    return Table(
        caption="Means over prompts with 95 % bootstrap intervals",
        columns=("prompts", "accuracy", "logit difference", "probability difference"),
        rows=rows,
    )
