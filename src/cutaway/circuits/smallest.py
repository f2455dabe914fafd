"""The smallest circuit that keeps a behaviour, its size chosen on the prompts given.

1. Select circuits of growing size from the scores (each about a quarter larger than the one before)
   and measure them as masks of the same passes, eight sizes at a time, until one keeps the
   behaviour: the whole interval of its faithfulness lies within `span`.
2. Measure every size between that one and the one before, eight at a time, and take the first
   that keeps it.

Faithfulness does not grow steadily with size, so a smaller circuit may exist; and a size chosen on
some prompts fits these. Choose it on the prompts that the scores are from, and evaluate the circuit
on others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from cutaway.behaviours.behaviour import Behaviour
from cutaway.behaviours.metrics import Metric
from cutaway.circuits.circuit import Circuit, greedy
from cutaway.circuits.faithfulness import check_gap, check_span, measured
from cutaway.circuits.graph import CircuitError
from cutaway.circuits.masked import Masked
from cutaway.circuits.scores import EdgeScores
from cutaway.circuits.written import Constants
from cutaway.measure.batches import Progress
from cutaway.model.model import Model

Grow = Callable[[EdgeScores, int], Circuit]
"""From scores and a size to a circuit: `greedy`, `top_n`."""

_AT_ONCE = 8
_STEP = 1.25


def smallest(
    model: Model | Masked,
    behaviour: Behaviour,
    scores: EdgeScores,
    *,
    span: tuple[float, float] = (0.9, 1.1),
    grow: Grow = greedy,
    metric: str | Metric | None = None,
    ablation: str | Constants | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Circuit:
    """The first circuit, as sizes grow, whose interval of faithfulness lies within `span`.

    Metric and ablation are the scores' own when not given. `progress` is called with the sizes
    tried and the number of the first round's. Raises `CircuitError` for a span without 1 inside,
    for a total effect of about zero, and where no size keeps the behaviour.
    """
    check_span(span)
    on = Masked.of(model, scores.graph)
    sizes, tried = _growing(len(scores.graph)), 0

    def first(some: Sequence[int]) -> int | None:
        """The first of these sizes that keeps the behaviour."""
        nonlocal tried
        for start in range(0, len(some), _AT_ONCE):
            now = some[start : start + _AT_ONCE]
            kept = np.stack([grow(scores, size).kept for size in now])
            found = measured(
                on, behaviour, kept, metric=metric or scores.metric, seed=seed,
                ablation=ablation or scores.ablation, batch_size=batch_size,
            )  # fmt: skip
            check_gap(found.clean, found.ablated, behaviour)
            tried += len(now)
            if progress is not None:
                progress(min(tried, len(sizes)), len(sizes))
            for at, size in enumerate(now):
                ratio = found.ratio(at)
                if span[0] <= ratio.low and ratio.high <= span[1]:
                    return size
        return None

    coarse = first(sizes)
    if coarse is None:
        raise CircuitError(
            f"No circuit of these scores keeps {span[0]:g} to {span[1]:g} of the behaviour "
            f"{behaviour.name!r} with its whole interval; give more prompts, or a wider span."
        )
    before = max((size for size in sizes if size < coarse), default=0)
    size = first(range(before + 1, coarse)) or coarse
    circuit = grow(scores, size)
    circuit.check(on.model)
    chosen = {**circuit.provenance.get("selection", {}), "smallest": list(span)}
    return replace(circuit, provenance={**circuit.provenance, "selection": chosen})


def _growing(most: int) -> list[int]:
    """1, 2, 3, 4, 5, 7, 9, … up to `most`."""
    found = [1]
    while found[-1] < most:
        found.append(min(most, max(found[-1] + 1, round(found[-1] * _STEP))))
    return found
