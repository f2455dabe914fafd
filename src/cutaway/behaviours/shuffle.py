"""Prompts that have the answers of others, as a control in which there is nothing to be found."""

from __future__ import annotations

import random
from dataclasses import replace

from cutaway.behaviours.behaviour import Behaviour


def displaced(many: int, draw: random.Random) -> list[int]:
    """The numbers up to `many` in another order, none at its own place (one alone stays)."""
    order = list(range(many))
    for last in range(many - 1, 0, -1):  # Sattolo 1986: a single cycle, so nothing stays
        other = draw.randrange(last)
        order[last], order[other] = order[other], order[last]
    return order


def other_answers(behaviour: Behaviour, draw: random.Random) -> Behaviour:
    """The same prompts, each with the answers of another pair.

    Two pairs may have the same answers: where there are few different ones, some prompts are given
    what they had.
    """
    order = displaced(len(behaviour), draw)
    return replace(
        behaviour,
        answers=tuple(behaviour.answers[row] for row in order),
        wrong_answers=tuple(behaviour.wrong_answers[row] for row in order),
    )
