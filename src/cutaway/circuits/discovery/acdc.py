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

Nodes and layers are tried in the same way, from the last to the first, each with all its edges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    if setting.granularity != "edges":
        return search.of_units()
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
            edges = reversed(range(int(graph.reach[row])))
            self._decide([(np.array([row]), np.array([column])) for column in edges])
        else:
            self.kept[row] = False
        numbers = np.array([self.loss, self.length])
        return {"kept": self.kept[row], "damage": self.damage[row], "numbers": numbers}

    def take(self, state: Mapping[str, np.ndarray], row: int | slice) -> None:
        """Go on from a state, as `reader` gave it for one reader."""
        self.kept[row], self.damage[row] = state["kept"], state["damage"]
        self.loss, self.length = float(state["numbers"][0]), int(state["numbers"][1])

    def of_units(self) -> np.ndarray:
        """(edge,): each unit's damage, at every edge of it; units from the last to the first."""
        unit, graph = self.setting.unit, self.setting.graph
        many = int(unit.max()) + 1

        def decided(number: int) -> dict[str, np.ndarray]:
            self._decide([np.nonzero(unit == number)])
            numbers = np.array([self.loss, self.length])
            return {"kept": self.kept, "damage": self.damage, "numbers": numbers}

        for done, number in enumerate(reversed(range(many)), start=1):
            state = self.setting.kept(f"unit {number}", lambda number=number: decided(number))
            self.take(state, slice(None))
            self.setting.done(done, many)
        return self.damage[graph.valid]

    def _decide(self, left: Sequence[tuple[np.ndarray, ...]]) -> None:
        """Decide one after another: each the rows and columns of what is switched off together."""
        while left:
            chain = left[: self.length]
            masks = np.repeat(self.kept[None], len(chain), axis=0)
            for step, (rows, columns) in enumerate(chain):
                masks[step:, rows, columns] = False
            held = 0
            for edges, loss in zip(chain, self._losses(masks, chain), strict=True):
                held += 1
                damage = loss - self.loss
                self.damage[edges] = damage
                if damage >= self.threshold:
                    break
                self.kept[edges] = False
                self.loss = loss
            left = left[held:]
            whole = bool(held == len(chain) and not self.kept[chain[-1]].any())
            self.length = min(2 * self.length, _LONGEST) if whole else max(1, self.length // 2)

    def _losses(self, masks: np.ndarray, chain: Sequence[tuple[np.ndarray, ...]]) -> list[float]:
        first = min(int(rows.min()) for rows, _ in chain)
        layer = self.setting.graph.readers[first].layer
        kept = torch.as_tensor(masks, dtype=torch.float32)
        values = [batch.values(kept, layer) for batch in self.batches]
        return list(map(float, self.sign * np.concatenate(values, axis=1).mean(axis=1)))
