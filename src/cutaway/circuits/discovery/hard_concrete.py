"""Learning which edges to keep: masks that are mostly exactly 0 or 1, and have a gradient.

The hard-concrete distribution (Louizos, Welling & Kingma 2018, arXiv:1712.01312). For a parameter
α per unit, a sample is

    s = sigmoid((log u − log(1 − u) + log α) / β),   u uniform on (0, 1)
    z = min(1, max(0, s · (ζ − γ) + γ)),   β = 2/3, γ = −0.1, ζ = 1.1

so that z is 0 or 1 with positive probability, and P(z > 0) = sigmoid(log α − β log(−γ/ζ)) can be
held to a target. Each step draws a few masks for a few examples, runs the masked forward with
gradients, and takes a step of Adam on log α down the loss:

- with a metric that compares with the clean run (`kl`, the default here), its mean;
- with any other, the squared distance from the clean run's value, over the squared total effect.

A step takes as many examples as a batch has, each run under `_MASKS` masks in place of one: a unit
that is seldom on is then seen on more often, for the same work. With one mask, a unit of the
circuit that chance switches off while others are still being sorted out often stays off for good.

Memory is that of a masked pass with gradients: the inputs of every reader, 3 · readers · d_model
per row and position; `batch_size` bounds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import log

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cutaway.circuits.batch import Batch
from cutaway.circuits.checks import whole_number
from cutaway.circuits.discovery.setting import Setting
from cutaway.circuits.graph import CircuitError

BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1
_START = 2.0
_MASKS = 4
_KEPT_EVERY = 25

Penalty = Callable[[Float[Tensor, ""], int], Float[Tensor, ""]]
"""What the loss adds for the expected share of units that are on, at a step."""


@dataclass(kw_only=True)
class Learner:
    """Log α, and how it is learned."""

    setting: Setting
    """The model, the examples, and how edges are switched off."""
    unit: Int[Tensor, "*reader_writer"]
    """Which unit each edge belongs to, −1 where there is no edge."""
    penalty: Penalty
    """What keeps units from being on."""
    steps: int
    """How many steps of Adam."""
    rate: float
    """Their size, in log α."""
    weights: Tensor | None = None
    """What the penalty weighs by, learned upwards, where it has weights."""

    def __post_init__(self) -> None:
        self.steps = whole_number("steps", self.steps, 1)
        if not self.rate > 0:
            raise CircuitError(f"rate must be above 0; found {self.rate!r}.")
        self.alpha = torch.full((int(self.unit.max()) + 1,), _START, requires_grad=True)
        groups: list[dict[str, object]] = [{"params": [self.alpha]}]
        if self.weights is not None:
            groups.append({"params": [self.weights], "maximize": True})
        self.adam = torch.optim.Adam(groups, lr=self.rate)
        self.parts = list(_parts(list(self.setting.batches())))

    def learn(self) -> Float[Tensor, " unit"]:
        """Log α of every unit."""
        for first in range(0, self.steps, _KEPT_EVERY):
            state = self.setting.kept(
                f"{_KEPT_EVERY} steps from {first}", lambda first=first: self._from(first)
            )
            self._take(state)
            self.setting.done(min(first + _KEPT_EVERY, self.steps), self.steps)
        return self.alpha.detach()

    def _from(self, first: int) -> dict[str, np.ndarray]:
        for step in range(first, min(first + _KEPT_EVERY, self.steps)):
            batch, rows = self.parts[step % len(self.parts)]
            loss = _loss(batch, rows, self._drawn(step)) + self.penalty(self._share(), step)
            self.adam.zero_grad()
            loss.backward()
            self.adam.step()
            self.setting.done(step + 1, self.steps)
        return {name: value.detach().numpy() for name, value in self._state()}

    def _drawn(self, step: int) -> Float[Tensor, "mask *reader_writer"]:
        """The masks of a step: the same whatever was drawn before."""
        seed = int(np.random.SeedSequence([self.setting.seed, step]).generate_state(1)[0])
        draw = torch.Generator().manual_seed(seed)
        uniform = torch.rand(_MASKS, len(self.alpha), generator=draw).clamp(1e-6, 1 - 1e-6)
        drawn = torch.sigmoid((torch.logit(uniform) + self.alpha) / BETA)
        mask = (drawn * (ZETA - GAMMA) + GAMMA).clamp(0, 1)
        return torch.where(self.unit >= 0, mask[:, self.unit.clamp(min=0)], 0.0)

    def _share(self) -> Float[Tensor, ""]:
        return torch.sigmoid(self.alpha - BETA * log(-GAMMA / ZETA)).mean()

    def _state(self) -> Iterator[tuple[str, Tensor]]:
        """Everything that a step changes, by name."""
        for group in self.adam.param_groups:
            name = "weights" if group["maximize"] else "alpha"
            (values,) = group["params"]
            yield name, values
            for moment, value in self.adam.state[values].items():
                yield f"{name}.{moment}", value

    def _take(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a state."""
        for group in self.adam.param_groups:
            name = "weights" if group["maximize"] else "alpha"
            (values,) = group["params"]
            with torch.no_grad():
                values.copy_(torch.from_numpy(state[name]))
            self.adam.state[values] = {
                key.removeprefix(f"{name}."): torch.from_numpy(value.copy())
                for key, value in state.items()
                if key.startswith(f"{name}.")
            }


def _parts(batches: Sequence[Batch]) -> Iterator[tuple[Batch, slice]]:
    """Some examples of a batch at a time."""
    for batch in batches:
        many = max(1, len(batch) // _MASKS)
        for start in range(0, len(batch), many):
            yield batch, slice(start, min(start + many, len(batch)))


def _loss(batch: Batch, rows: slice, kept: Float[Tensor, "mask *reader_writer"]) -> Tensor:
    some, reference = batch.rows.rows(rows), batch.reference
    logits = batch.on.end_logits(
        batch.tokens.rows(rows), kept, batch.replacement.rows(rows), batch.end[rows]
    )
    if reference is not None:
        reference = reference[rows]
        each = [batch.metric(one, some, reference=reference).mean() for one in logits]
        return torch.stack(each).mean().cpu()
    found = torch.stack([batch.metric(one, some) for one in logits]).cpu()
    clean, off = (torch.as_tensor(end, dtype=torch.float32) for end in batch.ends)
    gap = (clean - off).square().mean().clamp(min=1e-12)
    return (found - clean[rows]).square().mean() / gap
