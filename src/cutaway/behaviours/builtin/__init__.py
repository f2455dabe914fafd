"""The built-in behaviours: one file each, one signature, and tables of them all by name."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol

from cutaway.behaviours.builtin import (
    acronyms,
    capitals,
    gendered_pronouns,
    greater_than,
    induction,
    ioi,
    phone_number,
)
from cutaway.behaviours.builtin.sampling import Split, Variations, Vocabulary
from cutaway.behaviours.builtin.slots import Recipe
from cutaway.behaviours.example import Example

__all__ = [
    "DESCRIPTIONS",
    "GENERATORS",
    "RECIPES",
    "VARIATIONS",
    "Generator",
    "Split",
    "Vocabulary",
]


class Generator(Protocol):
    """What every built-in behaviour offers."""

    def __call__(
        self,
        rng: random.Random,
        n: int,
        *,
        vocabulary: Vocabulary,
        split: Split = "all",
        **variation: str,
    ) -> list[Example]:
        """`n` different examples, the same for the same state of `rng`.

        `vocabulary` says whether a text is exactly one token. Raises BehaviourError for a variation
        that the behaviour does not have and for a tokenizer that leaves too few words.
        """
        ...


_FILES = (ioi, gendered_pronouns, greater_than, acronyms, induction, capitals, phone_number)

GENERATORS: dict[str, Generator] = {file.NAME: file.generate for file in _FILES}
"""Each behaviour's generator by name."""

RECIPES: dict[str, Callable[[Vocabulary], Recipe]] = {file.NAME: file.recipe for file in _FILES}
"""By name, how each behaviour's prompts are written from choices."""

DESCRIPTIONS: dict[str, str] = {file.NAME: file.DESCRIPTION for file in _FILES}
"""One sentence about each behaviour."""

VARIATIONS: dict[str, Variations] = {file.NAME: file.VARIATIONS for file in _FILES}
"""What each behaviour's generator can vary: keyword → allowed values, the default one first."""
