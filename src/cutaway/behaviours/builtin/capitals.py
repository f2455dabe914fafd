"""Countries and their capitals, recalled from training.

Form "statement": "The capital of France is" → " Paris". Form "in-context": the relation is shown
by examples, "Japan : Tokyo, Italy : Rome, France :" → " Paris" (after Todd et al. 2024). In the
corrupt prompt the last country is another one. Wrong answers: all other capitals that are one
token. Labels: COUNTRY, end.

Held out: held-out statement templates, and one in five orders of countries in context.
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
    held_out,
    pick,
    preceded,
    single_tokens,
)
from cutaway.behaviours.builtin.slots import Choice, Filled, Recipe
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
    known = _known(vocabulary)

    def draw() -> Example:
        form = pick(rng, wanted["form"], ("statement", "in-context"))
        country, other, *shown = rng.sample(known, 6)
        sentence = "" if wanted["distractor"] == "none" else rng.choice(words.DISTRACTORS)
        how: dict[str, str] = {}
        if form == "statement":
            how["template"] = pick(rng, wanted["template"], TEMPLATES + HELD_OUT_TEMPLATES)
            kept_back = how["template"] in HELD_OUT_TEMPLATES
        else:
            how["shots"] = pick(rng, wanted["shots"], SHOTS)
            kept_back = held_out(*shown[: int(how["shots"])], country)
        choice = {
            "template": TEMPLATES[0], "shots": SHOTS[0], **how,
            "form": form, "distractor": sentence, "COUNTRY": country,
            **{f"shown {at}": land for at, land in enumerate(shown, start=1)},
        }  # fmt: skip
        filled = _filled(known, choice)
        return Example(
            clean=filled.clean,
            corrupt=_filled(known, {**choice, "COUNTRY": other}).clean,
            answers=filled.answers,
            wrong_answers=filled.wrong_answers,
            variation={"template": "none", "shots": "0", "distractor": wanted["distractor"]}
            | how
            | {"form": form, "country": country},
            held_out=kept_back,
            slots=choice,
        )

    return collect(NAME, n, split, draw)


def recipe(vocabulary: Vocabulary) -> Recipe:
    """Every choice: form, template, the country, those shown before it and how many."""
    known = tuple(_known(vocabulary))
    shown = [f"shown {at}" for at in range(1, int(SHOTS[-1]) + 1)]
    return Recipe(
        slots={
            "form": ("statement", "in-context"),
            "template": TEMPLATES + HELD_OUT_TEMPLATES,
            "shots": SHOTS,
            "distractor": ("", *words.DISTRACTORS),
            **dict.fromkeys(("COUNTRY", *shown), known),
        },
        write=partial(_written, known),
    )


def _known(vocabulary: Vocabulary) -> list[str]:
    """The countries that are one token, as their capitals are."""
    lands = [land for land, city in words.CAPITALS.items() if vocabulary(f" {city}")]
    return single_tokens(NAME, "countries with their capitals", lands, vocabulary, at_least=8)


def _shown(choice: Choice) -> list[str]:
    """The countries that a prompt of the form "in-context" shows before its own."""
    count = int(choice["shots"]) if choice["form"] == "in-context" else 0
    return [choice[f"shown {at}"] for at in range(1, count + 1)]


def _written(known: Sequence[str], choice: Choice) -> Filled | None:
    """The prompt, where no country stands in it twice."""
    named = [choice["COUNTRY"], *_shown(choice)]
    return _filled(known, choice) if len(set(named)) == len(named) else None


def _filled(known: Sequence[str], choice: Choice) -> Filled:
    """The clean prompt; the country's capital is right, all others wrong."""
    template = choice["template"]
    if choice["form"] == "in-context":
        shown = ", ".join(f"{land} : {words.CAPITALS[land]}" for land in _shown(choice))
        template = f"Capitals: {shown}, {{COUNTRY}} :"
    prompt = fill(template, {"COUNTRY": choice["COUNTRY"]}, {"COUNTRY": "COUNTRY"})
    answer = words.CAPITALS[choice["COUNTRY"]]
    cities = [words.CAPITALS[land] for land in known]
    return Filled(
        clean=preceded(prompt, choice["distractor"]),
        answers=(f" {answer}",),
        wrong_answers=tuple(f" {city}" for city in cities if city != answer),
    )
