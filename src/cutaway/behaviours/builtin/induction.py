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
from cutaway.behaviours.example import Example, Piece, Prompt

NAME = "induction"
DESCRIPTION = "Induction: in a random sequence read twice, the word that followed last time."

LENGTHS = ("6", "8", "10", "12", "16", "20", "24")

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
    names = (*words.FEMALE_NAMES, *words.MALE_NAMES)
    listed = {
        "mixed": (*words.COMMON_WORDS, *names, *words.TITLES, *words.CAPITALS),
        "common": words.COMMON_WORDS,
        "names": names,
    }[wanted["words"]]
    pool = single_tokens(NAME, "different words", listed, vocabulary, at_least=50)

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
        wrong = [word for at, word in enumerate(sequence) if at != last + 1]
        if wanted["corruption"] == "successor":
            wrong.append(spare[0])
        return Example(
            clean=_twice(sequence, sequence, last),
            corrupt=_twice(changed, sequence, last),
            answers=(f" {sequence[last + 1]}",),
            wrong_answers=tuple(f" {word}" for word in wrong),
            variation={**wanted, "length": str(length)},
            held_out=held_out(*sequence),
        )

    return collect(NAME, n, split, draw)


def _twice(first: list[str], second: list[str], last: int) -> Prompt:
    """The first reading whole, then the second up to and including position `last`."""
    names = {last: "A1", last + 1: "B1"}
    pieces: list[Piece] = [(f" {word}", names.get(at)) for at, word in enumerate(first)]
    pieces += [(f" {word}", None) for word in second[:last]]
    return Prompt(pieces=(*pieces, (f" {second[last]}", "end")))
