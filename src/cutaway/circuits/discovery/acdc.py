"""ACDC: greedy removal of edges (Conmy et al. 2023, arXiv:2304.14997, algorithm 1).

1. Start with every edge on. Go through the readers from the logits back to the first layer, and
   through each one's writers from the last to the first.
2. Switch the edge off on top of what is off already. If that damages the metric by less than
   `threshold`, leave it off; else switch it on again. Damage is the growth of the divergence from
   the clean run (the paper's KL, the default metric here), or the fall of any other metric, as the
   mean over all examples.
3. A reader whose part leads to nothing that is left loses all its edges without a test.

The score of an edge is its damage when it was tried (0 where it was not), so that
`cutaway.circuits.threshold(scores, threshold, by="score")` is ACDC's own circuit, whose edges all
lead to the logits.

The algorithm is sequential, and is decided here exactly as such, but tried in batches: most edges
go, so the next edges are tried as a chain of masks, the first without one more edge, the second
without two more, and so on. As long as the decisions are to remove, the chain is what the
sequential algorithm would have tried; at the first edge that stays, the rest of the chain is thrown
away and a new one begins behind it. Chains grow while they hold, and shrink when they break. Every
pass is taken up at the reader's layer, since all readers before it are still on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from cutaway.circuits.batch import Batch
from cutaway.circuits.discovery.setting import Setting
from cutaway.circuits.graph import CircuitError, follow

_LONGEST = 64


def acdc(setting: Setting, *, threshold: float = 0.01) -> np.ndarray:
    """(edge,)."""
    if not threshold > 0:
        raise CircuitError(f"ACDC's threshold must be above 0; found {threshold!r}.")
    graph = setting.graph
    search = _Search(setting, threshold)
    total = len(graph.readers)
    for done, row in enumerate(reversed(range(total)), start=1):
        search.take(setting.kept(f"reader {row}", lambda row=row: search.reader(row)), row)
        setting.done(done, total)
    return search.damage[graph.valid]


@dataclass
class _Search:
    """The state of the greedy removal."""

    setting: Setting
    threshold: float

    def __post_init__(self) -> None:
        self.kept = self.setting.graph.valid.copy()
        self.damage = np.zeros(self.kept.shape)
        batches = list(self.setting.batches())
        self.batches: list[Batch] = batches
        self.sign = 1.0 if self.setting.metric.needs_reference else -1.0
        self.loss = self.sign * float(np.concatenate([b.ends[0] for b in batches]).mean())
        self.length = 4

    def reader(self, row: int) -> dict[str, np.ndarray]:
        """Decide every edge into one reader: the state after it."""
        graph, reader = self.setting.graph, self.setting.graph.readers[row]
        if reader.layer is None or self.kept[follow(graph, row)].any():
            self._decide(row)
        else:
            self.kept[row] = False
        numbers = np.array([self.loss, self.length])
        return {"kept": self.kept[row], "damage": self.damage[row], "numbers": numbers}

    def take(self, state: Mapping[str, np.ndarray], row: int) -> None:
        """Go on from the state after a reader, as `reader` gave it."""
        self.kept[row], self.damage[row] = state["kept"], state["damage"]
        self.loss, self.length = float(state["numbers"][0]), int(state["numbers"][1])

    def _decide(self, row: int) -> None:
        columns = list(reversed(range(int(self.setting.graph.reach[row]))))
        while columns:
            chain = columns[: self.length]
            masks = np.repeat(self.kept[None], len(chain), axis=0)
            for step, column in enumerate(chain):
                masks[step:, row, column] = False
            held = 0
            for column, loss in zip(chain, self._losses(masks, row), strict=True):
                held += 1
                self.damage[row, column] = loss - self.loss
                if self.damage[row, column] >= self.threshold:
                    break
                self.kept[row, column] = False
                self.loss = loss
            columns = columns[held:]
            whole = bool(held == len(chain) and not self.kept[row, chain[-1]])
            self.length = min(2 * self.length, _LONGEST) if whole else max(1, self.length // 2)

    def _losses(self, masks: np.ndarray, row: int) -> list[float]:
        layer = self.setting.graph.readers[row].layer
        kept = torch.as_tensor(masks, dtype=torch.float32)
        values = [batch.values(kept, layer) for batch in self.batches]
        return list(map(float, self.sign * np.concatenate(values, axis=1).mean(axis=1)))
