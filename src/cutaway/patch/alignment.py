"""Distributed alignment search: learn the subspace that carries what tells the prompts apart.

Geiger et al. 2023, "Finding Alignments Between Interpretable Causal Variables and Distributed
Neural Representations". The rows of an orthonormal basis are learnt by gradient descent (kept
orthonormal by parametrisation; only the aligned rows of their rotation matter, so only those are
kept) such that exchanging the subspace in the corrupt run for the clean run's makes the corrupt
prompt give

- `towards="clean"`: what the clean prompt gives,  loss = KL(clean run ‖ this), at `end`;
- `towards="answers"`: the clean prompt's answers,  loss = −log Σ_{a ∈ answers} p(a). This is the
  paper's. It is not least where the exchange is complete: a direction that makes the model surer of
  the answers than it is on the clean prompt counts as better still. So it is not the default.

A search can find something anywhere, so the result is never the effect alone: it is learnt on the
behaviour's training rows and measured on those held out, where there are any, and beside it stand
random subspaces of the same size at the same place, and the exchange of the whole site.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from cutaway.behaviours.behaviour import Behaviour
from cutaway.behaviours.metrics import METRICS, Metric
from cutaway.measure.batches import Progress, batch_size_for, batches, named_positions
from cutaway.model.model import Model
from cutaway.model.run import Run
from cutaway.model.sites import Site
from cutaway.patch.cells import Coordinate, SweepError
from cutaway.patch.effects import Effects
from cutaway.patch.subspaces import interchange, swapped

Towards = Literal["clean", "answers"]
"""What the search is to bring about; see the module's text."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Alignment:
    """A learnt subspace, and what it is to be compared with."""

    basis: Float[Tensor, "direction width"]
    """Orthonormal rows that span it."""
    effects: Effects
    """What exchanging it does (on the rows held out, where there are any)."""
    controls: tuple[Effects, ...]
    """The same for random subspaces of its size."""
    whole: Effects
    """The same for everything that passes there: no subspace can carry more of the site."""
    losses: tuple[float, ...]
    """The loss at each step of the search."""
    held_out: bool
    """Whether it was measured on other rows than it was learnt on."""

    def __str__(self) -> str:
        random = [float(control.recovery[0]) for control in self.controls]
        where = "held-out rows" if self.held_out else "the very rows it was learnt on"
        return (
            f"{self.basis.shape[0]} directions of {self.effects.site}: recovery "
            f"{float(self.effects.recovery[0]):.2f} on {where}, random subspaces at most "
            f"{max(random):.2f}, the whole site {float(self.whole.recovery[0]):.2f}"
        )


def align(
    model: Model,
    behaviour: Behaviour,
    site: str | Site,
    size: int,
    *,
    positions: Sequence[Coordinate] | Coordinate | None = None,
    towards: Towards = "clean",
    steps: int = 200,
    rate: float = 0.05,
    controls: int = 5,
    metric: str | Metric | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Alignment:
    """Learn `size` directions of a site (or of one head) that carry the answer, with controls.

    `positions` are exchanged together (all, when not given); `rate` is Adam's learning rate, and
    each step goes through all training rows. The model's own weights are not touched. Raises
    `SweepError` or `SiteError`.
    """
    place = model.check_site(site)
    for name, value in (("size", size), ("steps", steps), ("controls", controls)):
        if value < 1:
            raise SweepError(f"{name} must be a whole number of 1 or more; found {value}.")
    if towards not in get_args(Towards):
        raise SweepError(f"There is no towards {towards!r}; choose clean or answers.")
    named = None if positions is None else named_positions(behaviour.clean, positions)
    probe = model.run(behaviour.clean.rows([0]), keep=[place.whole])[place]
    width = probe.shape[-1]
    if size > width:
        raise SweepError(
            f"{str(place)!r} is {width} wide; size can be at most that (found {size})."
        )
    split = behaviour.has_held_out
    train, test = (
        (behaviour.split("train"), behaviour.split("held-out")) if split else (behaviour, behaviour)
    )
    rows = batch_size_for(model, train, batch_size)
    basis, losses = _searched(
        model, train, place, named, _random(size, width, seed), towards, steps,
        rate, rows, progress,
    )  # fmt: skip

    def measured(directions: Tensor) -> Effects:
        return interchange(
            model, test, place, directions, positions=named, metric=metric, batch_size=batch_size
        )

    return Alignment(
        basis=basis,
        effects=measured(basis),
        controls=tuple(
            measured(_random(size, width, seed + 1 + draw)) for draw in range(controls)
        ),
        whole=measured(torch.eye(width)),
        losses=losses,
        held_out=split,
    )  # fmt: skip


def _random(size: int, width: int, seed: int) -> Float[Tensor, "direction width"]:
    """An orthonormal basis of a random subspace."""
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(width, size, generator=generator)).Q.T.contiguous()


def _searched(
    model: Model, train: Behaviour, site: Site, positions: tuple[Coordinate, ...] | None,
    start: Tensor, towards: Towards, steps: int, rate: float, batch_size: int,
    progress: Progress | None,
) -> tuple[Tensor, tuple[float, ...]]:  # fmt: skip
    """The basis learnt from a start, and the loss of each step."""
    with torch.random.fork_rng():
        torch.manual_seed(0)  # torch completes the start to a whole rotation by drawing
        turned = orthogonal(nn.Linear(start.shape[1], start.shape[0], bias=False))
        turned.weight = start
    learnt = list(turned.parameters())
    optimizer = torch.optim.Adam(learnt, lr=rate)
    sources = [
        (rows, model.run(rows.clean, keep=[site.whole])) for _, rows in batches(train, batch_size)
    ]
    losses: list[float] = []
    for step in range(steps):
        total = 0.0
        slopes = [torch.zeros_like(weight) for weight in learnt]
        for rows, source in sources:
            with torch.enable_grad():
                loss = _loss(model, rows, site, turned.weight, source, positions, towards)
                loss = loss / len(train)
            # Only the rotation's: the model's weights keep whatever gradients they had.
            for sum_, part in zip(slopes, torch.autograd.grad(loss, learnt), strict=True):
                sum_ += part
            total += float(loss.detach())
        if not torch.isfinite(torch.tensor(total)):
            raise SweepError(
                f"The loss at step {step} is not finite; open the model in float32, or lower rate "
                f"(it is {rate})."
            )
        for weight, slope in zip(learnt, slopes, strict=True):
            weight.grad = slope
        optimizer.step()
        losses.append(total)
        if progress is not None:
            progress(step + 1, steps)
    return turned.weight.detach().clone(), tuple(losses)


def _loss(
    model: Model, rows: Behaviour, site: Site, basis: Tensor, source: Run,
    positions: tuple[Coordinate, ...] | None, towards: Towards,
) -> Tensor:  # fmt: skip
    """The loss after the exchange, summed over the rows."""
    edit = swapped(site, basis, source, positions)
    run = model.run(rows.corrupt, edits=[edit], graph=True)
    logits = rows.end_logits(run.logits)
    if towards == "clean":
        return METRICS["kl"](logits, rows, reference=rows.end_logits(source.logits)).sum()
    chances = logits.float().log_softmax(dim=-1)
    total = chances.new_zeros(())
    for row, answers in enumerate(rows.answers):
        total = total - chances[row, list(answers)].logsumexp(dim=0)
    return total
