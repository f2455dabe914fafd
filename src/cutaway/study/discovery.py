"""The discovery stage: the smallest circuit that keeps the behaviour, found on training prompts.

1. Every edge is scored by EAP-IG with interpolated inputs (`cutaway.circuits.discovery.eap_ig`).
2. Circuits of growing size, the edges with the largest scores by magnitude, are measured on the
   same prompts (`cutaway.circuits.faithfulness`).
3. The circuit is the smallest of them whose faithfulness, with all of its interval, is within
   `Settings.kept` of the model's own on either side; where none is, the largest below the whole.

Training prompts are those that the behaviour does not hold out; a behaviour that says nothing about
it is split in halves. The evaluation stage uses the other ones, which decide nothing here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cutaway.behaviours import Behaviour
from cutaway.circuits import (
    Circuit,
    CircuitError,
    Curve,
    EdgeScores,
    Masked,
    curve,
    discover,
    top_n,
)
from cutaway.study.blackbox import chosen
from cutaway.study.stage import Inputs, SkippedError, within

SHARES = (0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
"""The sizes that are tried, as shares of the graph's edges."""


@dataclass(frozen=True, kw_only=True)
class Discovered:
    """A circuit, and how it was chosen."""

    scores: EdgeScores
    """Every edge's score on the training prompts."""
    sizes: Curve
    """Faithfulness against size, on the same prompts."""
    circuit: Circuit
    """The smallest that keeps the behaviour."""

    @property
    def chosen(self) -> int:
        """The circuit's place among the sizes."""
        shares = self.sizes.values["share"].to_numpy()
        return int(np.abs(shares * len(self.circuit.graph) - len(self.circuit)).argmin())

    def keeps(self, kept: float) -> bool:
        """Whether it keeps as much of the behaviour, on the prompts it was found on."""
        return bool(_misses(self.sizes)[self.chosen] <= 1 - kept)


def find(inputs: Inputs) -> Discovered:
    """Score the edges, measure circuits of growing size, and choose one."""
    rows, _ = sides(inputs)
    seed, kept = inputs.settings.seed, inputs.settings.kept
    try:
        on = Masked(inputs.model)
        scores = discover(
            on, rows, "eap-ig", metric=graded(rows), seed=seed,
            progress=within(inputs.tick, 0, 2),
        )  # fmt: skip
        sizes = curve(on, rows, scores, sizes=SHARES, seed=seed, progress=within(inputs.tick, 1, 2))
    except CircuitError as error:
        raise SkippedError(str(error)) from error
    circuit = top_n(scores, smallest(sizes, len(scores.graph), kept))
    return Discovered(scores=scores, sizes=sizes, circuit=circuit)


def smallest(sizes: Curve, edges: int, kept: float) -> int:
    """The number of edges that the module's third step chooses."""
    good = np.flatnonzero(_misses(sizes)[:-1] <= 1 - kept)
    share = sizes.values["share"].to_numpy()[good[0] if good.size else -2]
    return max(1, round(float(share) * edges))


def _misses(sizes: Curve) -> Float[np.ndarray, " share"]:
    """How far from 1 each size's faithfulness or an end of its interval is, at most."""
    found = sizes.faithfulness
    return np.nanmax(np.abs(1 - np.stack([found["mean"], found["low"], found["high"]])), axis=0)


def sides(inputs: Inputs) -> tuple[Behaviour, Behaviour]:
    """The prompts to find circuits on and those to check them on, as many as the settings say.

    A behaviour without held-out prompts is split in halves; a single pair is on both sides.
    """
    behaviour, settings = inputs.behaviour, inputs.settings
    if len(behaviour) == 1:
        return behaviour, behaviour
    split = behaviour if behaviour.has_held_out else behaviour.hold_out(0.5, seed=settings.seed)
    train, check = split.split("train"), split.split("held-out")
    return (
        train.rows(chosen(len(train), settings.discovery_examples, settings.seed)),
        check.rows(chosen(len(check), settings.evaluation_examples, settings.seed)),
    )


def graded(behaviour: Behaviour) -> str | None:
    """The metric by which circuits are found: what it counts, where the behaviour's own counts."""
    return "logit_diff" if behaviour.metric == "accuracy" else None
