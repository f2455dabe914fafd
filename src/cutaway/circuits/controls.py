"""Random circuits to hold a circuit against.

- `alike`: as many edges as the circuit has between each kind of writer and each layer's readers of
  a kind, so the same size and shape;
- `outside`: as many edges, of those that are not the circuit's (or all of these, if fewer);
- `inflated`: the circuit with a random path from the input to the logits added (Shi et al. 2024),
  and the same with one of the added edges knocked out again. The path is walked backwards from the
  logits, each writer as likely; a walk that adds nothing is drawn again.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray

from cutaway.circuits.circuit import Circuit
from cutaway.circuits.graph import Graph, feeders

_TRIES = 100


def alike(circuit: Circuit, generator: np.random.Generator) -> Bool[ndarray, "reader writer"]:
    """A random circuit with as many edges from each kind of writer to each layer's readers."""
    number, ends = strata(circuit.graph), circuit.graph.ends
    kept = np.zeros_like(circuit.kept)
    for stratum in range(number.max() + 1):
        pool = ends[number == stratum]
        many = int(circuit.kept[tuple(pool.T)].sum())
        rows, columns = pool[generator.choice(len(pool), size=many, replace=False)].T
        kept[rows, columns] = True
    return kept


def strata(graph: Graph) -> Int[ndarray, " edge"]:
    """Which edges are of one shape: from one kind of writer to one layer's readers of a kind.

    Each edge's shape as a number, from 0, in the order of `graph.ends`; of one label's readers, in
    a graph that is split by position.
    """
    shapes = [
        (reader.kind, reader.layer, reader.at, graph.writers[column].kind)
        for row, column in graph.ends
        for reader in (graph.readers[row],)
    ]
    known = {shape: number for number, shape in enumerate(dict.fromkeys(shapes))}
    return np.array([known[shape] for shape in shapes])


def outside(circuit: Circuit, generator: np.random.Generator) -> Bool[ndarray, "reader writer"]:
    """As many random edges as the circuit has, none of them its own."""
    found = np.zeros_like(circuit.kept)
    free = np.argwhere(circuit.graph.valid & ~circuit.kept)
    chosen = free[generator.permutation(len(free))[: len(circuit)]]
    found[chosen[:, 0], chosen[:, 1]] = True
    return found


def inflated(
    circuit: Circuit, generator: np.random.Generator
) -> tuple[Bool[ndarray, "reader writer"], Bool[ndarray, "reader writer"]] | None:
    """The circuit with a random path, and without one edge of it; None where no path adds any."""
    fed = feeders(circuit.graph)
    for _ in range(_TRIES):
        grown = circuit.kept.copy()
        for end in _path(circuit.graph, fed, generator):
            grown[end] = True
        added = np.argwhere(grown & ~circuit.kept)
        if len(added):
            knocked = grown.copy()
            row, column = added[generator.integers(len(added))]
            knocked[row, column] = False
            return grown, knocked
    return None


def _path(
    graph: Graph, fed: list[list[tuple[int, np.ndarray]]], generator: np.random.Generator
) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    row = len(graph.readers) - 1
    while True:
        column = int(generator.integers(graph.reach[row]))
        found.append((row, column))
        before = [earlier for earlier, rows in fed[column] if rows[row]]
        if not before:
            return found
        row = int(generator.choice(before))
