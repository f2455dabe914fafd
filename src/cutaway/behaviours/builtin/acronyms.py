"""Three-letter acronyms (García-Carrasco et al. 2024, "How does GPT-2 predict acronyms?").

"The Chief Executive Officer (CE" is followed by "O". In the corrupt prompt the third word is one
with another initial. Wrong answers: the other 25 letters (those that are one token).
Labels: C1, C2, C3 (the words), A1 (the first letter), end (the second letter).

The prompt must spell the acronym letter by letter, so pairs of initials that the tokenizer merges
("CE" in GPT-2's) are left out. Held out: one in five word triples, and a template.
"""

from __future__ import annotations

import random
from string import ascii_uppercase

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
from cutaway.errors import BehaviourError

NAME = "acronyms"
DESCRIPTION = "Three-letter acronyms: the last letter is the initial of the third word."

TEMPLATES = (
    "The {C1} {C2} {C3} ({A1}{A2}",
    "The report of the {C1} {C2} {C3} ({A1}{A2}",
    "My sister works for the {C1} {C2} {C3} ({A1}{A2}",
    "They wrote to the {C1} {C2} {C3} ({A1}{A2}",
    "In the city there is a {C1} {C2} {C3} ({A1}{A2}",
)

HELD_OUT_TEMPLATES = ("The story of the {C1} {C2} {C3} ({A1}{A2}",)

VARIATIONS = {
    "template": (ANY, *TEMPLATES, *HELD_OUT_TEMPLATES),
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
    titles = single_tokens(NAME, "capitalised words", words.TITLES, vocabulary, at_least=20)
    letters = [letter for letter in ascii_uppercase if vocabulary(letter)]
    titles = [title for title in titles if title[0] in letters]
    spelled = {
        first + second for first in letters for second in letters
        if not any(vocabulary(text) for text in (
            first + second, f"({first}", f" ({first}", f"({first}{second}", f" ({first}{second}",
        ))
    }  # fmt: skip
    if not any(first[0] + second[0] in spelled for first in titles for second in titles):
        raise BehaviourError(
            f"The behaviour {NAME!r} needs initials that are spelled letter by letter, and this "
            f"tokenizer merges every pair of them; use another behaviour with this tokenizer."
        )

    def draw() -> Example | None:
        first, second, third, other = rng.sample(titles, 4)
        if first[0] + second[0] not in spelled or third[0] == other[0]:
            return None
        template = pick(rng, wanted["template"], TEMPLATES + HELD_OUT_TEMPLATES)
        sentence = "" if wanted["distractor"] == "none" else rng.choice(words.DISTRACTORS)
        slots = {"C1": first, "C2": second, "A1": first[0], "A2": second[0]}
        labels = {slot: slot for slot in ("C1", "C2", "C3", "A1")}
        clean, corrupt = (
            preceded(fill(template, slots | {"C3": word}, labels), sentence)
            for word in (third, other)
        )
        return Example(
            clean=clean,
            corrupt=corrupt,
            answers=(third[0],),
            wrong_answers=tuple(letter for letter in letters if letter != third[0]),
            variation={**wanted, "template": template, "words": f"{first} {second} {third}"},
            held_out=template in HELD_OUT_TEMPLATES or held_out(first, second, third),
        )

    return collect(NAME, n, split, draw)
