"""The stages of `cutaway circuit`, each from settings and earlier files to files.

| stage | files | what decides it |
|---|---|---|
| scores | `METHOD.scores.nc` | metric, ablation, seed, graph, granularity, steps |
| circuit | `METHOD.circuit.json`, and other formats | scores, number of edges, selection |
| evaluation | `METHOD.evaluation.nc` | circuit, metric, ablation, seed |
| curve | `METHOD.curve.nc` | scores, metric, ablation, seed, ranking |
| crossing | `crossing.nc` | circuits saved earlier, metric, ablation, seed |

`METHOD.circuit.svg` is the picture, drawn each time. Scores by ACDC and by learned masks are for
the KL divergence, unless a metric is asked for; evaluation and curve are by the behaviour's own
then.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cutaway.behaviours import Behaviour
from cutaway.circuits import (
    METHODS,
    RANKED_BY,
    Circuit,
    Crossing,
    Curve,
    EdgeScores,
    Evaluation,
    Masked,
    cross,
    curve,
    discover,
    evaluate,
    greedy,
    smallest,
    top_n,
)
from cutaway.circuits.effects import By
from cutaway.circuits.exports import FORMATS
from cutaway.circuits.graph import Granularity
from cutaway.circuits.picture import view
from cutaway.cli.circuit_work import Work
from cutaway.errors import CutawayError
from cutaway.measure import Progress
from cutaway.views import Figure
from cutaway.views import circuit as drawing

SELECTIONS = {"greedy": greedy, "top": top_n}
"""How a circuit is selected, by name."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What was asked for."""

    methods: list[str]
    """The discovery methods."""
    edges: int | float | None
    """How many edges; a fraction is a share of all, None the fewest that keep the behaviour on the
    prompts of discovery."""
    select: str
    """A key of `SELECTIONS`."""
    by: By | None
    """How edges are ranked; None for what suits the method's scores."""
    ablation: str
    """What an edge carries when it is off."""
    metric: str | None
    """What an edge matters for; None for the method's or the behaviour's own."""
    seed: int
    """For all draws."""
    granularity: Granularity | None
    """What is scored together; None for what suits the method."""
    steps: int | None
    """Steps of the methods that take some; None for their own."""
    quick: bool
    """Whether only faithfulness and its controls are evaluated."""
    formats: list[str]
    """Formats besides JSON."""

    @property
    def measure(self) -> dict[str, Any]:
        """What every measurement takes."""
        return {"metric": self.metric, "ablation": self.ablation, "seed": self.seed}

    def search(self, method: str) -> dict[str, Any]:
        """What discovery by a method takes besides."""
        steps = {"steps": self.steps} if self.steps and takes_steps(method) else {}
        return {**self.measure, "granularity": self.granularity, **steps}

    def ranking(self, method: str) -> By:
        """How a method's scores rank edges."""
        return self.by or RANKED_BY[method]

    def size(self, many: int) -> int | None:
        """The number of edges, of so many; None where it is to be found."""
        if isinstance(self.edges, float):
            return max(1, round(self.edges * many))
        return self.edges


@dataclass(frozen=True, kw_only=True)
class Found:
    """What one method came to."""

    scores: EdgeScores
    """Every edge's score."""
    circuit: Circuit
    """The circuit."""
    evaluation: Evaluation
    """What it is worth."""
    sizes: Curve
    """Faithfulness by size."""


def by_method(
    name: str,
    on: Masked,
    train: Behaviour,
    held: Behaviour,
    asked: Asked,
    work: Work,
    progress: Progress,
) -> Found:
    """All the stages of one method."""
    scores = _scores(name, on, train, asked, work, progress)
    circuit = _selected(name, scores, on, train, asked, work, progress)
    evaluation = work.stage(
        f"{name}/evaluation", f"{name}: evaluation", load=Evaluation.load,
        settings={**asked.measure, "of": work.hash_of(f"{name}/circuit"), "quick": asked.quick},
        files={f"{name}.evaluation.nc": lambda path, found: found.save(path)},
        compute=lambda: evaluate(
            on, held, circuit, **asked.measure, quick=asked.quick, progress=progress
        ),
    )  # fmt: skip
    measure: dict[str, Any] = {
        **asked.measure,
        "metric": asked.metric or held.metric,
        "by": asked.ranking(name),
    }
    sizes = work.stage(
        f"{name}/curve", f"{name}: sizes", load=Curve.load,
        settings={**measure, "of": work.hash_of(f"{name}/scores")},
        files={f"{name}.curve.nc": lambda path, found: found.save(path)},
        compute=lambda: curve(on, held, scores, **measure, progress=progress),
    )  # fmt: skip
    _drawn(scores, circuit, sizes).save(work.directory / f"{name}.circuit.svg")
    return Found(scores=scores, circuit=circuit, evaluation=evaluation, sizes=sizes)


def _drawn(scores: EdgeScores, circuit: Circuit, sizes: Curve) -> Figure:
    """The best edges, of the curve's size that is nearest to the circuit's."""
    counts = [max(1, round(share * len(scores.graph))) for share in sizes.values["share"].values]
    return drawing(view(scores, sizes, size=min(counts, key=lambda n: abs(n - len(circuit)))))


def takes_steps(method: str) -> bool:
    """Whether a discovery method has an option `steps`."""
    return "steps" in inspect.signature(METHODS[method]).parameters


def _scores(
    name: str, on: Masked, train: Behaviour, asked: Asked, work: Work, progress: Progress
) -> EdgeScores:
    """The scores; what discovery has done is kept in a journal until they are saved."""
    settings = {**asked.search(name), **on.graph.split}
    journal = work.directory / f"{name}.unfinished-{_short({**settings, 'method': name})}"
    found = work.stage(
        f"{name}/scores", f"{name}: scores", settings=settings, load=EdgeScores.load,
        files={f"{name}.scores.nc": lambda path, scores: scores.save(path)},
        compute=lambda: _discovered(name, on, train, asked, journal, progress),
    )  # fmt: skip
    for left in work.directory.glob(f"{name}.unfinished-*"):
        left.unlink()
    return found


def _discovered(
    name: str, on: Masked, train: Behaviour, asked: Asked, journal: Path, progress: Progress
) -> EdgeScores:
    """The scores; what is refused before anything was finished leaves no journal."""
    there = journal.exists()
    try:
        return discover(on, train, name, **asked.search(name), journal=journal, progress=progress)
    except CutawayError:
        if not there:
            journal.unlink(missing_ok=True)
        raise


def _selected(
    name: str, scores: EdgeScores, on: Masked, train: Behaviour, asked: Asked, work: Work,
    progress: Progress,
) -> Circuit:  # fmt: skip
    """The circuit, in every format."""
    n, endings = asked.size(len(scores.graph)), [".json"]
    endings += [FORMATS[each].endings[0] for each in asked.formats]
    select = partial(SELECTIONS[asked.select], by=asked.ranking(name))
    measure: dict[str, Any] = {**asked.measure, "metric": asked.metric or train.metric}
    return work.stage(
        f"{name}/circuit", f"{name}: circuit", load=Circuit.load,
        settings={"n": n, "select": asked.select, "by": asked.ranking(name), "endings": endings,
                  "of": work.hash_of(f"{name}/scores"), "measure": None if n else measure},
        files={
            f"{name}.circuit{ending}": lambda path, found: found.save(path, scores=scores)
            for ending in endings
        },
        compute=lambda: (
            select(scores, n) if n is not None
            else smallest(on, train, scores, grow=select, **measure, progress=progress)
        ),
    )  # fmt: skip


def crossed(
    earlier: Mapping[str, Circuit], on: Masked, held: Behaviour, asked: Asked, work: Work
) -> Crossing:
    """What circuits saved earlier keep of this behaviour."""
    edges = {name: [str(edge) for edge in circuit.edges] for name, circuit in earlier.items()}
    return work.stage(
        "crossing", "earlier circuits", settings={**asked.measure, "circuits": edges},
        files={"crossing.nc": lambda path, found: found.save(path)}, load=Crossing.load,
        compute=lambda: cross(on, earlier, {held.name: held}, **asked.measure),
    )  # fmt: skip


def _short(settings: Mapping[str, object]) -> str:
    """A few letters that stand for settings in a file's name."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
