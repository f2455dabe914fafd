"""The evaluation stage: what the circuit is worth on prompts that it was not found on.

Its faithfulness beside random circuits of its size and shape, under a second metric and a second
ablation, its completeness and minimality (`cutaway.circuits.evaluate`), and faithfulness against
size on the same held-out prompts.
"""

from __future__ import annotations

from dataclasses import dataclass

from cutaway.circuits import CircuitError, Curve, Evaluation, Masked, curve, evaluate
from cutaway.study.discovery import Discovered, graded, shares, sides
from cutaway.study.stage import Inputs, SkippedError, within

_OTHER_METRIC = {"logit_diff": "prob_diff"}
_OTHER_ABLATION = "mean"


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """How far the circuit can be trusted."""

    circuit: Evaluation
    """Everything about the chosen circuit."""
    sizes: Curve
    """Faithfulness against size, of circuits from the same scores."""

    @property
    def n(self) -> int:
        """The number of held-out examples."""
        return self.sizes.clean.sizes["example"]


def judge(inputs: Inputs) -> Evaluated:
    """Evaluate the circuit of the discovery stage on held-out prompts."""
    found, settings = inputs.of(Discovered), inputs.settings
    _, rows = sides(inputs)
    metric = graded(rows) or rows.metric
    try:
        on = Masked(inputs.model)
        evaluation = evaluate(
            on, rows, found.circuit, metric=metric, controls=settings.controls,
            other_metrics=[_OTHER_METRIC.get(metric, "logit_diff")],
            other_ablations=[_OTHER_ABLATION], seed=settings.seed,
            progress=within(inputs.tick, 0, 2),
        )  # fmt: skip
        sizes = curve(
            on, rows, found.scores, sizes=shares(found.circuit), seed=settings.seed,
            progress=within(inputs.tick, 1, 2),
        )  # fmt: skip
    except CircuitError as error:
        raise SkippedError(str(error)) from error
    return Evaluated(circuit=evaluation, sizes=sizes)
