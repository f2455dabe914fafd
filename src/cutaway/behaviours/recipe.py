"""How a prompt is written from choices, so that one of them can be changed and the rest kept.

1. A built-in behaviour's examples are filled templates. Each thing that was chosen (the template,
   a name, the order, the sentence before it) is a *slot*, and the values that may stand in it are
   its pool.
2. A `Recipe` has the pools, and writes the clean prompt of any choice together with the answers
   that are right and wrong *then*: with another name in it, another answer is right.
3. `choices` finds what an example was filled with. A built-in behaviour says in its provenance how
   it was drawn, so it is drawn again and each example is found by its texts.

Prompts of one's own have no slots, unless a `Recipe` is written for them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cutaway.behaviours.builtin import GENERATORS, RECIPES
from cutaway.behaviours.builtin.slots import Choice, Filled, Recipe
from cutaway.behaviours.tokenizing import is_one_token
from cutaway.errors import BehaviourError

if TYPE_CHECKING:
    from cutaway.behaviours.behaviour import Behaviour

__all__ = ["Choice", "Chosen", "Filled", "Recipe", "choices"]


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What each example of a behaviour was filled with."""

    recipe: Recipe
    """How prompts of this behaviour are written."""
    choices: tuple[Choice | None, ...]
    """One per example; None for one that was changed since it was drawn."""


def choices(behaviour: Behaviour, tokenizer: Any) -> Chosen:
    """The slots of a built-in behaviour's examples.

    Raises `BehaviourError` for prompts that no generator of ours has written.
    """
    origin: Mapping[str, Any] = behaviour.provenance
    name = str(origin.get("generator", ""))
    if origin.get("source") != "built-in" or name not in GENERATORS:
        raise BehaviourError(
            f"The prompts of {behaviour.name!r} were written by hand, so it is not known which of "
            "their words may be changed, and what would be right then; give a Recipe that says so."
        )
    vocabulary: Callable[[str], bool] = lambda text: is_one_token(tokenizer, text)  # noqa: E731
    drawn = GENERATORS[name](
        random.Random(origin["seed"]),
        int(origin["n"]) + int(origin["misaligned_left_out"]),
        vocabulary=vocabulary,
        split=origin["split"],
        **dict(origin["variation"]),
    )
    known = {(one.clean.text, one.corrupt.text): one.slots for one in drawn}
    texts = zip(behaviour.clean_texts, behaviour.corrupt_texts, strict=True)
    return Chosen(
        recipe=RECIPES[name](vocabulary), choices=tuple(known.get(pair) for pair in texts)
    )
