"""What every discovery method is given, and where what it has finished is kept.

A method goes through the examples in batches, or through its own steps. What each of them found is
kept in the journal, where there is one, under a key of its own; a later run takes it from there.
Nothing that is drawn depends on what was run before, so both end in the same numbers, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from cutaway.behaviours.behaviour import Behaviour
from cutaway.behaviours.metrics import Metric
from cutaway.circuits.batch import Batch
from cutaway.circuits.graph import Granularity, Graph
from cutaway.circuits.masked import Masked
from cutaway.circuits.written import Replacement
from cutaway.measure.batches import Progress
from cutaway.patch.journal import Journal

Step = Callable[[], None]
"""Called when a step is done."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A behaviour on a model, and how its edges are switched off."""

    on: Masked
    """The model."""
    behaviour: Behaviour
    """The examples."""
    metric: Metric
    """What an edge is to matter for."""
    replacement: Replacement
    """What an edge carries when it is off."""
    batch_size: int
    """Examples at a time."""
    granularity: Granularity
    """What is switched together."""
    seed: int
    """For everything that is drawn."""
    progress: Progress | None
    """Called with the steps done and their total."""
    journal: Journal | None
    """Where finished work is kept."""
    ends: tuple[np.ndarray, np.ndarray] = field(repr=False)
    """(example,) twice, filled in as batches are made: the metric with every edge on and off."""

    @property
    def graph(self) -> Graph:
        """The edges that there are."""
        return self.on.graph

    @property
    def unit(self) -> Int[np.ndarray, "reader writer"]:
        """What each edge is switched together with, by number; −1 where no edge is."""
        return self.graph.units(self.granularity)[1]

    @property
    def n_batches(self) -> int:
        """How many batches there are."""
        return -(-len(self.behaviour) // self.batch_size)

    def batches(self) -> Iterator[Batch]:
        """The examples, a batch at a time."""
        n = len(self.behaviour)
        for start in range(0, n, self.batch_size):
            where = slice(start, min(start + self.batch_size, n))
            batch = Batch(self.on, self.behaviour.rows(where), where, self.metric, self.replacement)
            for kept, found in zip(self.ends, batch.ends, strict=True):
                kept[where] = found
            yield batch

    def over_batches(self, scores: Callable[[Batch, Step], Tensor], steps: int = 1) -> np.ndarray:
        """(edge, example), from each batch's (row, reader, writer).

        `scores` calls its second argument after each of its `steps` but the last.
        """
        found: list[np.ndarray] = []
        total = steps * self.n_batches
        for number, batch in enumerate(self.batches()):
            ahead = count(number * steps + 1)
            found.append(
                self.kept(
                    f"examples from {batch.where.start}",
                    lambda batch=batch, ahead=ahead: {
                        "scores": self.edges(scores(batch, lambda: self.done(next(ahead), total)))
                    },
                )["scores"]
            )
            self.done((number + 1) * steps, total)
        return np.concatenate(found, axis=1)

    def kept(
        self, key: str, make: Callable[[], Mapping[str, np.ndarray]]
    ) -> Mapping[str, np.ndarray]:
        """What the journal has under a key, or else what is made now, and kept there."""
        found = None if self.journal is None else self.journal.finished(key)
        if found is not None:
            return found
        made = make()
        if self.journal is not None:
            self.journal.keep(key, made)
        return made

    def done(self, steps: int, total: int) -> None:
        """Report progress."""
        if self.progress is not None:
            self.progress(steps, total)

    def edges(self, scores: Tensor) -> np.ndarray:
        """(edge, row) from (row, reader, writer)."""
        valid = torch.as_tensor(self.graph.valid, device=scores.device)
        return scores[:, valid].T.cpu().numpy()
