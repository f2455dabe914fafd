"""Gendered pronouns (after Mathwin et al. 2023).

"So Mary is such a good friend, isn't" is followed by " she", and with John by " he". The corrupt
prompt has a name of the other gender in the same place. Labels: NAME, end.

Held out: every example whose clean prompt has a held-out name or a held-out template.
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
from cutaway.behaviours.builtin.slots import Choice, Filled, Recipe
from cutaway.behaviours.example import Example

NAME = "gendered-pronouns"
DESCRIPTION = "Gendered pronouns: she or he, after a given name."

TEMPLATES = (
    "So {NAME} is such a good {ROLE}, isn't",
    "When {NAME} came home from the {PLACE},",
    "After {NAME} found the {OBJECT},",
    "Everyone likes {NAME} because",
    "People say that {NAME} is a {ROLE} and that",
    "I asked {NAME} about the {OBJECT}, and",
    "Because {NAME} was late for the {PLACE},",
    "We saw {NAME} at the {PLACE}, where",
    "My friend {NAME} is a {ROLE}, but",
    "As soon as {NAME} got to the {PLACE},",
    "The story says that {NAME} was happy when",
    "Nobody knew why {NAME} left, but",
)

HELD_OUT_TEMPLATES = (
    "When {NAME} got the {OBJECT},",
    "Everyone says that {NAME} is a good {ROLE} because",
    "We asked {NAME} about the {PLACE}, and",
)

ROLES = ("friend", "singer", "teacher", "doctor", "painter", "writer", "driver", "student")

VARIATIONS = {
    "template": (ANY, *TEMPLATES, *HELD_OUT_TEMPLATES),
    "gender": (ANY, "female", "male"),
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
    pools = _pools(vocabulary)

    def draw() -> Example:
        gender = pick(rng, wanted["gender"], ("female", "male"))
        other = "male" if gender == "female" else "female"
        name, swapped = rng.choice(pools[gender]), rng.choice(pools[other])
        template = pick(rng, wanted["template"], TEMPLATES + HELD_OUT_TEMPLATES)
        setting = {kind: rng.choice(pools[kind]) for kind in ("PLACE", "OBJECT", "ROLE")}
        sentence = "" if wanted["distractor"] == "none" else rng.choice(words.DISTRACTORS)
        choice = {**setting, "template": template, "NAME": name, "distractor": sentence}
        filled = _filled(choice)
        return Example(
            clean=filled.clean,
            corrupt=_filled({**choice, "NAME": swapped}).clean,
            answers=filled.answers,
            wrong_answers=filled.wrong_answers,
            variation={**wanted, "template": template, "gender": gender, "name": name},
            held_out=template in HELD_OUT_TEMPLATES or held_out(name),
            slots=choice,
        )

    return collect(NAME, n, split, draw)


def recipe(vocabulary: Vocabulary) -> Recipe:
    """Every choice: template, name, place, object, role and the sentence before."""
    pools = _pools(vocabulary)
    return Recipe(
        slots={
            "template": TEMPLATES + HELD_OUT_TEMPLATES,
            "distractor": ("", *words.DISTRACTORS),
            "NAME": (*pools["female"], *pools["male"]),
            **{kind: tuple(pools[kind]) for kind in ("PLACE", "OBJECT", "ROLE")},
        },
        write=_filled,
    )


def _pools(vocabulary: Vocabulary) -> dict[str, list[str]]:
    """The words of each kind that are one token; the pronouns must be, too."""
    single_tokens(NAME, "pronouns", ("she", "he"), vocabulary, at_least=2)
    return {
        kind: single_tokens(NAME, what, listed, vocabulary, at_least=2)
        for kind, what, listed in (
            ("female", "female names", words.FEMALE_NAMES),
            ("male", "male names", words.MALE_NAMES),
            ("PLACE", "PLACE", words.PLACES),
            ("OBJECT", "OBJECT", words.OBJECTS),
            ("ROLE", "ROLE", ROLES),
        )
    }


def _filled(choice: Choice) -> Filled:
    """The clean prompt; the name's pronoun is right and the other one wrong."""
    prompt = fill(choice["template"], choice, {"NAME": "NAME"})
    pronouns = (" she", " he") if choice["NAME"] in words.FEMALE_NAMES else (" he", " she")
    return Filled(
        clean=preceded(prompt, choice["distractor"]),
        answers=pronouns[:1],
        wrong_answers=pronouns[1:],
    )
