"""The planned way to run a sweep: exactly the plain way's numbers, for a fraction of the work.

For each batch of examples:

1. run the base prompts once, keeping each layer's streams and the cache of keys and values;
2. follow each cell's edit to the stream it changes (`streams`), outside of any forward pass;
3. a prompt whose stream did not change before `end` keeps the base run's metric: it is known
   without running;
4. pack the changed prompts of all cells that take up the pass at the same layer and the same
   earliest changed position, as many as the memory budget allows, and run the model's own layers
   from there on, at those positions only (`model.resume`);
5. the last layer's MLP and the final norm run at `end` only, and a metric that is linear in the
   logits reads its own tokens' logits only.

When memory runs out all the same, the pack is halved and goes on. Results do not depend on the
budget but for rounding.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from cutaway.behaviours.behaviour import Behaviour
from cutaway.behaviours.metrics import Metric
from cutaway.measure.batches import Progress
from cutaway.model.memory import free_memory, is_out_of_memory
from cutaway.model.model import Model
from cutaway.model.resume import Base, after_mlp, finish, has_halves, resume, run_base
from cutaway.model.sites import Site
from cutaway.patch.cells import Cell, Grid, MakeEdit, SweepError
from cutaway.patch.naive import Batch, Measured, check_output
from cutaway.patch.sources import Mode, means_of
from cutaway.patch.streams import Follower, Place, Stream, needed


@dataclass
class Work:
    """What a planned sweep did, counted as it went."""

    cells: int = 0
    """Cells of the grid."""
    prompts: int = 0
    """Prompts of all cells."""
    known: int = 0
    """Prompts of cells whose metric was known without running."""
    packs: int = 0
    """Packs that were run."""
    position_layers: float = 0.0
    """Positions × layers that were run."""
    naive_position_layers: float = 0.0
    """The same, had each cell been one whole forward pass."""

    def summary(self) -> dict[str, float]:
        """For provenance and tables."""
        share = self.position_layers / max(1.0, self.naive_position_layers)
        return {
            "cells": self.cells,
            "prompts": self.prompts,
            "known_without_running": self.known,
            "packs": self.packs,
            "position_layers": round(self.position_layers, 2),
            "share_of_naive_layer_work": round(share, 4),
        }


def run_cells(
    model: Model,
    behaviour: Behaviour,
    grid: Grid,
    *,
    mode: Mode,
    metric: Metric,
    batch_size: int,
    seed: int,
    progress: Progress | None,
    memory: int | None = None,
) -> tuple[Measured, Work]:
    """Measure every cell of a grid; `memory` bounds what a pack may take, in bytes."""
    if grid.kind == "head_out":
        # What every mode puts into head_out is linear in z, so z can be edited in its place.
        grid = replace(grid, kind="z")
    cells, n = list(grid.cells()), len(behaviour)
    found = Measured(patched=np.empty((len(cells), n)), clean=np.empty(n), corrupt=np.empty(n))
    means = means_of(model, behaviour, grid, batch_size) if mode == "mean" else None
    work = Work(cells=len(cells), prompts=len(cells) * n)
    done = 0
    for start in range(0, n, batch_size):
        where = slice(start, min(start + batch_size, n))
        batch = Batch(model, behaviour, where, grid, mode, metric)
        found.clean[where], found.corrupt[where] = batch.ends()
        source = means if means is not None else batch.source(seed)
        plain = found.corrupt if mode == "denoise" else found.clean
        planned = _Planned(model, batch, source.edit, plain[where], memory, work)
        for row, values in planned.measure(cells):
            check_output(values, cells[row], where.start)
            found.patched[row, where] = values
            done += 1
            if progress is not None:
                progress(done, len(cells) * -(-n // batch_size))
    return found, work


def can_plan(grid: Grid) -> bool:
    """Whether a grid's cells lie in layers; sites that exist once per model run whole."""
    return all(layer is not None for layer in grid.layers)


@dataclass
class _Pack:
    """Changed prompts that take up the pass at one place, layer and position."""

    cells: list[int] = field(default_factory=list)
    rows: list[Tensor] = field(default_factory=list)
    streams: list[Tensor] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(len(rows) for rows in self.rows)


Key = tuple[Place, int, int]


class _Planned:
    """Runs the cells of one batch of examples."""

    def __init__(
        self, model: Model, batch: Batch, make: MakeEdit, plain: np.ndarray, memory: int | None,
        work: Work,
    ) -> None:  # fmt: skip
        self.model, self.batch, self.plain, self.work = model, batch, plain, work
        tokens = batch.base_tokens
        self.base: Base = run_base(model, tokens, needed(model, batch.grid.kind))
        self.halves = not model.parallel and has_halves(model, self.base)
        self.follow = Follower(model, self.base, make, halves=self.halves)
        self.end = batch.rows.clean.labels["end"].to(model.device)
        self.width = int(tokens.ids.shape[1])
        budget = free_memory(model.device) // 2 if memory is None else memory
        self.budget = budget

    def measure(self, cells: list[Cell]) -> Iterator[tuple[int, np.ndarray]]:
        """Each cell's number and its metric per example, as packs finish."""
        waiting: dict[int, np.ndarray] = {}
        left: dict[int, int] = {}
        packs: dict[Key, _Pack] = defaultdict(_Pack)
        layer: int | None = None
        for index, cell in enumerate(cells):
            if cell.site.layer != layer:
                yield from self._flush(packs, waiting, left)
                layer = cell.site.layer
            waiting[index] = self.plain.copy()
            left[index] = 0
            for key, rows, values in self._changes(self.follow.stream(cell)):
                pack = packs[key]
                pack.cells.append(index)
                pack.rows.append(rows)
                pack.streams.append(values)
                left[index] += 1
                if len(pack) >= self._most(key):
                    self._run(key, packs.pop(key), waiting, left)
            self.work.naive_position_layers += len(self.plain) * self.width * self.model.n_layers
            yield from _finished(waiting, left)
        yield from self._flush(packs, waiting, left)

    def _flush(
        self, packs: dict[Key, _Pack], waiting: dict[int, np.ndarray], left: dict[int, int]
    ) -> Iterator[tuple[int, np.ndarray]]:
        for key in list(packs):
            self._run(key, packs.pop(key), waiting, left)
        yield from _finished(waiting, left)

    def _changes(self, stream: Stream) -> Iterator[tuple[Key, Tensor, Tensor]]:
        """The prompts that a cell changes, with the position from which it does."""
        before = self.base.run[Site(f"resid_{stream.place}", stream.layer)]
        differs = (stream.values != before).any(dim=-1)
        steps = torch.arange(self.width, device=differs.device)
        differs &= self.base.run.tokens.mask & (steps <= self.end[:, None])
        rows = differs.any(dim=1).nonzero().flatten()
        self.work.known += len(self.plain) - len(rows)
        if len(rows):
            start = int(differs[rows].int().argmax(dim=1).min())
            values = stream.values[rows, start:]
            yield (stream.place, stream.layer, start), rows, values

    def _most(self, key: Key) -> int:
        """How many prompts a pack may hold under the budget."""
        model, (_, layer, start) = self.model, key
        width, size = self.width - start, torch.empty((), dtype=model.dtype).element_size()
        neurons = 4 * model.d_model
        each = width * (10 * model.d_model + 3 * neurons) + 3 * model.n_heads * width * self.width
        cached = 4 * (model.n_layers - layer) * start * model.n_kv_heads * model.d_head
        metric = 0 if self.batch.metric.linear else 3 * model.d_vocab
        fits = self.budget // ((each + cached + metric) * size)
        if fits < 1:
            raise SweepError(
                f"A memory budget of {self.budget:,} bytes is too small for one prompt of one "
                f"cell, which needs about {(each + cached + metric) * size:,}; give more."
            )
        return int(fits)

    def _run(
        self, key: Key, pack: _Pack, waiting: dict[int, np.ndarray], left: dict[int, int]
    ) -> None:
        rows, streams = torch.cat(pack.rows), torch.cat(pack.streams)
        values = self._measured(key, rows, streams).double().cpu().numpy()
        begin = 0
        for index, its_rows in zip(pack.cells, pack.rows, strict=True):
            waiting[index][its_rows.cpu().numpy()] = values[begin : begin + len(its_rows)]
            begin += len(its_rows)
            left[index] -= 1

    def _measured(self, key: Key, rows: Tensor, streams: Tensor) -> Tensor:
        most = self._most(key)
        parts: list[Tensor] = []
        begin = 0
        while begin < len(rows):
            piece = slice(begin, begin + most)
            try:
                parts.append(
                    self._metric(rows[piece], self._at_end(key, rows[piece], streams[piece]))
                )
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or most == 1:
                    raise
                most //= 2
                continue
            begin += most
            self.work.packs += 1
        return torch.cat(parts)

    def _at_end(self, key: Key, rows: Tensor, stream: Tensor) -> Tensor:
        """What the unembedding reads at each prompt's end."""
        place, layer, start = key
        model, last = self.model, self.model.n_layers - 1
        end = self.end[rows] - start
        if place == "mid" and layer < last:
            stream, place = after_mlp(model, layer, stream), "post"
            self._count(stream, 2 / 3)
        if place == "post":
            place, layer = "pre", layer + 1
        if place == "pre" and layer <= last:
            until = Site("resid_mid", last) if self.halves else Site("resid_final")
            self._count(stream, last - layer + (1 / 3 if self.halves else 1))
            stream = resume(model, self.base, rows, layer, start, stream, until)
            place = "mid" if self.halves else "post"
        stream = stream[torch.arange(len(rows), device=rows.device), end]
        if place == "mid":
            stream = after_mlp(model, last, stream[:, None])[:, 0]
        return finish(model, stream)

    def _count(self, stream: Tensor, layers: float) -> None:
        self.work.position_layers += stream.shape[0] * stream.shape[1] * layers

    def _metric(self, rows: Tensor, final: Tensor) -> Tensor:
        metric, model = self.batch.metric, self.model
        examples = self.batch.rows.rows(rows.cpu())
        if not metric.linear:
            reference = self.batch.reference
            chosen = None if reference is None else reference[rows.to(reference.device)]
            with torch.no_grad():
                return metric(model.unembed(final), examples, reference=chosen)
        weights = metric.coefficients(examples)
        directions = model.logit_directions(weights.ids)
        logits = (directions @ final.float().to(directions.device)[:, :, None])[..., 0]
        logits = logits + model.logit_biases(weights.ids).to(logits.device)
        if model.anatomy.logit_cap is not None:
            logits = torch.tanh(logits / model.anatomy.logit_cap) * model.anatomy.logit_cap
        return (logits * weights.weights.to(logits)).sum(dim=1)


def _finished(
    waiting: dict[int, np.ndarray], left: dict[int, int]
) -> Iterator[tuple[int, np.ndarray]]:
    """The cells whose every pack has run."""
    for index in [index for index, count in left.items() if count == 0]:
        del left[index]
        yield index, waiting.pop(index)
