"""What a generator's prompts are made of: slots, what may fill them, and how they are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cutaway.behaviours.example import Prompt
from cutaway.errors import BehaviourError

Choice = Mapping[str, str]
"""What stands in each slot; keys that are no slot are carried along unchanged."""


@dataclass(frozen=True, kw_only=True)
class Filled:
    """A clean prompt as some choice makes it."""

    clean: Prompt
    """The prompt."""
    answers: tuple[str, ...]
    """The next tokens that are right after it, each one token."""
    wrong_answers: tuple[str, ...]
    """Those that are wrong, each one token."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the prompts of one behaviour are written from choices."""

    slots: Mapping[str, tuple[str, ...]]
    """What may stand in each slot, at least one value each."""
    write: Callable[[Choice], Filled | None]
    """The prompt of a choice; None where its values do not go together (twice the same name)."""

    def __post_init__(self) -> None:
        empty = [name for name, values in self.slots.items() if not values]
        if empty or not self.slots:
            found = f"the slot {empty[0]!r} has none" if empty else "there is no slot"
            raise BehaviourError(
                f"A recipe needs slots with at least one value each; found that {found}."
            )
