"""The plain way to run a sweep: one whole forward pass per cell and batch of examples.

Slow and obviously right, so that faster ways can be held against it:

1. for each batch of examples, run the clean and the corrupt prompts once; they give the metric's
   two ends, and what is put in each cell's place (see `sources`);
2. for each cell, run the base prompts with that one edit, and keep the metrics of the logits at
   `end`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cutaway.measure.batches import Progress
from cutaway.measure.finite import check_run
from cutaway.model.run import Run
from cutaway.model.sites import KINDS
from cutaway.patch.cells import Cell
from cutaway.patch.experiment import Experiment, Measured, check_output, room_for
from cutaway.patch.journal import Journal
from cutaway.patch.sources import FromRun, Means, Source, Zero, means_of, stand_ins


def run(
    asked: Experiment, progress: Progress | None = None, journal: Journal | None = None
) -> Measured:
    """Measure every cell; what the journal has is taken from there."""
    cells, n = list(asked.grid.cells()), len(asked.behaviour)
    found = room_for(asked, len(cells))
    done, means = 0, None
    for where in asked.batches:
        batch: _Batch | None = None
        kept = None if journal is None else journal.finished(f"{where.start}.ends")
        if kept is None:
            batch = _Batch(asked, where)
            kept = batch.ends()
            if journal is not None:
                journal.keep(f"{where.start}.ends", kept)
        found.clean[:, where], found.corrupt[:, where] = kept["clean"], kept["corrupt"]
        for number, cell in enumerate(cells):
            key = f"{where.start}.{number}"
            kept = None if journal is None else journal.finished(key)
            if kept is None:
                if asked.mode == "mean" and means is None:
                    means = means_of(asked.model, asked.behaviour, asked.grid, asked.batch_size)
                batch = batch or _Batch(asked, where)
                kept = {"values": batch.patched(cell, means)}
                if journal is not None:
                    journal.keep(key, kept)
            found.patched[:, number, where] = kept["values"]
            done += where.stop - where.start
            if progress is not None:
                progress(done, len(cells) * n)
    return found


class _Batch:
    """Some examples, their two plain runs, and the metrics on them."""

    def __init__(self, asked: Experiment, where: slice) -> None:
        self.asked, self.where = asked, where
        self.rows = asked.behaviour.rows(where)
        self.clean = self._plain("clean", keep=asked.mode == "denoise")
        self.corrupt = self._plain("corrupt", keep=asked.mode == "noise")
        self.base_tokens = self.rows.corrupt if asked.mode == "denoise" else self.rows.clean
        self.reference = self._end(self.clean)
        self._source: Source | None = None

    def _plain(self, prompts: str, *, keep: bool) -> Run:
        tokens = self.rows.clean if prompts == "clean" else self.rows.corrupt
        # Inside attention, kept on both sides, so that all runs go through the same kernels.
        keep = keep or KINDS[self.asked.grid.kind].interior
        run_ = self.asked.model.run(tokens, keep=list(self.asked.grid.sites) if keep else [])
        check_run(self.asked.model, run_, self.where.start, prompts)
        return run_

    def ends(self) -> dict[str, np.ndarray]:
        """Each metric (metric, row) on the clean and on the corrupt prompts."""
        return {"clean": self._measure(self.clean), "corrupt": self._measure(self.corrupt)}

    def _given(self) -> Source:
        """What fills the cells' places in this batch, means apart."""
        asked = self.asked
        if asked.mode == "zero":
            return Zero()
        if asked.mode == "resample":
            others = stand_ins(asked.behaviour, asked.grid, asked.seed).rows(self.where)
            run_ = asked.model.run(others, keep=list(asked.grid.sites))
            check_run(asked.model, run_, self.where.start, "drawn")
            return FromRun(run_)
        return FromRun(self.clean if asked.mode == "denoise" else self.corrupt)

    def patched(self, cell: Cell, means: Means | None) -> np.ndarray:
        """(metric, row): with one cell changed."""
        if self._source is None:
            self._source = self._given() if means is None else means
        edits = [self._source.edit(cell)]
        values = self._measure(self.asked.model.run(self.base_tokens, edits=edits))
        check_output(values, cell, np.arange(self.where.start, self.where.stop))
        return values

    def _measure(self, run_: Run) -> np.ndarray:
        logits = self._end(run_)
        values = [
            metric(logits, self.rows, reference=self.reference if metric.needs_reference else None)
            for metric in self.asked.metrics
        ]
        return torch.stack([each.double().cpu() for each in values]).numpy()

    def _end(self, run_: Run) -> Tensor:
        return self.rows.end_logits(run_.logits)
