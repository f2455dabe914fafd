"""What methods report where there is nothing to be found, and where there is.

A circuit is reported as a careful user would report one, and never with knowledge of the truth:

1. half of the pairs is held out. A method scores the edges on the other half;
2. still there, the smallest circuit of its best edges that keeps the behaviour is looked for
   (`cutaway.circuits.smallest`), and reported;
3. it is evaluated once, on the held-out half, and passes or does not (`Evaluation.passes`).

Some controls ask whether there is a behaviour at all, and are the same for every circuit. They are
made first: where one fails, or the total effect is about zero, no circuit could pass, and none is
looked for. On `NULLS` (drawn with one seed each, the kinds and programs in turn) what passes is a
false positive; on the models whose circuit is known it is what should pass, so that controls that
let nothing pass are seen as well.

Null cases that are refused so say nothing about a method. In the first few of them that have an
effect (`searched`) a circuit is looked for all the same, and goes through every control.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from cutaway.circuits import (
    RANKED_BY,
    Circuit,
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
    true: int
    """How many edges are true; 0 in a null case."""
    edges: int
    """How many edges the circuit has; 0 when none was looked for, or none was found."""
    checks: Mapping[str, bool]
    """Whether it held, for each control that was made; empty for a total effect of about zero."""

    @property
    def passed(self) -> bool:
        """Whether a circuit was reported and passed."""
        return self.edges > 0 and all(self.checks.values())


def nulls(
    many: int, methods: Sequence[str] | None = None, *, examples: int = 50, searched: int = 12,
    seed: int = 0, journal: Journal | None = None,
) -> Iterator[Report]:  # fmt: skip
    """What each method reports on so many null cases.

    A circuit is looked for, whatever the first controls say, in the first `searched` of them that
    have an effect. The cases of another `seed` are others.

    Raises:
        GroundTruthError: a name is not known, or a number is too small.
    """
    if many < 1:
        raise GroundTruthError(f"The number of null cases is 1 or more; found {many}.")
    if searched < 0:
        raise GroundTruthError(f"The null cases to search are 0 or more; found {searched}.")
    kinds = list(NULLS)

    def case(own: int) -> _Case:
        kind, name = kinds[own % len(kinds)], TRAINED[own // len(kinds) % len(TRAINED)]
        return _Case(
            kind=kind, name=f"null-{own}", make=lambda: null(kind, name, n=examples, seed=own)
        )

    cases = [case(seed * many + one) for one in range(many)]
    return _reports(cases, choose_methods(methods), examples, journal, searched=searched)


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
    cases: Sequence[_Case], methods: Sequence[str], examples: int, journal: Journal | None,
    *, searched: int = 0,
) -> Iterator[Report]:  # fmt: skip
    if examples < 4:
        raise GroundTruthError(f"Halves to find and to check on take 4 pairs; found {examples}.")
    return _one_by_one(cases, methods, journal, searched)


def _one_by_one(
    cases: Sequence[_Case], methods: Sequence[str], journal: Journal | None, left: int
) -> Iterator[Report]:
    for case in cases:
        has_effect = False
        for report in _on_one(case, methods, journal, always=left > 0):
            has_effect = has_effect or bool(report.checks)
            yield report
        left -= has_effect


def _on_one(
    case: _Case, methods: Sequence[str], journal: Journal | None, *, always: bool
) -> Iterator[Report]:
    ready: Ready | None = None
    for method in methods:
        key = f"{'searched' if always else 'reported'}/{case.name}/{method}"
        kept = None if journal is None else journal.finished(key)
        if kept is None:
            ready = ready or Ready(case.make())
            edges, checks = ready.reported(method, always=always)
            sizes = {"true": np.array(ready.true), "edges": np.array(edges)}
            kept = sizes | {name: np.array(passed) for name, passed in checks.items()}
            if journal is not None:
                journal.keep(key, kept)
        true, edges = (int(kept.pop(name)) for name in ("true", "edges"))
        checks = {name: bool(passed) for name, passed in kept.items()}
        yield Report(
            kind=case.kind, case=case.name, method=method, true=true, edges=edges, checks=checks
        )


class Ready:
    """A case with its halves, and whether there is a behaviour in it."""

    def __init__(self, organism: Organism) -> None:
        self.on, self.true = Masked(organism.model), len(organism.edges)
        pairs = organism.behaviour.hold_out(0.5)
        self.found, self.held_out = pairs.split("train"), pairs.split("held-out")
        nothing = Circuit.of(organism.model, [])
        try:
            found = evaluate(self.on, self.held_out, nothing, controls=0, quick=True)
        except NoEffectError:
            self.background = dict[str, bool]()
            return
        of_any = ["prefers", *(test.name for test in found.background)]
        self.background = {name: found.checks[name].passed for name in of_any}

    def reported(self, method: str, *, always: bool = False) -> tuple[int, dict[str, bool]]:
        """The size of the circuit that is reported, and the controls that were made.

        `always` looks for one also where the first controls fail, if there is an effect.
        """
        if not self.background or not (always or all(self.background.values())):
            return 0, self.background
        scores = discover(self.on, self.found, method)
        grow = partial(greedy, by=RANKED_BY[method])
        try:
            circuit = smallest(self.on, self.found, scores, grow=grow, metric=self.found.metric)
        except NoEffectError:
            return 0, self.background
        checks = evaluate(self.on, self.held_out, circuit, quick=True).checks
        return len(circuit), {name: check.passed for name, check in checks.items()}
