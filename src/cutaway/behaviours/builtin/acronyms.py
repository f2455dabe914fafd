"""Three-letter acronyms (García-Carrasco et al. 2024, "How does GPT-2 predict acronyms?").

"The Chief Executive Officer (CE" is followed by "O". In the corrupt prompt the third word is one
with another initial. Wrong answers: the other 25 letters (those that are one token).
Labels: C1, C2, C3 (the words), A1 (the first letter), end (the second letter).

The prompt must spell the acronym letter by letter, so pairs of initials that the tokenizer merges
("CE" in GPT-2's) are left out. Held out: one in five word triples, and a template.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial
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
from cutaway.behaviours.builtin.slots import Choice, Filled, Recipe
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
    known = _Words.of(vocabulary)

    def draw() -> Example | None:
        first, second, third, other = rng.sample(known.titles, 4)
        if first[0] + second[0] not in known.spelled or third[0] == other[0]:
            return None
        template = pick(rng, wanted["template"], TEMPLATES + HELD_OUT_TEMPLATES)
        sentence = "" if wanted["distractor"] == "none" else rng.choice(words.DISTRACTORS)
        choice = {
            "template": template, "distractor": sentence, "C1": first, "C2": second, "C3": third,
        }  # fmt: skip
        filled = _filled(known, choice)
        return Example(
            clean=filled.clean,
            corrupt=_filled(known, {**choice, "C3": other}).clean,
            answers=filled.answers,
            wrong_answers=filled.wrong_answers,
            variation={**wanted, "template": template, "words": f"{first} {second} {third}"},
            held_out=template in HELD_OUT_TEMPLATES or held_out(first, second, third),
            slots=choice,
        )

    return collect(NAME, n, split, draw)


def recipe(vocabulary: Vocabulary) -> Recipe:
    """Every choice: template, the three words, and the sentence before."""
    known = _Words.of(vocabulary)
    return Recipe(
        slots={
            "template": TEMPLATES + HELD_OUT_TEMPLATES,
            "distractor": ("", *words.DISTRACTORS),
            **dict.fromkeys(("C1", "C2", "C3"), tuple(known.titles)),
        },
        write=partial(_written, known),
    )


@dataclass(frozen=True)
class _Words:
    """What acronyms can be made of with one tokenizer."""

    titles: list[str]
    letters: list[str]
    spelled: set[str]

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> _Words:
        """Words and letters of one token each, and the pairs of initials that stay two tokens."""
        titles = single_tokens(NAME, "capitalised words", words.TITLES, vocabulary, at_least=20)
        letters = [letter for letter in ascii_uppercase if vocabulary(letter)]
        titles = [title for title in titles if title[0] in letters]
        spelled = {
            first + second for first in letters for second in letters
            if not any(vocabulary(text) for text in (
                first + second, f"({first}", f" ({first}", f"({first}{second}",
                f" ({first}{second}",
            ))
        }  # fmt: skip
        if not any(first[0] + second[0] in spelled for first in titles for second in titles):
            raise BehaviourError(
                f"The behaviour {NAME!r} needs initials that are spelled letter by letter, and "
                f"this tokenizer merges every pair of them; use another behaviour with this "
                f"tokenizer."
            )
        return cls(titles, letters, spelled)


def _written(known: _Words, choice: Choice) -> Filled | None:
    """The prompt, where the words differ and the tokenizer spells their initials."""
    named = [choice[slot] for slot in ("C1", "C2", "C3")]
    if len(set(named)) < len(named) or named[0][0] + named[1][0] not in known.spelled:
        return None
    return _filled(known, choice)


def _filled(known: _Words, choice: Choice) -> Filled:
    """The clean prompt; the third word's initial is right, all other letters wrong."""
    slots = {**choice, "A1": choice["C1"][0], "A2": choice["C2"][0]}
    prompt = fill(choice["template"], slots, {slot: slot for slot in ("C1", "C2", "C3", "A1")})
    right = choice["C3"][0]
    return Filled(
        clean=preceded(prompt, choice["distractor"]),
        answers=(right,),
        wrong_answers=tuple(letter for letter in known.letters if letter != right),
    )
