"""Circuits: some edges of a model's graph, from scores or by name.

| selection | which edges |
|---|---|
| `top_n` | the n with the largest score, by magnitude or signed (see `By`) |
| `threshold` | all whose score is at least so large |
| `greedy` | from the logits backwards: the best edge that ends in a part already in |

`greedy` is the search of Hanna et al. 2024 (a heap of edges whose end is connected), so every edge
of its circuit leads to the logits. The others may pick edges that lead nowhere. `pruned` takes out
what dangles: edges out of a part that nothing in the circuit leads to from the input, and edges
into a part from which nothing leads to the logits. The second can never change the output; the
first cannot under counterfactual ablation, where such a part writes just what replaces it.

A head is one part with three inputs: an edge into any of them leads on to all edges out of it. The
heads of a group share the part's keys and values.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral, Real
from pathlib import Path
from typing import Any, cast

import networkx as nx
import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from cutaway.circuits.effects import By
from cutaway.circuits.exports import Record, from_networkx, read, to_networkx, write
from cutaway.circuits.graph import CircuitError, Edge, Granularity, Graph, feeders, follow
from cutaway.circuits.scores import EdgeScores, check_model
from cutaway.model.model import Model


@dataclass(frozen=True, kw_only=True, eq=False)
class Circuit:
    """Some edges of a graph; all others are off."""

    graph: Graph
    """The edges that there are."""
    kept: Bool[ndarray, "reader writer"] = field(repr=False)
    """True at the circuit's edges."""
    provenance: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """How it was found, on which model."""

    def __post_init__(self) -> None:
        kept = cast("object", self.kept)
        if not isinstance(kept, ndarray) or kept.dtype != bool:
            of = f" of {kept.dtype}" if isinstance(kept, ndarray | Tensor) else ""
            raise CircuitError(
                "A circuit is given as a NumPy array of True and False; found "
                f"'{type(kept).__name__}'{of}."
            )
        if self.kept.shape != self.graph.valid.shape:
            raise CircuitError(
                f"A circuit of this graph is a matrix of the shape {self.graph.valid.shape}; "
                f"found {self.kept.shape}."
            )
        stray = np.argwhere(self.kept & ~self.graph.valid)
        if len(stray):
            row, column = stray[0]
            edge = Edge(self.graph.writers[column], self.graph.readers[row])
            raise CircuitError(f"There is no edge '{edge}', but the circuit holds it; take it out.")

    @classmethod
    def of(cls, graph: Graph | Model, edges: Sequence[str | Edge]) -> Circuit:
        """The circuit of these edges. Raises `CircuitError` for one that does not exist."""
        found = Graph.of(graph) if isinstance(graph, Model) else graph
        model = {"model": _named(graph)} if isinstance(graph, Model) else {}
        return cls(graph=found, kept=found.mask(edges), provenance=model)

    def __len__(self) -> int:
        return int(self.kept.sum())

    def __contains__(self, edge: str | Edge) -> bool:
        return bool(self.kept[self.graph.at(edge)])

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        """Its edges, in the graph's order."""
        return tuple(self.graph.named(self.kept))

    @property
    def share(self) -> float:
        """The fraction of the graph's edges that it holds."""
        return len(self) / len(self.graph)

    @property
    def parts(self) -> tuple[str, ...]:
        """The input, heads and MLPs that some edge of it starts from."""
        return tuple(
            str(writer)
            for column, writer in enumerate(self.graph.writers)
            if self.kept[:, column].any()
        )

    @property
    def mask(self) -> Float[Tensor, "reader writer"]:
        """1 at its edges, 0 elsewhere: what a masked forward takes."""
        return torch.as_tensor(self.kept, dtype=torch.float32)

    def check(self, model: Model) -> None:
        """Refuse a model that the circuit is not of."""
        check_model(self.graph, self.provenance, model, "This circuit")

    def pruned(self) -> Circuit:
        """The same circuit without what dangles (see the module)."""
        kept = self.kept.copy()
        fed = np.zeros_like(kept)
        fed[:, 0] = True
        for row in range(len(kept)):
            kept[row] &= fed[row]
            if kept[row].any():
                fed[follow(self.graph, row)] = True
        useful = np.zeros(len(self.graph.readers), dtype=bool)
        useful[-1] = True
        for row in range(len(useful) - 2, -1, -1):
            rows, columns = follow(self.graph, row)
            useful[row] = bool(kept[rows & useful, columns].any())
        kept &= useful[:, None]
        return Circuit(graph=self.graph, kept=kept, provenance=self.provenance)

    def record(self, scores: EdgeScores | None = None) -> Record:
        """What a file of it says, with its edges' scores when they are given."""
        if scores is not None and scores.graph != self.graph:
            raise CircuitError("These scores are of another graph than the circuit; give its own.")
        mean = None if scores is None else scores.matrix
        edges = {
            str(edge): None if mean is None else float(mean[self.graph.at(edge)])
            for edge in self.edges
        }
        about = {"provenance": dict(self.provenance)}
        return Record(kind="circuit", graph=self.graph, edges=edges, about=about)

    @classmethod
    def of_record(cls, record: Record) -> Circuit:
        """The circuit of a record."""
        kept = record.graph.mask(list(record.edges))
        return cls(graph=record.graph, kept=kept, provenance=record.provenance)

    def save(self, path: str | Path, *, scores: EdgeScores | None = None) -> Path:
        """Write it in the format that the file's name ends in (see `exports`).

        `scores` go with the edges, as their width or weight for who draws them.
        """
        return write(self.record(scores), path)

    @classmethod
    def load(cls, path: str | Path, *, model: Model | None = None) -> Circuit:
        """Read what `save` wrote, in any of its formats; of that model, when one is given.

        Raises `CircuitError` for a file that is damaged or something else.
        """
        found = cls.of_record(read(path, "circuit"))
        if model is not None:
            found.check(model)
        return found

    def to_networkx(self, scores: EdgeScores | None = None) -> nx.DiGraph[str]:
        """A directed graph of it (see `exports.network`)."""
        return to_networkx(self.record(scores))

    @classmethod
    def from_networkx(cls, network: nx.DiGraph[str]) -> Circuit:
        """The circuit of a directed graph that `to_networkx` gave, or a part of it."""
        return cls.of_record(from_networkx(network, "circuit"))


def top_n(
    scores: EdgeScores, n: int, *, by: By = "magnitude", granularity: Granularity = "edges",
    prune: bool = False,
) -> Circuit:  # fmt: skip
    """The `n` edges with the largest scores; ties go to the earlier edge.

    With another granularity: all edges out of the `n` best heads and MLPs, or whole parts.
    """
    ranked = in_order(scores, by, granularity)
    _check_size(len(ranked), n, granularity)
    chosen = np.zeros(len(ranked), dtype=bool)
    chosen[np.argsort(-ranked, kind="stable")[:n]] = True
    settings = {"selection": "top_n", "n": n, "by": by, "granularity": granularity}
    return _made(scores, _edges_of(scores.graph, chosen, granularity), settings, prune=prune)


def threshold(
    scores: EdgeScores, least: float, *, by: By = "magnitude", granularity: Granularity = "edges",
    prune: bool = False,
) -> Circuit:  # fmt: skip
    """Every edge whose score is at least `least`; or all edges out of such heads and MLPs."""
    if not isinstance(cast("object", least), Real) or np.isnan(least):
        raise CircuitError(f"The least score that an edge must have is a number; found {least!r}.")
    chosen = in_order(scores, by, granularity) >= least
    settings = {"selection": "threshold", "least": least, "by": by, "granularity": granularity}
    return _made(scores, _edges_of(scores.graph, chosen, granularity), settings, prune=prune)


def greedy(scores: EdgeScores, n: int, *, by: By = "magnitude") -> Circuit:
    """The `n` best edges such that each leads to the logits (see the module)."""
    graph = scores.graph
    _check_size(len(graph), n, "edges")
    ranked = np.full(graph.valid.shape, -np.inf)
    ranked[graph.valid] = in_order(scores, by)
    feeding = feeders(graph)
    kept = np.zeros(graph.valid.shape, dtype=bool)
    opened, heap = set[int](), list[tuple[float, int, int]]()

    def reach(row: int) -> None:
        if row not in opened:
            opened.add(row)
            for column in range(graph.reach[row]):
                heapq.heappush(heap, (-ranked[row, column], row, column))

    reach(len(graph.readers) - 1)
    while heap and kept.sum() < n:
        _, row, column = heapq.heappop(heap)
        kept[row, column] = True
        for before, rows in feeding[column]:
            if rows[row]:
                reach(before)
    return _made(scores, kept, {"selection": "greedy", "n": n, "by": by}, prune=False)


def in_order(
    scores: EdgeScores, by: By, granularity: Granularity = "edges"
) -> Float[ndarray, " unit"]:
    """By what edges or units are ranked, the largest first.

    Raises `CircuitError` for another `by`, and where a score is not a number.
    """
    if by not in ("magnitude", "score"):
        raise CircuitError(f"Edges are ranked by 'magnitude' or 'score'; found {by!r}.")
    if granularity == "edges":
        found = scores.supporting.to_numpy()
    else:
        found = scores.units(granularity).to_numpy() * (-1 if scores.loss else 1)
    if np.isnan(found).any():
        raise CircuitError(
            f"{int(np.isnan(found).sum())} of {len(found)} {granularity} have a score that is not "
            "a number, so they cannot be ranked; discover again with prompts that give numbers."
        )
    return np.abs(found) if by == "magnitude" else found


def _edges_of(graph: Graph, chosen: np.ndarray, granularity: Granularity) -> np.ndarray:
    """The edges of the chosen units."""
    unit = graph.units(granularity)[1]
    return np.where(unit >= 0, chosen[unit], False)


def _check_size(most: int, n: int, granularity: Granularity) -> None:
    whole = isinstance(cast("object", n), Integral) and not isinstance(n, bool)
    if not whole or not 0 <= n <= most:
        raise CircuitError(f"A circuit of this graph has 0 to {most} {granularity}; found {n!r}.")


def _made(
    scores: EdgeScores, kept: np.ndarray, chosen: Mapping[str, object], *, prune: bool
) -> Circuit:
    provenance = {**scores.provenance, "selection": {**chosen, "pruned": prune}}
    found = Circuit(graph=scores.graph, kept=kept, provenance=provenance)
    return found.pruned() if prune else found


def _named(model: Model) -> dict[str, str]:
    return {"name": model.name, "fingerprint": model.fingerprint}
