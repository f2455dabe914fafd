"""Features: what two prompts may agree on, as values that can be printed, compared and saved.

A feature is one or several terms, all of which must be the same for two prompts to agree:

| term | what has to be the same |
|---|---|
| `anything` | nothing |
| `the whole prompt` | every token |
| `the answer` | the correct answers |
| `token at S2` | the token at the position labelled S2 |
| `place of S2` | where S2 is, counted in tokens from the prompt's beginning |
| `column template` | the value in a column of the behaviour's variations |
| a function | what it gives for the prompt, as a `Case`: anything that can be hashed |

Terms are joined in text by `&`: `token at IO & place of S2`. A feature with a function is saved by
the function's name, and read again where a function is given for that name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from cutaway.behaviours.behaviour import Behaviour
from cutaway.circuits.graph import CircuitError

Value = TypeVar("Value")
ANYTHING, WHOLE, ANSWER = "anything", "the whole prompt", "the answer"
_TERM = re.compile(r"(?P<what>token at|place of|column|function) (?P<which>.+)")
_FORMS = (
    "'anything', 'the whole prompt', 'the answer', 'token at LABEL', 'place of LABEL', "
    "'column NAME', several of them joined by '&', or a function of a prompt"
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A clean prompt, as features see it."""

    tokens: tuple[int, ...]
    """Its token ids, without padding."""
    texts: tuple[str, ...]
    """The same tokens as text."""
    labels: Mapping[str, int]
    """Its named positions, counted in its own tokens."""
    variations: Mapping[str, str]
    """Its value in each column of the behaviour's variations."""
    answers: tuple[int, ...]
    """The token ids that are correct after it."""


@dataclass(frozen=True)
class Function:
    """A Python function of a prompt, with the name it is printed and saved by."""

    name: str
    """Its name."""
    of: Callable[[Case], Hashable]
    """What it gives for a prompt."""


@dataclass(frozen=True)
class Feature:
    """What two prompts may agree on."""

    terms: tuple[str | Function, ...]
    """All that has to be the same; see the module's table."""

    def __str__(self) -> str:
        return " & ".join(
            term if isinstance(term, str) else f"function {term.name}" for term in self.terms
        )

    def __and__(self, other: Feature | Function | str | Callable[[Case], Hashable]) -> Feature:
        """Agreement on both."""
        return Feature((*self.terms, *feature(other).terms))

    def of(self, case: Case) -> tuple[Hashable, ...]:
        """Its value for a prompt. Raises `CircuitError` where the prompt has none."""
        return tuple(_value(term, case) for term in self.terms)


def feature(
    given: Feature | Function | str | Callable[[Case], Hashable],
    functions: Mapping[str, Callable[[Case], Hashable]] | None = None,
) -> Feature:
    """The feature that is meant by a text, a function, or itself.

    `functions` are those that a text may name. Raises `CircuitError` for anything else.
    """
    if isinstance(given, Feature):
        return given
    if isinstance(given, str):
        return Feature(tuple(_term(part.strip(), functions or {}) for part in given.split("&")))
    if isinstance(given, Function):
        return Feature((given,))
    if not callable(given):
        raise CircuitError(f"{given!r} is not a feature; give {_FORMS}.")
    return Feature((Function(getattr(given, "__name__", type(given).__name__), given),))


def case_of(behaviour: Behaviour, row: int) -> Case:
    """One clean prompt of a behaviour, as features see it."""
    tokens = behaviour.clean
    first = int(tokens.first[row])
    return Case(
        tokens=tuple(tokens.row_ids(row)),
        texts=behaviour.token_texts[row],
        labels={name: int(where[row]) - first for name, where in tokens.labels.items()},
        variations={name: values[row] for name, values in behaviour.variations.items()},
        answers=behaviour.answers[row],
    )


def _term(text: str, functions: Mapping[str, Callable[[Case], Hashable]]) -> str | Function:
    if text in (ANYTHING, WHOLE, ANSWER):
        return text
    found = _TERM.fullmatch(text)
    if found is None:
        raise CircuitError(f"{text!r} is not a feature; give {_FORMS}.")
    if found["what"] != "function":
        return text
    name = found["which"]
    if name not in functions:
        raise CircuitError(
            f"The feature {text!r} is a Python function, which is saved by name only; give it as "
            f"functions={{{name!r}: …}}."
        )
    return Function(name, functions[name])


def _value(term: str | Function, case: Case) -> Hashable:
    if isinstance(term, Function):
        return _called(term, case)
    if term == ANYTHING:
        return None
    if term == WHOLE:
        return case.tokens
    if term == ANSWER:
        return case.answers
    found = _TERM.fullmatch(term)
    assert found is not None
    if found["what"] == "column":
        return _known(case.variations, found["which"], "variation")
    place = _known(case.labels, found["which"], "label")
    return place if found["what"] == "place of" else case.tokens[place]


def _called(function: Function, case: Case) -> Hashable:
    try:
        value = function.of(case)
        hash(value)
    except Exception as error:
        prompt = "".join(case.texts)
        raise CircuitError(
            f"The feature {function.name!r} has no value that can be compared for the prompt "
            f"{prompt!r} ({type(error).__name__}: {error}); let it give something hashable, such "
            "as a number or a tuple."
        ) from error
    return value


def _known(known: Mapping[str, Value], name: str, what: str) -> Value:
    if name not in known:
        listed = ", ".join(known) or "none"
        raise CircuitError(f"These prompts have no {what} {name!r}; they have {listed}.")
    return known[name]
