"""Where edges lie in models of any depth: kinds of writers and readers at relative depths.

Layer l of L lies at the depth l / L, and depths fall into equal bins, [0, 1/bins) the first. An
edge's cell is its writer's kind and bin, and its reader's; the input and the logits have no depth.
A model with fewer layers than bins leaves bins empty, so bins should be no more than layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from cutaway.circuits.graph import Graph, Reader, Writer

_WRITERS, _READERS = ("input", "head", "mlp", "neuron"), ("q", "k", "v", "kr", "mlp", "logits")


@dataclass(frozen=True, kw_only=True)
class Cells:
    """The cells of a graph's edges."""

    graph: Graph
    """The edges."""
    writers: tuple[str, ...]
    """For each writer, its kind and its bin of depth in words."""
    cell: Int[ndarray, " edge"]
    """Each edge's cell, numbered alike in every graph."""
    many: int
    """How many cells there are."""

    @classmethod
    def of(cls, graph: Graph, bins: int) -> Cells:
        """The cells of every edge of a graph."""
        writers = np.array([_number(_WRITERS, end, graph, bins) for end in graph.writers])
        readers = np.array([_number(_READERS, end, graph, bins) for end in graph.readers])
        many = len(_READERS) * bins
        names = tuple(_named(end, graph, bins) for end in graph.writers)
        return cls(
            graph=graph, writers=names, many=len(_WRITERS) * bins * many,
            cell=writers[graph.ends[:, 1]] * many + readers[graph.ends[:, 0]],
        )  # fmt: skip

    def shares(self, kept: Bool[ndarray, "reader writer"]) -> Float[ndarray, " cell"]:
        """The share of a circuit's edges in each cell."""
        return self._shares(self.cell[kept[self.graph.valid]])

    def drawn(
        self, size: int, draws: int, generator: np.random.Generator
    ) -> Float[ndarray, "draw cell"]:
        """The same of random circuits of so many edges."""
        return np.stack([
            self._shares(generator.choice(self.cell, size, replace=False)) for _ in range(draws)
        ])  # fmt: skip

    def _shares(self, cells: Int[ndarray, " edge"]) -> Float[ndarray, " cell"]:
        return np.bincount(cells, minlength=self.many) / len(cells)


def _bin(end: Writer | Reader, graph: Graph, bins: int) -> int:
    return 0 if end.layer is None else end.layer * bins // graph.n_layers


def _number(kinds: tuple[str, ...], end: Writer | Reader, graph: Graph, bins: int) -> int:
    return kinds.index(end.kind) * bins + _bin(end, graph, bins)


def _named(writer: Writer, graph: Graph, bins: int) -> str:
    if writer.layer is None:
        return "input"
    first = _bin(writer, graph, bins)
    kind = {"head": "heads", "mlp": "MLPs", "neuron": "neurons"}[writer.kind]
    return f"{kind} at {first / bins:.2g}–{(first + 1) / bins:.2g}"
