"""Induction on repeated random tokens (Olsson et al. 2022).

A sequence of different random words is read twice; inside the second reading the next word is the
one that followed the last time. Corruption: "no-repeat" puts unrelated words in place of the first
reading; "successor" replaces only the word that should be copied. Wrong answers: all other words of
the sequence (with "successor" the replacement too).
Labels: A1 (the earlier occurrence of the last word), B1 (the word after it), end.

Random sequences are new by nature; one in five, by a hash of its words, is kept from training.
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
    held_out,
    pick,
    single_tokens,
)
from cutaway.behaviours.builtin.slots import Choice, Filled, Recipe
from cutaway.behaviours.example import Example, Piece, Prompt

NAME = "induction"
DESCRIPTION = "Induction: in a random sequence read twice, the word that followed last time."

LENGTHS = ("6", "8", "10", "12", "16", "20", "24")

_LONGEST = int(LENGTHS[-1])
_PLACES = tuple(f"word {at}" for at in range(1, _LONGEST + 1))

VARIATIONS = {
    "length": (ANY, *LENGTHS),
    "corruption": ("no-repeat", "successor"),
    "words": ("mixed", "common", "names"),
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
    pool = _pool(vocabulary, wanted["words"])

    def draw() -> Example:
        length = int(pick(rng, wanted["length"], LENGTHS))
        sequence = rng.sample(pool, length)
        last = rng.randrange(1, length - 1)
        spare = [
            word for word in rng.sample(pool, min(len(pool), 2 * length)) if word not in sequence
        ]
        changed = list(sequence)
        if wanted["corruption"] == "successor":
            changed[last + 1] = spare[0]
        else:
            changed = spare[:length]
        rest = [word for word in pool if word not in sequence][: _LONGEST - length]
        choice = {
            "length": str(length), "last": str(last),
            "besides": spare[0] if wanted["corruption"] == "successor" else "",
            **dict(zip(_PLACES, [*sequence, *rest], strict=True)),
        }  # fmt: skip
        filled = _filled(choice)
        return Example(
            clean=filled.clean,
            corrupt=_twice(changed, sequence, last),
            answers=filled.answers,
            wrong_answers=filled.wrong_answers,
            variation={**wanted, "length": str(length)},
            held_out=held_out(*sequence),
            slots=choice,
        )

    return collect(NAME, n, split, draw)


def recipe(vocabulary: Vocabulary) -> Recipe:
    """Every choice: the length, where the second reading stops, and each word."""
    pool = tuple(_pool(vocabulary, "mixed"))
    return Recipe(
        slots={
            "length": LENGTHS,
            "last": tuple(map(str, range(1, _LONGEST - 1))),
            **dict.fromkeys(_PLACES, pool),
        },
        write=_written,
    )


def _pool(vocabulary: Vocabulary, kind: str) -> list[str]:
    """The words of one kind that are one token."""
    names = (*words.FEMALE_NAMES, *words.MALE_NAMES)
    listed = {
        "mixed": (*words.COMMON_WORDS, *names, *words.TITLES, *words.CAPITALS),
        "common": words.COMMON_WORDS,
        "names": names,
    }[kind]
    return single_tokens(NAME, "different words", listed, vocabulary, at_least=50)


def _written(choice: Choice) -> Filled | None:
    """The prompt, where its words differ and one follows the last."""
    sequence = _sequence(choice)
    different = len(set(sequence)) == len(sequence) and choice["besides"] not in sequence
    return _filled(choice) if different and int(choice["last"]) < len(sequence) - 1 else None


def _filled(choice: Choice) -> Filled:
    """The clean prompt; the word after the last one is right, all others wrong."""
    sequence, last = _sequence(choice), int(choice["last"])
    wrong = [word for at, word in enumerate(sequence) if at != last + 1]
    wrong += [choice["besides"]] if choice["besides"] else []
    return Filled(
        clean=_twice(sequence, sequence, last),
        answers=(f" {sequence[last + 1]}",),
        wrong_answers=tuple(f" {word}" for word in wrong),
    )


def _sequence(choice: Choice) -> list[str]:
    return [choice[place] for place in _PLACES[: int(choice["length"])]]


def _twice(first: list[str], second: list[str], last: int) -> Prompt:
    """The first reading whole, then the second up to and including position `last`."""
    names = {last: "A1", last + 1: "B1"}
    pieces: list[Piece] = [(f" {word}", names.get(at)) for at, word in enumerate(first)]
    pieces += [(f" {word}", None) for word in second[:last]]
    return Prompt(pieces=(*pieces, (f" {second[last]}", "end")))
