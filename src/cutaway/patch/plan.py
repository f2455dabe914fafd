"""The plan of a sweep: what will be run, and what it will cost, before anything is run.

A plan is made from the tokens, the grid and the model's sizes (`chunks`), with the model's own
weights telling what its parts cost (`costs`). Its limits:

- *memory* holds the plain runs of one batch of examples (a third at most, which sets the batch's
  size) and one chunk;
- a chunk is no larger than a larger one would be faster.

`explain` says it to a person; `planned.run` carries it out. Only one thing is measured: whether
each layer's MLP follows its attention as `model.resume` can take up, on one prompt.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from cutaway.model.memory import free_memory
from cutaway.model.resume import probed
from cutaway.model.sites import Site
from cutaway.patch.cells import Cell, Grid, SweepError
from cutaway.patch.chunks import Chunk, Starts, chunks_of
from cutaway.patch.costs import Costs, costs_of, site_bytes
from cutaway.patch.experiment import Experiment
from cutaway.patch.streams import HEADWISE, is_followed, needed, place_of

_MOST_EXAMPLES = 64
_PLAIN_SHARE = 3
"""The plain runs of a batch may take one part in this many of the memory."""


@dataclass(frozen=True)
class Plan:
    """What a sweep will run; make one with `plan_sweep`."""

    experiment: Experiment
    """What was asked for, its limits chosen."""
    halves: bool
    """Whether layers are taken up between their attention and their MLP."""
    whole: str | None
    """Why every cell is one whole forward pass; None where it is not."""

    @cached_property
    def grid(self) -> Grid:
        """The cells as they are run."""
        grid = self.experiment.grid
        # What every mode puts into head_out is linear in z, so z can be edited in its place.
        return replace(grid, kind="z") if grid.kind == "head_out" and self.whole is None else grid

    @cached_property
    def cells(self) -> list[Cell]:
        """Every cell."""
        return list(self.grid.cells())

    @cached_property
    def costs(self) -> Costs:
        """What the model's parts cost."""
        return costs_of(self.experiment.model)

    def under(self, *, memory: int, batch_size: int) -> Plan:
        """The same plan under other limits."""
        asked = replace(self.experiment, memory=memory, batch_size=batch_size)
        return Plan(asked, self.halves, self.whole)

    @property
    def memory(self) -> int:
        """Bytes that the sweep may take."""
        assert self.experiment.memory is not None
        return self.experiment.memory

    def joins(self, number: int) -> int:
        """The layer whose input a cell's changed stream becomes."""
        cell = self.cells[number]
        assert cell.site.layer is not None
        place = place_of(self.experiment.model, cell, halves=self.halves)
        return cell.site.layer + (place != "pre")

    @cached_property
    def _layers_left(self) -> list[int]:
        n_layers = self.experiment.model.n_layers
        return [n_layers - self.joins(number) for number in range(len(self.cells))]

    @cached_property
    def _made(self) -> dict[int, list[Chunk]]:
        return {}

    def chunks(self, where: slice) -> list[Chunk]:
        """What is run for one batch of examples."""
        if where.start not in self._made:
            self._made[where.start] = self._chunks(where)
        return self._made[where.start]

    def _chunks(self, where: slice) -> list[Chunk]:
        starts = Starts(self.experiment.behaviour.rows(where), self.experiment.mode)
        left = self.memory - self._plain_bytes(where.stop - where.start)

        def room(start: int) -> int:
            fits = int(left // self._prompt_bytes(start))
            return max(1, min(fits, self.costs.full // (self.width - start)))

        return chunks_of(self.cells, starts, self._layers_left, self.costs, room)

    def examples_that_fit(self) -> int:
        """How many examples to run at a time under the memory budget."""
        one = self._plain_bytes(1)
        if self.whole is not None:
            fits = self.memory // (one + self.beside(1))
        else:
            fits = min(self.memory // (_PLAIN_SHARE * one), self.memory // (one + self._passing(1)))
        return max(1, min(_MOST_EXAMPLES, int(fits), len(self.experiment.behaviour)))

    def refuse_too_little(self) -> None:
        """Refuse a memory budget that a batch's plain runs and one prompt of a cell exceed."""
        prompts = min(self.experiment.batch_size, len(self.experiment.behaviour))
        least = self._plain_bytes(prompts) + self.beside(1)
        if self.memory < least:
            many = f", in batches of {prompts} examples," if prompts > 1 else ""
            raise SweepError(
                f"A memory budget of {self.memory:,} bytes is too small for one prompt of one "
                f"cell, which needs about {int(least):,}{many}; give more"
                f"{' or a smaller batch_size' if many else ''}."
            )

    # ── bytes ────────────────────────────────────────────────────────────────────────────────

    @property
    def width(self) -> int:
        """Positions of the padded prompts."""
        return int(self.experiment.behaviour.clean.ids.shape[1])

    def _plain_bytes(self, prompts: int) -> int:
        """What the plain runs of a batch keep."""
        return prompts * plain_bytes(self.experiment, self.grid, self.costs, halves=self.halves)

    def _prompt_bytes(self, start: int) -> float:
        """What a chunk takes at its worst for each prompt: the streams that join, a layer's pass,
        and the keys and values that it looks at."""
        costs = self.costs
        passing = (self.width - start) * (2 * costs.stream + costs.working)
        return passing + self.width * (2 * costs.keys + costs.repeated)

    @cached_property
    def peak(self) -> int:
        """Predicted bytes at the worst moment, beside the model and what the process held."""
        first = self.experiment.batches[0]
        prompts = first.stop - first.start
        chunks = [] if self.whole is not None else self.chunks(first)
        running = [c.prompts * self._prompt_bytes(c.start) for c in chunks]
        passing = self.beside(prompts) if self.whole is not None else self._passing(prompts)
        return int(self._plain_bytes(prompts) + max([passing, *running]))

    def _passing(self, prompts: int) -> float:
        """What a plain run takes beside what it keeps."""
        return prompts * self.width * self.costs.working

    def beside(self, prompts: int) -> float:
        """What the least that can be run takes beside the plain runs of a batch."""
        if self.whole is None:
            return prompts * self._prompt_bytes(0)
        logits = 3 * self.costs.d_vocab * self.costs.stream // self.experiment.model.d_model
        return self._passing(prompts) + prompts * self.width * logits

    # ── operations ───────────────────────────────────────────────────────────────────────────

    @cached_property
    def count(self) -> Count:
        """What will be run, counted."""
        found = Count()
        for where in self.experiment.batches:
            prompts = where.stop - where.start
            found.plain += self._plain_flops(prompts)
            found.prompts += prompts * len(self.cells)
            for chunk in [] if self.whole is not None else self.chunks(where):
                found.chunks += 1
                found.run += chunk.prompts
                for part in chunk.parts:
                    found.cells += len(part.rows) * self._flops(part.cell, chunk.start)
        whole = self.width * self.costs.forward(self.width)
        found.naive = whole * (found.prompts + 2 * len(self.experiment.behaviour))
        if self.whole is not None:
            found.cells, found.run = whole * found.prompts, found.prompts
            found.chunks = len(self.cells) * len(self.experiment.batches)
        return found

    def _flops(self, number: int, start: int) -> float:
        """Operations for one prompt of a cell, from a position on."""
        costs, last = self.costs, self.experiment.model.n_layers - 1
        cell, joins = self.cells[number], self.joins(number)
        layers = sum(costs.layer(layer, self.width) for layer in range(joins, last + 1))
        if self.halves and joins <= last:
            layers -= costs.mlp[last]
        if place_of(self.experiment.model, cell, halves=self.halves) == "mid" and joins <= last:
            layers += costs.mlp[joins - 1]
        if not is_followed(self.experiment.model, cell, halves=self.halves):
            layers += costs.layer(joins - 1, self.width) * self.width / (self.width - start)
        at_end = costs.mlp[last] if self.halves else 0.0
        linear = all(metric.linear for metric in self.experiment.metrics)
        logits = 2 if linear else costs.d_vocab
        return (self.width - start) * layers + at_end + logits * costs.logit

    def _plain_flops(self, prompts: int) -> float:
        """Operations for the plain runs of a batch, and for following edits inside of attention."""
        width, costs, n_layers = self.width, self.costs, self.experiment.model.n_layers
        streams = sum(costs.layer(layer, width) for layer in range(n_layers))
        runs = 3 if self.experiment.mode in ("mean", "resample") else 2
        inside = 0.0
        if self.grid.kind in HEADWISE:
            inside = 2 * sum(costs.attention[site.layer or 0] for site in self.grid.sites)
        return prompts * width * (runs * streams + inside)

    def summary(self) -> dict[str, object]:
        """For provenance and tables."""
        count = self.count
        return {
            "method": self.whole or "planned",
            "cells": len(self.cells),
            "prompts": count.prompts,
            "known_without_running": count.prompts - count.run,
            "chunks": count.chunks,
            "flops": count.plain + count.cells,
            "naive_flops": count.naive,
            "predicted_peak_bytes": self.peak,
        }

    def explain(self) -> str:
        """Cells, operations planned and naive, chunks and predicted memory, to be printed."""
        count, asked = self.count, self.experiment
        known = count.prompts - count.run
        lines = [
            f"{len(self.cells):,} cells of {asked.grid.kind} by {' × '.join(asked.grid.axes)}, "
            f"{asked.mode}, on {len(asked.behaviour):,} pairs of {asked.behaviour.name}",
            f"prompts      {count.prompts:,}, of which {known:,} are known without running",
        ]
        if self.whole is not None:
            lines.append(f"method       one whole forward pass per cell and batch: {self.whole}")
        planned = count.plain + count.cells
        lines += [
            f"operations   {_short(planned)}FLOP planned, {_short(count.naive)}FLOP with one "
            f"forward pass per cell ({count.naive / planned:.1f}× as many)",
            f"batches      {len(asked.batches)} of up to {asked.batch_size} examples, "
            f"{count.chunks:,} chunks",
            f"peak memory  {_short(self.peak)}B predicted, of a budget of {_short(self.memory)}B",
        ]
        return "\n".join(lines)


@dataclass
class Count:
    """What a plan will run."""

    prompts: int = 0
    """Prompts of all cells."""
    run: int = 0
    """Of these, how many have to run."""
    chunks: int = 0
    """Chunks, or whole forward passes."""
    plain: float = 0.0
    """Operations of the plain runs."""
    cells: float = 0.0
    """Operations of the cells."""
    naive: float = 0.0
    """Operations, were each cell one whole forward pass."""


def plain_bytes(experiment: Experiment, grid: Grid, costs: Costs, *, halves: bool) -> int:
    """Bytes that the plain runs keep of one example."""
    model, width = experiment.model, int(experiment.behaviour.clean.ids.shape[1])
    kept = list(needed(model, grid.sites, halves=halves))
    if experiment.mode in ("denoise", "noise", "resample"):
        kept += grid.sites
    keys = width * costs.keys * model.n_layers
    inside = 0
    if grid.kind in HEADWISE:  # z, unedited and with every head edited
        inside = 2 * sum(site_bytes(model, Site("z", s.layer), width) for s in grid.sites)
    elif not is_followed(model, next(iter(grid.cells())), halves=halves):
        inside = width * costs.stream * len(grid.sites)
    return keys + inside + 2 * width * costs.stream + sum(
        site_bytes(model, site, width) for site in kept
    )  # fmt: skip


def planned_for(experiment: Experiment, *, batch_size: int | None, whole: bool = False) -> Plan:
    """The plan of an experiment: its limits chosen, and what cannot be planned found out.

    `batch_size` None chooses one; `whole` asks for one forward pass per cell. Raises `SweepError`
    for a memory budget that is too small.
    """
    model, memory = experiment.model, experiment.memory
    if memory is None:
        memory = free_memory(model.device) // 2
    halves, reason = False, "asked for" if whole else None
    if reason is None and any(layer is None for layer in experiment.grid.layers):
        reason = f"{experiment.grid.kind!r} does not lie in a layer"
    if reason is None:
        halves, reason = probed(model)
    plan = Plan(replace(experiment, memory=memory, batch_size=1), halves, reason)
    plan.refuse_too_little()
    if batch_size is None:
        batch_size = plan.examples_that_fit()
    plan = plan.under(memory=memory, batch_size=batch_size)
    plan.refuse_too_little()
    return plan


def _short(number: float) -> str:
    """A number with the SI prefix that fits."""
    for prefix in ("", "k", "M", "G", "T", "P"):
        if number < 1000:
            return f"{number:.3g} {prefix}"
        number /= 1000
    return f"{number:.3g} E"
