"""The models and methods of a comparison, by name.

A constructed model has the name of its program (`sort`), and the trained one beside it that name
with `-trained`. `constructed` and `trained` stand for all of a kind.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from cutaway.circuits import METHODS
from cutaway.errors import CutawayError
from cutaway.organisms import ORGANISMS, TRAINED, Organism, constructed, trained


class GroundTruthError(CutawayError):
    """A comparison with the truth that cannot be made as asked."""


KINDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"constructed": tuple(ORGANISMS), "trained": tuple(f"{name}-trained" for name in TRAINED)}
)
"""The models of each kind."""
MODELS: tuple[str, ...] = tuple(name for names in KINDS.values() for name in names)
"""All of them."""


def kind_of(model: str) -> str:
    """Whether a model is constructed or trained."""
    return next(kind for kind, names in KINDS.items() if model in names)


def opened(model: str, *, examples: int, seed: int) -> Organism:
    """A model by its name, with so many pairs."""
    if kind_of(model) == "constructed":
        return constructed(model, n=examples, seed=seed)
    return trained(model.removesuffix("-trained"), n=examples, seed=seed)


def choose_models(names: Sequence[str] | None) -> tuple[str, ...]:
    """The models that are named, kinds spelt out; all when none is.

    Raises:
        GroundTruthError: a name is not known.
    """
    chosen = _known(names, [*MODELS, *KINDS], "model")
    return tuple(dict.fromkeys(model for name in chosen for model in KINDS.get(name, (name,))))


def choose_methods(names: Sequence[str] | None) -> tuple[str, ...]:
    """The methods that are named; all when none is.

    Raises:
        GroundTruthError: a name is not known.
    """
    return _known(names, METHODS, "discovery method")


def _known(names: Sequence[str] | None, known: Iterable[str], what: str) -> tuple[str, ...]:
    every = list(known)
    if names is None:
        return tuple(every)
    if not names:
        raise GroundTruthError(f"Name at least one {what}: {', '.join(every)}.")
    for name in names:
        if name not in every:
            near = difflib.get_close_matches(name, every, n=1, cutoff=0.3)
            meant = f"did you mean {near[0]!r}? " if near else ""
            raise GroundTruthError(
                f"There is no {what} {name!r}; {meant}There are: {', '.join(every)}."
            )
    return tuple(dict.fromkeys(names))
