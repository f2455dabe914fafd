"""Exact single-edge effects: the metric with every edge on, less that with one edge off.

This is path patching of each edge by itself (Wang et al. 2022; Goldowsky-Dill et al. 2023), done
with the planner's shortcuts rather than one pass per edge:

1. the clean run is made once, with its keys and values;
2. an edge into the logits changes the last stream alone: no layer is run;
3. for a reader of layer l, all its edges are masks of one batch, and the pass is taken up at layer
   l and at the first position at which the replacement differs; what comes before is the clean run.

The result equals one whole masked forward per edge; a test says so. Nodes and layers are switched
off with all their edges, one after another, each in a pass from its first reader on.
"""

from __future__ import annotations

import numpy as np
import torch

from cutaway.circuits.batch import Batch
from cutaway.circuits.discovery.setting import Setting, Step


def exact(setting: Setting) -> np.ndarray:
    """(edge, example)."""
    if setting.granularity != "edges":
        return _of_units(setting)
    graph, found = setting.graph, list[np.ndarray]()
    many = len(graph.readers)
    for number, batch in enumerate(setting.batches()):
        rows: list[np.ndarray] = []
        for row in range(many):
            key = f"examples from {batch.where.start}, reader {row}"
            part = setting.kept(key, lambda b=batch, row=row: {"scores": _of_reader(b, row)})
            rows.append(part["scores"])
            setting.done(number * many + row + 1, setting.n_batches * many)
        found.append(np.concatenate(rows))
    return np.concatenate(found, axis=1)


def _of_units(setting: Setting) -> np.ndarray:
    """(edge, example): each unit's own effect, at every edge of it."""
    unit = setting.unit

    def scores(batch: Batch, step: Step) -> torch.Tensor:
        found: list[np.ndarray] = []
        for number in range(int(unit.max()) + 1):
            kept = torch.as_tensor(setting.graph.valid & (unit != number), dtype=torch.float32)
            first = int(np.flatnonzero((unit == number).any(axis=1))[0])
            without = batch.values(kept[None], setting.graph.readers[first].layer)
            found.append(batch.ends[0] - without[0])
            step()
        return torch.from_numpy(np.stack(found).T[:, unit])  # what is no edge is left out

    return setting.over_batches(scores, int(unit.max()) + 1)


def _of_reader(batch: Batch, row: int) -> np.ndarray:
    """(writer, row): what each edge into one reader is worth."""
    graph = batch.on.graph
    if row == len(graph.readers) - 1:
        return batch.ends[0] - _without_each_into_the_logits(batch)
    kept = torch.as_tensor(graph.valid, dtype=torch.float32).repeat(int(graph.reach[row]), 1, 1)
    edge = torch.arange(int(graph.reach[row]))
    kept[edge, row, edge] = 0
    return batch.ends[0] - batch.values(kept, graph.readers[row].layer)


def _without_each_into_the_logits(batch: Batch) -> np.ndarray:
    """(writer, row): the metric with one writer's edge into the logits off."""
    alone = torch.eye(len(batch.on.graph.writers), device=batch.last.device, dtype=batch.last.dtype)
    rows = torch.arange(len(batch), device=batch.last.device)
    stream = batch.last[rows, batch.end].expand(1, len(alone), -1, -1)
    with torch.no_grad():
        for change in batch.changes():
            stream = change.at(rows, batch.end).added(stream, alone[None, :, change.columns])
    return np.stack([batch.numbers(batch.measure(batch.logits(one))) for one in stream[0]])
