"""What methods report where there is nothing to be found, and where there is.

A circuit is reported as a careful user would report one, and never with knowledge of the truth:

1. half of the pairs is held out. A method scores the edges on the other half;
2. still there, the smallest circuit of its best edges that keeps the behaviour is looked for
   (`cutaway.circuits.smallest`), and reported;
3. it is evaluated once, on the held-out half, and passes or does not (`Evaluation.passes`).

A total effect of about zero is refused by 2 or 3, and then nothing passes. On `NULLS` (drawn with
one seed each, the kinds and programs in turn) what passes is a false positive; on the models whose
circuit is known it is what should pass, so that a control that lets nothing pass is seen as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from cutaway.circuits import (
    RANKED_BY,
    Masked,
    NoEffectError,
    discover,
    evaluate,
    greedy,
    smallest,
)
from cutaway.ground_truth.cases import (
    GroundTruthError,
    choose_methods,
    choose_models,
    kind_of,
    opened,
)
from cutaway.organisms import NULLS, TRAINED, Organism, null
from cutaway.patch.journal import Journal


@dataclass(frozen=True, kw_only=True)
class _Case:
    kind: str
    name: str
    make: Callable[[], Organism]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What became of one method's circuit in one case."""

    kind: str
    """The kind of null case; `constructed` or `trained` for a model whose circuit is known."""
    case: str
    """The case's own name."""
    method: str
    """The method's name."""
    edges: int
    """How many edges the reported circuit has; 0 when none was reported."""
    checks: Mapping[str, bool]
    """Whether it held, for each control of its evaluation; empty without a circuit."""

    @property
    def passed(self) -> bool:
        """Whether a circuit was reported and passed."""
        return bool(self.checks) and all(self.checks.values())


def nulls(
    many: int, methods: Sequence[str] | None = None, *, examples: int = 50,
    journal: Journal | None = None,
) -> Iterator[Report]:  # fmt: skip
    """What each method reports on so many null cases, whose seeds count from 0.

    Raises:
        GroundTruthError: a name is not known, or a number is too small.
    """
    if many < 1:
        raise GroundTruthError(f"The number of null cases is 1 or more; found {many}.")
    kinds = list(NULLS)

    def made(seed: int) -> Callable[[], Organism]:
        kind, name = kinds[seed % len(kinds)], TRAINED[seed // len(kinds) % len(TRAINED)]
        return lambda: null(kind, name, n=examples, seed=seed)

    cases = [
        _Case(kind=kinds[seed % len(kinds)], name=f"null-{seed}", make=made(seed))
        for seed in range(many)
    ]
    return _reports(cases, choose_methods(methods), examples, journal)


def known(
    models: Sequence[str] | None = None, methods: Sequence[str] | None = None, *,
    examples: int = 50, seed: int = 0, journal: Journal | None = None,
) -> Iterator[Report]:  # fmt: skip
    """What each method reports on the models whose circuit is known.

    Raises:
        GroundTruthError: a name is not known, or there are too few examples.
    """

    def made(model: str) -> Callable[[], Organism]:
        return lambda: opened(model, examples=examples, seed=seed)

    cases = [
        _Case(kind=kind_of(model), name=model, make=made(model)) for model in choose_models(models)
    ]
    return _reports(cases, choose_methods(methods), examples, journal)


def _reports(
    cases: Sequence[_Case], methods: Sequence[str], examples: int, journal: Journal | None
) -> Iterator[Report]:
    if examples < 4:
        raise GroundTruthError(f"Halves to find and to check on take 4 pairs; found {examples}.")
    return (report for case in cases for report in _on_one(case, methods, journal))


def _on_one(case: _Case, methods: Sequence[str], journal: Journal | None) -> Iterator[Report]:
    organism: Organism | None = None
    on: Masked | None = None
    for method in methods:
        key = f"reported/{case.name}/{method}"
        kept = None if journal is None else journal.finished(key)
        if kept is None:
            organism = organism or case.make()
            on = on or Masked(organism.model)
            edges, checks = _reported(on, organism, method)
            kept = {"edges": np.array(edges)} | {name: np.array(x) for name, x in checks.items()}
            if journal is not None:
                journal.keep(key, kept)
        edges = int(kept.pop("edges"))
        checks = {name: bool(x) for name, x in kept.items()}
        yield Report(kind=case.kind, case=case.name, method=method, edges=edges, checks=checks)


def _reported(on: Masked, organism: Organism, method: str) -> tuple[int, dict[str, bool]]:
    """The size of the circuit that is reported, and its evaluation's controls; 0 and none."""
    pairs = organism.behaviour.hold_out(0.5)
    found, by = pairs.split("train"), RANKED_BY[method]
    scores = discover(on, found, method)
    grow = partial(greedy, by=by)
    try:
        circuit = smallest(on, found, scores, grow=grow, metric=found.metric)
        evaluation = evaluate(on, pairs.split("held-out"), circuit, quick=True)
    except NoEffectError:
        return 0, {}
    return len(circuit), {name: check.passed for name, check in evaluation.checks.items()}
