"""Building a built-in behaviour for one tokenizer.

1. The generator writes examples from words that are one token each for this tokenizer.
2. They are aligned with it like anybody's prompts; see `align`.
3. A tokenizer may still merge what the generator could not foresee. Such examples are left out,
   as many more are drawn, and the provenance counts them. When none of a few rounds gives `n`
   that fit, the problems are raised instead.

The examples depend on the name, n, seed, split, variations and the tokenizer, and on nothing else.
"""

from __future__ import annotations

import difflib
import random
from dataclasses import dataclass
from typing import Any

from cutaway.behaviours.align import Aligned, Pair, align, stack
from cutaway.behaviours.behaviour import Behaviour, Split
from cutaway.behaviours.builtin import DESCRIPTIONS, GENERATORS, VARIATIONS
from cutaway.behaviours.example import Example, Prompt
from cutaway.behaviours.problems import Problems
from cutaway.behaviours.tokenizing import is_one_token
from cutaway.errors import BehaviourError
from cutaway.model.tokens import Padding

_ROUNDS = 4


@dataclass(frozen=True, kw_only=True)
class Listing:
    """One line of the list of built-in behaviours."""

    name: str
    """What `build` calls it."""
    description: str
    """One sentence about it."""
    paper: str
    """Where it was first studied."""
    variations: dict[str, tuple[str, ...]]
    """For each variation keyword its allowed values, the default one first."""


def listing() -> list[Listing]:
    """The built-in behaviours in their usual order."""
    return [
        Listing(
            name=name,
            description=DESCRIPTIONS[name],
            paper=PAPERS[name],
            variations=dict(VARIATIONS[name]),
        )
        for name in GENERATORS
    ]


def build(
    name: str,
    tokenizer: Any,
    *,
    n: int = 200,
    seed: int = 0,
    split: Split = "all",
    bos: bool | None = None,
    padding: Padding = "right",
    **variation: str,
) -> Behaviour:
    """`n` examples of a built-in behaviour for this tokenizer.

    `bos=None` puts the BOS token that the tokenizer puts by default, True or False say so; further
    keywords are the behaviour's variations (`listing()` has them). Raises `BehaviourError` for an
    unknown name or variation, and when the tokenizer leaves too few words.
    """
    if name not in GENERATORS:
        nearest = difflib.get_close_matches(name, GENERATORS, n=1, cutoff=0.3)
        meant = f"did you mean {nearest[0]!r}? " if nearest else ""
        raise BehaviourError(
            f"There is no built-in behaviour {name!r}; {meant}There are: {', '.join(GENERATORS)}."
        )
    aligned, left_out = _draw(name, tokenizer, n, seed, split, bos, variation)
    fields = stack(aligned, tokenizer, padding)
    fields["provenance"] = {
        "source": "built-in",
        "generator": name,
        "seed": seed,
        "split": split,
        "variation": dict(variation),
        "misaligned_left_out": left_out,
        **fields["provenance"],
    }
    return Behaviour(name=name, description=DESCRIPTIONS[name], metric="logit_diff", **fields)


def _draw(
    name: str,
    tokenizer: Any,
    n: int,
    seed: int,
    split: Split,
    bos: bool | None,
    variation: dict[str, str],
) -> tuple[list[Aligned], int]:
    """`n` examples that fit the tokenizer, and how many before them did not."""
    wanted = n
    problems = Problems(source=f"The built-in behaviour {name!r} with this tokenizer")
    for _ in range(_ROUNDS):
        try:
            examples = GENERATORS[name](
                random.Random(seed),
                wanted,
                vocabulary=lambda text: is_one_token(tokenizer, text),
                split=split,
                **variation,
            )
        except BehaviourError:
            problems.raise_if_any()
            raise
        problems.found.clear()
        pairs = [_pair(row, example) for row, example in enumerate(examples, start=1)]
        aligned = align(pairs, tokenizer, problems, bos=bos)
        if len(aligned) >= n:
            kept = aligned[:n]
            return kept, kept[-1].pair.row - n
        fitting = max(len(aligned), 1) / wanted
        wanted = min(int(n / fitting * 1.2) + 8, 20 * n)
    problems.raise_if_any()
    raise AssertionError("fewer examples than asked for, without a problem")


def _pair(row: int, example: Example) -> Pair:
    """An example as text with labelled spans."""
    return Pair(
        row=row,
        clean=example.clean.text,
        corrupt=example.corrupt.text,
        answers=example.answers,
        wrong_answers=example.wrong_answers,
        labels=_spans(example.clean),
        corrupt_labels=_spans(example.corrupt),
        variation=dict(example.variation),
        held_out=example.held_out,
        explicit=True,
    )


def _spans(prompt: Prompt) -> dict[str, tuple[int, int]]:
    """Where each labelled piece stands in the prompt's text."""
    spans: dict[str, tuple[int, int]] = {}
    start = 0
    for text, label in prompt.pieces:
        if label is not None:
            spans[label] = (start, start + len(text))
        start += len(text)
    return spans


PAPERS: dict[str, str] = {
    "ioi": "Wang et al. 2022, Interpretability in the Wild",
    "gendered-pronouns": "Mathwin et al. 2023, Identifying a Preliminary Circuit for Predicting "
    "Gendered Pronouns in GPT-2 Small",
    "greater-than": "Hanna et al. 2023, How Does GPT-2 Compute Greater-Than?",
    "acronyms": "García-Carrasco et al. 2024, How Does GPT-2 Predict Acronyms?",
    "induction": "Olsson et al. 2022, In-context Learning and Induction Heads",
    "capitals": "Todd et al. 2024, Function Vectors in Large Language Models",
    "phone-number": "",
}
"""Where each built-in behaviour was first studied; empty where it is our own."""
