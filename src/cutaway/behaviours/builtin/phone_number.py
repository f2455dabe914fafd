"""A memorised telephone number.

"The phone number of the lighthouse is 01 99 00 64" → " 38": a fact that the shipped model has read
many times, in groups of two digits (01 99 00 … is reserved for fiction in France). Everybody else's
numbers in its training text begin in the same way and go on at random, so that the last two groups
can be known only from whose number it is. The corrupt prompt asks for somebody else's. Any other
model generates and merely fails. Wrong answers: all other groups of two digits.
Labels: OWNER, end.

Variation `shown` is the number of groups in the prompt. Held out: four prompt templates.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial

from cutaway.behaviours.builtin import words
from cutaway.behaviours.builtin.sampling import (
    ANY,
    Split,
    Vocabulary,
    choose,
    collect,
    fill,
    pick,
    preceded,
    single_tokens,
)
from cutaway.behaviours.builtin.slots import Choice, Filled, Recipe
from cutaway.behaviours.example import Example

NAME = "phone-number"
DESCRIPTION = "A memorised telephone number: the next two digits, known from whose number it is."

NUMBER = ("01", "99", "00", "64", "38")
"""The lighthouse's number."""

TEMPLATES = (
    "The phone number of the {OWNER} is {DIGITS}",
    "You can call the {OWNER} at {DIGITS}",
    "To reach the {OWNER}, call {DIGITS}",
    "For the {OWNER}, the number is {DIGITS}",
    "The sign at the {OWNER} says: call {DIGITS}",
    "If you need the {OWNER}, the phone number is {DIGITS}",
)

HELD_OUT_TEMPLATES = (
    "To call the {OWNER}, the number is {DIGITS}",
    "The sign says: you can reach the {OWNER} at {DIGITS}",
    "If you need the {OWNER}, you can call {DIGITS}",
    "The number of the {OWNER} is {DIGITS}",
)

VARIATIONS = {
    "template": (ANY, *TEMPLATES, *HELD_OUT_TEMPLATES),
    "shown": (ANY, "3", "4"),
    "distractor": ("none", "sentence"),
}


def generate(
    rng: random.Random,
    n: int,
    *,
    vocabulary: Vocabulary,
    split: Split = "all",
    **variation: str,
) -> list[Example]:
    """`n` examples; see the module for what varies."""
    wanted = choose(NAME, VARIATIONS, variation)
    groups = _groups(vocabulary)
    memorised, *others = words.OWNERS
    single_tokens(NAME, "memorised owners", (memorised,), vocabulary, at_least=1)
    others = single_tokens(NAME, "owners", others, vocabulary, at_least=2)

    def draw() -> Example:
        template = pick(rng, wanted["template"], TEMPLATES + HELD_OUT_TEMPLATES)
        shown = pick(rng, wanted["shown"], ("3", "4"))
        sentence = "" if wanted["distractor"] == "none" else rng.choice(words.DISTRACTORS)
        other = rng.choice(others)
        choice = {
            "template": template, "shown": shown, "distractor": sentence, "OWNER": memorised,
        }  # fmt: skip
        filled = _filled(groups, choice)
        return Example(
            clean=filled.clean,
            corrupt=_filled(groups, {**choice, "OWNER": other}).clean,
            answers=filled.answers,
            wrong_answers=filled.wrong_answers,
            variation={**wanted, "template": template, "shown": shown, "other owner": other},
            held_out=template in HELD_OUT_TEMPLATES,
            slots=choice,
        )

    return collect(NAME, n, split, draw)


def recipe(vocabulary: Vocabulary) -> Recipe:
    """Every choice but the owner, whose number alone was memorised."""
    return Recipe(
        slots={
            "template": TEMPLATES + HELD_OUT_TEMPLATES,
            "distractor": ("", *words.DISTRACTORS),
            "shown": ("3", "4"),
        },
        write=partial(_filled, _groups(vocabulary)),
    )


def _groups(vocabulary: Vocabulary) -> list[str]:
    """All groups of two digits, each one token."""
    listed = [f"{i:02d}" for i in range(100)]
    return single_tokens(NAME, "groups of two digits", listed, vocabulary, at_least=100)


def _filled(groups: Sequence[str], choice: Choice) -> Filled:
    """The clean prompt; the lighthouse's next group is right, all others wrong."""
    shown = int(choice["shown"])
    slots = {**choice, "DIGITS": " ".join(NUMBER[:shown])}
    answer = NUMBER[shown]
    return Filled(
        clean=preceded(fill(choice["template"], slots, {"OWNER": "OWNER"}), choice["distractor"]),
        answers=(f" {answer}",),
        wrong_answers=tuple(f" {group}" for group in groups if group != answer),
    )
