"""Greater-than (Hanna et al. 2023, "How does GPT-2 compute greater-than?").

"The war lasted from the year 1732 to the year 17" is followed by any two digits above 32. The
corrupt prompt begins in the year 01 of the same century, which rules nothing out but 00 and 01.
Answers: all two-digit years above the start; wrong answers: the start and all below it.
Labels: NOUN, XX1 (first century), YY (the year's last two digits), end.

Only years that the tokenizer splits into century and two digits are used. Held out: one in five
combinations of event and year, and a template.
"""

from __future__ import annotations

import random
from functools import partial

from cutaway.behaviours.builtin import words
from cutaway.behaviours.builtin.sampling import (
    ANY,
    Split,
    Vocabulary,
    choose,
    collect,
    fill,
    held_out,
    pick,
    preceded,
    single_tokens,
)
from cutaway.behaviours.builtin.slots import Choice, Filled, Recipe
from cutaway.behaviours.example import Example
from cutaway.errors import BehaviourError

NAME = "greater-than"
DESCRIPTION = "Greater-than: the year in which something ends is later than the one it began in."

TEMPLATES = (
    "The {NOUN} lasted from the year {XX1}{YY} to the year {XX}",
    "The {NOUN} lasted from {XX1}{YY} to {XX}",
    "The {NOUN} began in {XX1}{YY} and ended in {XX}",
    "The {NOUN} started in the year {XX1}{YY} and was over by the year {XX}",
    "The long {NOUN} went on from {XX1}{YY} until {XX}",
)

HELD_OUT_TEMPLATES = ("The {NOUN} started in {XX1}{YY} and lasted until {XX}",)

CENTURIES = ("12", "14", "16", "17", "18")
"""GPT-2's tokenizer splits others unevenly: 1302 is " 130", "2"."""

VARIATIONS = {
    "template": (ANY, *TEMPLATES, *HELD_OUT_TEMPLATES),
    "century": (ANY, *CENTURIES),
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
    events = single_tokens(NAME, "events", words.EVENTS, vocabulary, at_least=2)
    years = _years(vocabulary)

    def draw() -> Example | None:
        century, start = rng.choice(years)
        if wanted["century"] not in (ANY, century):
            return None
        event = rng.choice(events)
        template = pick(rng, wanted["template"], TEMPLATES + HELD_OUT_TEMPLATES)
        sentence = "" if wanted["distractor"] == "none" else rng.choice(words.DISTRACTORS)
        choice = {
            "template": template, "distractor": sentence,
            "NOUN": event, "century": century, "YY": f"{start:02d}",
        }  # fmt: skip
        filled = _filled(choice)
        return Example(
            clean=filled.clean,
            corrupt=_filled({**choice, "YY": "01"}).clean,
            answers=filled.answers,
            wrong_answers=filled.wrong_answers,
            variation={
                **wanted,
                "template": template,
                "century": century,
                "event": event,
                "start": f"{start:02d}",
            },
            held_out=template in HELD_OUT_TEMPLATES or held_out(event, start),
            slots=choice,
        )

    return collect(NAME, n, split, draw)


def recipe(vocabulary: Vocabulary) -> Recipe:
    """Every choice: template, event, century, year in it, and the sentence before."""
    years = _years(vocabulary)
    return Recipe(
        slots={
            "template": TEMPLATES + HELD_OUT_TEMPLATES,
            "distractor": ("", *words.DISTRACTORS),
            "NOUN": tuple(single_tokens(NAME, "events", words.EVENTS, vocabulary, at_least=2)),
            "century": tuple(dict.fromkeys(century for century, _ in years)),
            "YY": tuple(f"{year:02d}" for year in sorted({year for _, year in years})),
        },
        write=partial(_written, set(years)),
    )


def _written(years: set[tuple[str, int]], choice: Choice) -> Filled | None:
    """The prompt, where the tokenizer splits this year as it must."""
    return _filled(choice) if (choice["century"], int(choice["YY"])) in years else None


def _filled(choice: Choice) -> Filled:
    """The clean prompt; all years above the start are right, the others wrong."""
    slots = {**choice, "XX1": choice["century"], "XX": choice["century"]}
    prompt = fill(choice["template"], slots, {label: label for label in ("NOUN", "XX1", "YY")})
    start = int(choice["YY"])
    return Filled(
        clean=preceded(prompt, choice["distractor"]),
        answers=tuple(f"{year:02d}" for year in range(start + 1, 100)),
        wrong_answers=tuple(f"{year:02d}" for year in range(start + 1)),
    )


def _years(vocabulary: Vocabulary) -> list[tuple[str, int]]:
    """The (century, year) pairs that the tokenizer splits in just that way."""
    digits = all(vocabulary(f"{year:02d}") for year in range(100))
    years = [
        (century, year)
        for century in CENTURIES
        if digits and vocabulary(f" {century}")
        for year in range(2, 99)
        if not vocabulary(f" {century}{year:02d}") and not vocabulary(f" {century}01")
    ]
    if len(years) < 20:
        raise BehaviourError(
            f"The behaviour {NAME!r} needs years that split into two tokens of two digits each, "
            f"and this tokenizer has {len(years)} of them; use a tokenizer that writes numbers in "
            f"groups of two digits."
        )
    return years
