"""Which positions a study looks at."""

from __future__ import annotations

from cutaway.behaviours import Behaviour

_MOST = 12


def places(behaviour: Behaviour) -> tuple[int | str, ...]:
    """The behaviour's position labels; without any but `end`, the last positions by number.

    Numbers count from the end (-1 is the last token), reach as far back as the shortest prompt
    does, and at most twelve positions.
    """
    if len(behaviour.labels) > 1:
        return behaviour.labels
    reach = min(_MOST, int(behaviour.clean.lengths.min()))
    return tuple(range(-reach, 0))


def place_name(place: object) -> str:
    """A position as a person reads it: `end`, `end-3`, `IO`."""
    text = str(place)
    if text.lstrip("-").isdigit():
        return "end" if text == "-1" else f"end{int(text) + 1}"
    return text
