"""Refusals that several functions of circuits share."""

from __future__ import annotations

from cutaway.behaviours.behaviour import Behaviour
from cutaway.circuits.graph import CircuitError
from cutaway.measure.batches import whole
from cutaway.model.model import Model


def whole_number(name: str, given: object, least: int) -> int:
    """A count or a seed, as Python's own number."""
    found = whole(given)
    if found is None or found < least:
        raise CircuitError(f"{name} must be a whole number of {least} or more; found {given!r}.")
    return found


def check_prompts(model: Model, behaviour: Behaviour) -> None:
    """Refuse prompts that the model cannot read, such as another tokenizer's, before any pass.

    Raises `InputError`.
    """
    for side in (behaviour.clean, behaviour.corrupt):
        model.checked(side)
