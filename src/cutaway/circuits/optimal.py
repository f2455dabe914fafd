"""Optimal ablation: the constants that lose least (Li & Janson 2024, arXiv:2409.09951).

Zero and mean ablation put a part somewhere that later parts may never have seen, so what is lost is
partly the removal of information and partly the shock. The constant that loses least bounds the
first from above: a part that some constant can stand in for carried nothing that was needed.

1. Start every writer's constant at its mean over the corrupt prompts (of each position, when asked
   for) and measure how far its outputs lie from there on the clean prompts.
2. In each step draw one of the masks and a batch of prompts, run the masked forward with the
   constants in place of what is off, and take a step of Adam down the loss. Steps are in units of
   the distance measured, and shrink to nothing over the course (a cosine).
3. The loss is the metric itself where it compares with the clean run (`kl`, the paper's and the
   default here), else its squared distance from the clean run's value.
4. Keep the constants, unless where they started loses less on the prompts and masks given.

The constants belong to the masks: those of one circuit are the best for it, and those of several
the best on average over them, which is what a comparison of circuits needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import cos, pi

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from cutaway.behaviours.behaviour import Behaviour
from cutaway.behaviours.metrics import METRICS, Metric
from cutaway.circuits.batch import Batch
from cutaway.circuits.circuit import Circuit
from cutaway.circuits.graph import CircuitError
from cutaway.circuits.masked import Masked
from cutaway.circuits.written import Constants, Replacement, Written
from cutaway.measure.batches import Progress, batch_size_for
from cutaway.model.model import Model

_ROWS = 16
_JUDGED = 8


def optimal_constants(
    model: Model | Masked,
    behaviour: Behaviour,
    circuits: Circuit | Sequence[Circuit],
    *,
    metric: Metric | None = None,
    by_position: bool = False,
    steps: int = 100,
    rate: float = 0.1,
    seed: int = 0,
    progress: Progress | None = None,
) -> Constants:
    """The constants that lose least when everything outside these circuits is off.

    They can be given as `ablation` wherever circuits are measured. `rate` is a step's first size,
    as a fraction of how much a writer varies. Raises `CircuitError` for circuits of another model,
    for `by_position` with prompts of different lengths, and for numbers that are not whole.
    """
    some = [circuits] if isinstance(circuits, Circuit) else list(circuits)
    for one in some:
        one.check(model.model if isinstance(model, Masked) else model)
    on = Masked.of(model, some[0].graph)
    return learned(
        on, behaviour, np.stack([one.kept for one in some]), metric=metric, seed=seed,
        by_position=by_position, steps=steps, rate=rate, progress=progress,
    )  # fmt: skip


def replacement(
    on: Masked, behaviour: Behaviour, ablation: str | Constants,
    kept: Bool[ndarray, "mask reader writer"], *, seed: int = 0, batch_size: int = 16,
) -> Replacement:  # fmt: skip
    """What edges carry when they are off under these masks; `optimal` is learned for them."""
    how = learned(on, behaviour, kept, seed=seed) if ablation == "optimal" else ablation
    return Replacement(
        on.model, behaviour, how, seed=seed, batch_size=batch_size, split=on.graph.alone
    )


def learned(
    on: Masked, behaviour: Behaviour, kept: Bool[ndarray, "mask reader writer"], *,
    metric: Metric | None = None, by_position: bool = False, steps: int = 100, rate: float = 0.1,
    seed: int = 0, progress: Progress | None = None,
) -> Constants:  # fmt: skip
    """The same for masks."""
    if isinstance(steps, bool) or steps < 1 or not rate > 0:
        raise CircuitError(
            f"steps is a whole number of 1 or more, and rate above 0; found {steps!r} and {rate!r}."
        )
    task = _Task(on, behaviour, kept, metric or METRICS["kl"], by_position=by_position)
    generator = np.random.default_rng(seed)

    def loss(deltas: Sequence[Tensor], step: int) -> Tensor:
        if progress is not None:
            progress(step + 1, steps)
        return task.loss(task.at(deltas), step, int(generator.integers(len(kept))))

    start = [torch.zeros_like(x) for x in task.start.tensors()]
    found = descend(loss, start, steps=steps, rate=rate)
    before, after = task.judged(start), task.judged(found)
    best = start if before < after else found
    return Constants(
        written=task.at(best).map(Tensor.detach), loss=min(before, after), mean_loss=before
    )


def descend(
    loss: Callable[[Sequence[Tensor], int], Tensor], start: Sequence[Tensor], *, steps: int,
    rate: float,
) -> list[Tensor]:  # fmt: skip
    """Where Adam gets to in so many steps, which shrink from `rate` to nothing."""
    at = [x.clone().requires_grad_() for x in start]
    adam = torch.optim.Adam(at, lr=rate)
    for step in range(steps):
        for group in adam.param_groups:
            group["lr"] = rate * (1 + cos(pi * step / steps)) / 2
        adam.zero_grad()
        with torch.enable_grad():
            loss(at, step).backward()
        adam.step()
    return [x.detach() for x in at]


@dataclass
class _Task:
    """Prompts in batches, masks, and the scale of each writer's constant."""

    on: Masked
    behaviour: Behaviour
    kept: np.ndarray
    metric: Metric
    by_position: bool
    batches: list[Batch] = field(init=False)
    start: Written = field(init=False)
    scales: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        size = min(_ROWS, batch_size_for(self.on.model, self.behaviour, None))
        how = "mean-by-position" if self.by_position else "mean"
        means = Replacement(
            self.on.model, self.behaviour, how, batch_size=size, split=self.on.graph.alone
        )
        n = len(self.behaviour)
        self.batches = [
            Batch(self.on, self.behaviour.rows(where), where, self.metric, means)
            for where in (slice(at, min(at + size, n)) for at in range(0, n, size))
        ]
        self.start = means(slice(0, n))
        first = self.batches[0]
        real = first.tokens.mask
        self.scales = [
            (clean - mean)[real].square().mean().sqrt()
            for clean, mean in zip(first.clean.tensors(), self.start.tensors(), strict=True)
        ]
        self.masks = torch.as_tensor(self.kept, dtype=torch.float32)

    def at(self, deltas: Sequence[Tensor]) -> Written:
        """The constants that lie so many scales from where they started."""
        moved = [
            mean + scale * delta
            for mean, scale, delta in zip(self.start.tensors(), self.scales, deltas, strict=True)
        ]
        return self.start.holding(moved)

    def loss(self, constants: Written, step: int, mask: int) -> Float[Tensor, ""]:
        """The loss of one batch under one mask."""
        batch = self.batches[step % len(self.batches)]
        logits = self.on.end_logits(
            batch.tokens, self.masks[mask : mask + 1], constants, batch.end
        )[0]
        found = batch.measure(logits)
        if self.metric.needs_reference:
            return found.mean()
        clean = torch.as_tensor(batch.ends[0], dtype=found.dtype, device=found.device)
        return (found - clean).square().mean()

    def judged(self, deltas: Sequence[Tensor]) -> float:
        """The loss over all prompts, under the masks or the first few of them."""
        constants, total = self.at(deltas), 0.0
        masks = min(_JUDGED, len(self.masks))
        with torch.no_grad():
            for step, batch in enumerate(self.batches):
                for mask in range(masks):
                    total += float(self.loss(constants, step, mask)) * len(batch)
        return total / (masks * len(self.behaviour))
