"""What a sweep puts in a cell's place, and which run it starts from.

| mode | the run that is changed | what is put there |
|---|---|---|
| `denoise` | corrupt | what the clean run has at the same place |
| `noise` | clean | what the corrupt run has at the same place |
| `zero` | clean | zero |
| `mean` | clean | the mean over all the behaviour's corrupt prompts |
| `resample` | clean | what another corrupt prompt has there, drawn with a seed |

Denoising and noising are the two directions of activation patching (Meng et al. 2022; Wang et al.
2022; Zhang & Nanda 2023). The mean and the draw come from the corrupt prompts, as in Wang et al.
2022 (mean ablation over p_ABC) and Chan et al. 2022 (resampling): what is kept is what all prompts
share, what is lost is what tells this one apart. Where positions are named, each has its own mean;
else the mean pools prompts and real tokens (in scores and patterns, prompts only).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from cutaway.behaviours.behaviour import Behaviour
from cutaway.model.changes import draw_rows
from cutaway.model.edits import Edit, ablate, replace
from cutaway.model.model import Model
from cutaway.model.run import Run
from cutaway.model.select import positions_of
from cutaway.model.sites import KINDS, Site
from cutaway.patch.cells import Cell, Coordinate, Grid, SweepError

Mode = Literal["denoise", "noise", "zero", "mean", "resample"]
"""What a sweep does; see the module's table."""


def check_mode(mode: str, behaviour: Behaviour, grid: Grid) -> None:
    """Refuse a mode that there is not, or that these prompts cannot serve."""
    if mode not in get_args(Mode):
        raise SweepError(f"There is no mode {mode!r}; choose one of {', '.join(get_args(Mode))}.")
    uneven = bool((behaviour.corrupt.mask != behaviour.corrupt.mask[:1]).any())
    square = "key_position" in KINDS[grid.kind].axes
    if uneven and mode == "resample" and (grid.needs_lined_up or square):
        ask = "choose another mode" if square else "name positions, or choose another mode"
        raise SweepError(
            f"These prompts have different lengths, so one cannot stand in for another token by "
            f"token at {grid.kind!r}; {ask}."
        )
    if uneven and mode == "mean" and square:
        raise SweepError(
            f"These prompts have different lengths, so their {grid.kind!r} has no mean; choose "
            "another mode."
        )
    if mode == "mean" and "key_position" in grid.axes:
        raise SweepError(
            f"{grid.kind!r} cannot be set to a mean by key position, since a mean belongs to a "
            "whole row of weights; leave 'key_position' out of by, or choose another mode."
        )
    if mode == "resample" and len(behaviour) < 2:
        raise SweepError("Resampling draws other prompts, and this behaviour has a single pair.")


class Source(Protocol):
    """Makes each cell's edit for one batch of examples."""

    def edit(self, cell: Cell) -> Edit:
        """The edit that fills the cell's place."""
        ...


class FromRun:
    """Takes the place's content from a run of as many prompts."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def edit(self, cell: Cell) -> Edit:
        """Replace the cell's part by the run's."""
        where = cell.where
        return replace(
            cell.site, from_=self.run, head=where.index, position=where.position,
            key_position=where.key_position,
        )  # fmt: skip


class Zero:
    """Puts zero there."""

    def edit(self, cell: Cell) -> Edit:
        """Set the cell's part to zero."""
        where = cell.where
        return ablate(
            cell.site, head=where.index, position=where.position, key_position=where.key_position
        )


class Means:
    """Puts the reference's mean there; made by `means_of`."""

    def __init__(self, means: dict[Site, Tensor], names: Sequence[Coordinate] | None) -> None:
        self.means, self.names = means, names

    def edit(self, cell: Cell) -> Edit:
        """Replace the cell's part by its mean, which broadcasts over prompts."""
        mean, where = self.means[cell.site], cell.where
        axes = KINDS[cell.site.kind].axes
        if self.names is not None:
            chosen = [self.names.index(name) for name in where.position or ()]
            mean = mean.index_select(_position_axis(cell.site), torch.tensor(chosen))
        indexed = KINDS[cell.site.kind].indexed
        if where.index is not None and indexed is not None:
            mean = mean.index_select(axes.index(indexed), torch.tensor(where.index))
        return replace(cell.site, mean, head=where.index, position=where.position)


def means_of(model: Model, behaviour: Behaviour, grid: Grid, size: int) -> Means:
    """The mean over the corrupt prompts of every site of the grid, a batch at a time.

    The mean has a batch axis of 1; its position axis holds the named positions where there are
    any, else 1 (every position, in scores and patterns).
    """
    along = grid.axes.get("position") or grid.positions
    sums: dict[Site, Tensor] = {}
    count = 0
    for start in range(0, len(behaviour), size):
        tokens = behaviour.corrupt.rows(slice(start, start + size))
        run = model.run(tokens, keep=list(grid.sites))
        pooled = along is None and "key_position" not in KINDS[grid.kind].axes
        count += int(tokens.mask.sum()) if pooled else len(tokens)
        for site in grid.sites:
            part = _summed(run, site, along, pooled)
            sums[site] = sums[site] + part if site in sums else part
    names = tuple(along) if along is not None else None
    return Means({site: total / count for site, total in sums.items()}, names)


def _summed(run: Run, site: Site, along: Sequence[Coordinate] | None, pooled: bool) -> Tensor:
    values = run[site].cpu().double()
    if pooled:
        return values[run.tokens.mask.cpu()].sum(dim=0)[None, None]
    if along is None:
        return values.sum(dim=0, keepdim=True)
    axis = _position_axis(site)
    where = positions_of(along, run.tokens).cpu()
    ends = [1] * (values.ndim - 2)
    index = where.reshape(len(where), -1, *ends).expand(-1, -1, *_without(values, axis))
    return values.movedim(axis, 1).gather(1, index).movedim(1, axis).sum(dim=0, keepdim=True)


def _without(values: Tensor, axis: int) -> list[int]:
    """The sizes of the axes other than the batch and one more."""
    return [size for i, size in enumerate(values.shape) if i not in (0, axis)]


def _position_axis(site: Site) -> int:
    axes = KINDS[site.kind].axes
    return axes.index("query_position" if "query_position" in axes else "position")


def drawn(behaviour: Behaviour, seed: int) -> Tensor:
    """For each example, the other one that stands in for it."""
    return draw_rows(len(behaviour), len(behaviour), seed)
