"""Tiny masked models of every family, opened once."""

from collections.abc import Mapping, Sequence
from functools import cache

from tests.model.variants import VARIANTS

from cutaway.behaviours import METRICS, Behaviour
from cutaway.circuits import Graph, Masked, Replacement
from cutaway.circuits.batch import Batch
from cutaway.model import open_model
from cutaway.model.tiny import tiny


@cache
def masked(name: str) -> Masked:
    family, overrides = VARIANTS[name]
    return Masked(open_model(tiny(family, **overrides)))


def split(
    name: str, *, positions: Sequence[str] = (), neurons: Mapping[int, Sequence[int]] | None = None
) -> Masked:
    """The same model, its graph split."""
    model = masked(name).model
    return Masked(model, Graph.of(model, positions=positions, neurons=neurons or {}))


def batch(on: Masked, pairs: Behaviour, ablation: str = "counterfactual") -> Batch:
    """All the pairs at once."""
    replacement = Replacement(on.model, pairs, ablation, split=on.graph.alone)
    return Batch(on, pairs, slice(0, len(pairs)), METRICS["logit_diff"], replacement)


EVEN = Behaviour.from_tokens(
    [[3, 4, 5, 6], [7, 8, 9, 10], [11, 12, 13, 14]],
    [[3, 4, 50, 6], [7, 8, 51, 10], [11, 12, 52, 60]],
    answers=[5, 6, 7], wrong_answers=[8, 9, 10],
)  # fmt: skip
