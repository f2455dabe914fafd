"""Countries and their capitals, recalled from training.

Form "statement": "The capital of France is" → " Paris". Form "in-context": the relation is shown
by examples, "Japan : Tokyo, Italy : Rome, France :" → " Paris" (after Todd et al. 2024). In the
corrupt prompt the last country is another one. Wrong answers: all other capitals that are one
token. Labels: COUNTRY, end.

Held out: held-out statement templates, and one in five orders of countries in context.
"""

from __future__ import annotations

import random

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
from cutaway.behaviours.example import Example

NAME = "capitals"
DESCRIPTION = "Capitals: the capital of a country, in a statement or as an in-context relation."

TEMPLATES = (
    "The capital of {COUNTRY} is",
    "The capital city of {COUNTRY} is called",
    "In {COUNTRY}, the capital is",
    "The largest flag in {COUNTRY} is in the capital,",
    "My sister lives in {COUNTRY}, in the capital city,",
    "The government of {COUNTRY} met in the capital,",
    "They travelled to the capital of {COUNTRY},",
    "The capital of {COUNTRY} is the old city of",
    "The people of {COUNTRY} are proud of the city of",
)

HELD_OUT_TEMPLATES = (
    "The government of {COUNTRY} is in the city of",
    "My sister travelled to the capital of {COUNTRY},",
)

SHOTS = ("2", "3", "4")

VARIATIONS = {
    "form": (ANY, "statement", "in-context"),
    "template": (ANY, *TEMPLATES, *HELD_OUT_TEMPLATES),
    "shots": (ANY, *SHOTS),
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
    known = single_tokens(
        NAME,
        "countries with their capitals",
        [land for land, city in words.CAPITALS.items() if vocabulary(f" {city}")],
        vocabulary,
        at_least=8,
    )
    cities = [words.CAPITALS[land] for land in known]

    def draw() -> Example:
        form = pick(rng, wanted["form"], ("statement", "in-context"))
        country, other, *shown = rng.sample(known, 6)
        sentence = "" if wanted["distractor"] == "none" else rng.choice(words.DISTRACTORS)
        how: dict[str, str] = {}
        if form == "statement":
            template = pick(rng, wanted["template"], TEMPLATES + HELD_OUT_TEMPLATES)
            kept_back = template in HELD_OUT_TEMPLATES
            how["template"] = template
        else:
            shown = shown[: int(pick(rng, wanted["shots"], SHOTS))]
            template = ", ".join(f"{land} : {words.CAPITALS[land]}" for land in shown)
            template = f"Capitals: {template}, {{COUNTRY}} :"
            kept_back = held_out(*shown, country)
            how["shots"] = str(len(shown))
        clean, corrupt = (
            preceded(fill(template, {"COUNTRY": land}, {"COUNTRY": "COUNTRY"}), sentence)
            for land in (country, other)
        )
        answer = words.CAPITALS[country]
        return Example(
            clean=clean,
            corrupt=corrupt,
            answers=(f" {answer}",),
            wrong_answers=tuple(f" {city}" for city in cities if city != answer),
            variation={"template": "none", "shots": "0", "distractor": wanted["distractor"]}
            | how
            | {"form": form, "country": country},
            held_out=kept_back,
        )

    return collect(NAME, n, split, draw)
