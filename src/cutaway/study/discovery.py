"""The discovery stage: the smallest circuit that keeps the behaviour, found on training prompts.

1. Every edge is scored by EAP-IG with interpolated inputs (`cutaway.circuits.discovery.eap_ig`).
2. The circuit is the smallest of the edges with the largest scores whose faithfulness on the same
   prompts lies, with all of its interval, within `Settings.kept` of the model's own on either side
   (`cutaway.circuits.smallest`).
3. Faithfulness is measured against size, and each edge's inclusion when prompts are resampled.

Training prompts are those that the behaviour does not hold out; a behaviour that says nothing about
it is split in halves. The evaluation stage uses the other ones, which decide nothing here.
"""

from __future__ import annotations

from dataclasses import dataclass

from cutaway.behaviours import Behaviour
from cutaway.circuits import (
    Circuit,
    CircuitError,
    Curve,
    EdgeScores,
    Masked,
    Stability,
    curve,
    discover,
    smallest,
    stability,
    top_n,
)
from cutaway.study.blackbox import chosen
from cutaway.study.stage import Inputs, SkippedError, within

_SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)


@dataclass(frozen=True, kw_only=True)
class Discovered:
    """A circuit, and how it was chosen."""

    scores: EdgeScores
    """Every edge's score on the training prompts."""
    circuit: Circuit
    """The smallest that keeps the behaviour."""
    sizes: Curve
    """Faithfulness against size, on the same prompts; the circuit's size is one of them."""
    stability: Stability
    """How often each edge is among as many strongest, when the prompts are resampled."""

    @property
    def at(self) -> int:
        """The circuit's place among the sizes."""
        return self.sizes.values["share"].to_numpy().tolist().index(self.circuit.share)


def find(inputs: Inputs) -> Discovered:
    """Score the edges, choose the circuit, and see how stable it is."""
    rows, _ = sides(inputs)
    seed, kept = inputs.settings.seed, inputs.settings.kept
    try:
        on = Masked(inputs.model)
        scores = discover(
            on, rows, "eap-ig", metric=graded(rows), seed=seed,
            progress=within(inputs.tick, 0, 3),
        )  # fmt: skip
        circuit = smallest(
            on, rows, scores, span=(kept, 2 - kept), grow=top_n, seed=seed,
            progress=within(inputs.tick, 1, 3),
        )  # fmt: skip
        sizes = curve(
            on, rows, scores, sizes=shares(circuit), seed=seed, progress=within(inputs.tick, 2, 3)
        )
        resampled = stability(scores, lambda drawn: top_n(drawn, len(circuit)), seed=seed)
    except CircuitError as error:
        raise SkippedError(str(error)) from error
    return Discovered(scores=scores, circuit=circuit, sizes=sizes, stability=resampled)


def shares(circuit: Circuit) -> list[float]:
    """The sizes at which circuits are measured, this one's among them, as shares of all edges."""
    many = len(circuit.graph)
    each = {max(1, round(share * many)) for share in _SHARES} | {len(circuit)}
    return [size / many for size in sorted(each)]


def sides(inputs: Inputs) -> tuple[Behaviour, Behaviour]:
    """The prompts to find circuits on and those to check them on, as many as the settings say.

    A behaviour without held-out prompts is split in halves. Raises `SkippedError` for a single one.
    """
    behaviour, settings = inputs.behaviour, inputs.settings
    if len(behaviour) == 1:
        raise SkippedError(
            "A circuit is found on some prompts and checked on others, and there is a single pair; "
            "give two or more."
        )
    split = behaviour if behaviour.has_held_out else behaviour.hold_out(0.5, seed=settings.seed)
    train, check = split.split("train"), split.split("held-out")
    return (
        train.rows(chosen(len(train), settings.discovery_examples, settings.seed)),
        check.rows(chosen(len(check), settings.evaluation_examples, settings.seed)),
    )


def graded(behaviour: Behaviour) -> str | None:
    """The metric by which circuits are found: what it counts, where the behaviour's own counts."""
    return "logit_diff" if behaviour.metric == "accuracy" else None
