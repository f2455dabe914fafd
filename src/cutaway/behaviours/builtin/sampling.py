"""How every built-in behaviour samples its examples.

1. The variation keywords are checked against the behaviour's table of allowed values.
2. The word pools are cut to what is one token for the tokenizer at hand.
3. Candidates are drawn until `n` different ones of the wanted split are found. Whether a candidate
   is held out depends on its own words alone, never on the seed or the tokenizer, so that the
   training text (which asks for the "train" split) and an evaluation always agree about it.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Literal

from cutaway.behaviours.example import Example, Piece, Prompt
from cutaway.errors import BehaviourError

Split = Literal["all", "train", "held-out"]
Vocabulary = Callable[[str], bool]
"""Says whether a text is exactly one token of the user's tokenizer."""

Variations = Mapping[str, tuple[str, ...]]
"""For each variation keyword its allowed values, the default one first."""

ANY = "any"
PATIENCE = 3000
"""Candidates in a row that are rejected or known before a behaviour counts as exhausted."""


def held_out(*parts: object) -> bool:
    """Whether this combination is kept from training: one in five is, by a fixed hash."""
    return zlib.crc32("|".join(map(str, parts)).encode()) % 5 == 0


def choose(behaviour: str, allowed: Variations, given: Mapping[str, str]) -> dict[str, str]:
    """The given variations over the defaults, or an error that names what is allowed."""
    for keyword, value in given.items():
        if keyword not in allowed:
            raise BehaviourError(
                f"The behaviour {behaviour!r} has no variation {keyword!r}; "
                f"it has {', '.join(allowed)}."
            )
        if value not in allowed[keyword]:
            raise BehaviourError(
                f"The behaviour {behaviour!r} has no {keyword} {value!r}; choose one of "
                f"{', '.join(repr(value) for value in allowed[keyword])}."
            )
    return {keyword: values[0] for keyword, values in allowed.items()} | dict(given)


def single_tokens(
    behaviour: str, kind: str, words: Sequence[str], vocabulary: Vocabulary, *, at_least: int
) -> list[str]:
    """The words that are one token after a space, or an error when too few are."""
    kept = [word for word in words if vocabulary(f" {word}")]
    if len(kept) < at_least:
        raise BehaviourError(
            f"The behaviour {behaviour!r} needs at least {at_least} {kind} that are one token "
            f"each, and this tokenizer has {len(kept)}; use a tokenizer with whole words, or "
            f"bring your own prompts as a CSV file."
        )
    return kept


def collect(
    behaviour: str, n: int, split: Split, draw: Callable[[], Example | None]
) -> list[Example]:
    """`n` different examples of the split; `draw` gives None for a candidate it rejects."""
    if split not in ("all", "train", "held-out"):
        raise BehaviourError(f"split must be 'all', 'train' or 'held-out'; found {split!r}.")
    if n < 1:
        raise BehaviourError(f"n must be at least 1; found {n}.")
    found: dict[tuple[str, str], Example] = {}
    misses = 0
    while misses < PATIENCE:
        example = draw()
        wanted = example is not None and (split == "all" or example.held_out == (split != "train"))
        key = (example.clean.text, example.corrupt.text) if example and wanted else None
        if example is None or key is None or key in found:
            misses += 1
            continue
        found[key], misses = example, 0
        if len(found) == n:
            return list(found.values())
    raise BehaviourError(
        f"The behaviour {behaviour!r} has only about {len(found)} different examples with these "
        f"variations, this split ({split}) and this tokenizer, and {n} were asked for; "
        f"ask for fewer or allow more variation."
    )


@lru_cache(maxsize=512)
def _parts(template: str) -> tuple[tuple[str, str | None], ...]:
    """A template's parts in order: (literal text, None) or (space before, slot name)."""
    parts: list[tuple[str, str | None]] = []
    for literal, space, slot in re.findall(r"([^{ ]+|[ ](?!\{))|([ ]?)\{(\w+)\}", template):
        parts.append((space, slot) if slot else (literal, None))
    return tuple(parts)


def fill(
    template: str,
    words: Mapping[str, str],
    labels: Mapping[str, str] | None = None,
    *,
    after: Mapping[str, str] | None = None,
) -> Prompt:
    """A template with its slots filled: every filled slot is a piece, with its label if it has one.

    `after` labels the word that follows a slot. The last piece is labelled "end", whatever else
    it would have been.
    """
    pieces: list[Piece] = []
    label_next: str | None = None
    glue = ""
    for text, slot in _parts(template):
        if slot is not None:
            pieces.append((glue + text + words[slot], (labels or {}).get(slot)))
            glue, label_next = "", (after or {}).get(slot)
        elif text == " ":
            glue += text
        else:
            pieces.append((glue + text, label_next))
            glue, label_next = "", None
    if glue:
        pieces.append((glue, None))
    pieces[-1] = (pieces[-1][0], "end")
    return Prompt(pieces=tuple(pieces))


def preceded(prompt: Prompt, sentence: str) -> Prompt:
    """The prompt after another sentence, or as it is when the sentence is empty."""
    if not sentence:
        return prompt
    (first, label), *rest = prompt.pieces
    return Prompt(pieces=((sentence, None), (f" {first}", label), *rest))


def pick(rng: random.Random, wanted: str, values: Sequence[str]) -> str:
    """The wanted value, or one at random when any will do."""
    return rng.choice(values) if wanted == ANY else wanted
