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
    pools = {
        kind: single_tokens(NAME, f"{kind} names", listed, vocabulary, at_least=2)
        for kind, listed in (("female", words.FEMALE_NAMES), ("male", words.MALE_NAMES))
    }
    single_tokens(NAME, "pronouns", ("she", "he"), vocabulary, at_least=2)
    pronouns: dict[str, str] = {"female": " she", "male": " he"}
    pools |= {
        kind: single_tokens(NAME, kind, listed, vocabulary, at_least=2)
        for kind, listed in (
            ("PLACE", words.PLACES), ("OBJECT", words.OBJECTS), ("ROLE", ROLES),
        )
    }  # fmt: skip

    def draw() -> Example:
        gender = pick(rng, wanted["gender"], ("female", "male"))
        other = "male" if gender == "female" else "female"
        name, swapped = rng.choice(pools[gender]), rng.choice(pools[other])
        template = pick(rng, wanted["template"], TEMPLATES + HELD_OUT_TEMPLATES)
        setting = {kind: rng.choice(pools[kind]) for kind in ("PLACE", "OBJECT", "ROLE")}
        sentence = "" if wanted["distractor"] == "none" else rng.choice(words.DISTRACTORS)
        clean, corrupt = (
            preceded(fill(template, setting | {"NAME": who}, {"NAME": "NAME"}), sentence)
            for who in (name, swapped)
        )
        return Example(
            clean=clean,
            corrupt=corrupt,
            answers=(pronouns[gender],),
            wrong_answers=(pronouns[other],),
            variation={**wanted, "template": template, "gender": gender, "name": name},
            held_out=template in HELD_OUT_TEMPLATES or held_out(name),
        )

    return collect(NAME, n, split, draw)
