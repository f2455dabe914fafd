"""Comparison of circuits: across behaviours, seeds, methods, and models of one family.

**In one graph** (models built alike count as one), pair by pair and at two levels, `edges` and
`nodes` (the heads and MLPs that an edge starts from; the input is in nearly every circuit and says
nothing): what is shared, as a share of what is in either (Jaccard); what would be by chance, and
how likely chance has as much (`overlap`). Two kinds of chance:

- `size`: circuits with as many edges (or nodes);
- `shape`: circuits with as many between each kind of writer and each layer's readers of a kind (or
  as many nodes of each kind in each layer, so that an MLP, alone in its layer, proves nothing).

Where scores are given, they are compared as well: Spearman's rank correlation over all edges, which
does not depend on where circuits were cut.

**In different graphs** heads have no counterparts, and only where the edges lie can be compared
(`by="depth"`): an edge goes from a kind of writer at some depth to a kind of reader at some depth,
depth in `bins` equal parts of the model. Two circuits share Σ min(p, q) of their edges'
distributions over these cells, 1 when they lie alike. Chance is random circuits of the same sizes,
`draws` of them; at this level there is no other.

`parts` says which components are reused: the weight of every part in every circuit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal, get_args

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import spearmanr

from cutaway.behaviours.provenance import version
from cutaway.circuits.circuit import Circuit
from cutaway.circuits.comparison import PAIR, Comparison, Null
from cutaway.circuits.controls import strata
from cutaway.circuits.depth import Cells
from cutaway.circuits.graph import CircuitError, Graph
from cutaway.circuits.overlap import Chance, against_chance
from cutaway.circuits.scores import EdgeScores

By = Literal["edges", "depth"]
"""Whether circuits are held together edge by edge, or by where their edges lie."""


def compare(
    circuits: Mapping[str, Circuit],
    *,
    scores: Mapping[str, EdgeScores] | None = None,
    by: By = "edges",
    bins: int = 4,
    draws: int = 200,
    seed: int = 0,
) -> Comparison:
    """Hold circuits together, pair by pair; see the module.

    `scores`, by the circuits' names, weigh their edges and are compared with each other. `bins`,
    `draws` and `seed` are for `by="depth"`. Raises `CircuitError` for fewer than two circuits, and
    for circuits of different graphs unless they are compared by depth.
    """
    names, given = list(circuits), dict(scores or {})
    _check(circuits, given, by, bins, draws)
    cells = {name: Cells.of(circuit.graph, bins) for name, circuit in circuits.items()}
    similarity, expected, p = (_empty(names, by, null) for null in (False, True, True))
    generator = np.random.default_rng(seed)
    for one, other in combinations(names, 2):
        found = (
            _by_depth(circuits, cells, one, other, draws, generator) if by == "depth"
            else _by_edges(circuits[one], circuits[other])
        )  # fmt: skip
        for (null, level), chance in found.items():
            for at in ({"circuit": one, "other": other}, {"circuit": other, "other": one}):
                similarity.loc[{**at, "level": level}] = chance.jaccard
                expected.loc[{**at, "level": level, "null": null}] = chance.expected
                p.loc[{**at, "level": level, "null": null}] = chance.p
    for name in names:
        similarity.loc[{"circuit": name, "other": name}] = 1.0
    settings = {"by": by} | ({"bins": bins, "draws": draws, "seed": seed} if by == "depth" else {})
    return Comparison(
        similarity=similarity, expected=expected, p=p,
        rank_correlation=_rank_correlations(names, given),
        sizes=_sizes(circuits, by), weights=_weights(circuits, given, cells, by),
        provenance={
            "versions": {"cutaway": version()}, "configuration": settings,
            "circuits": {name: dict(circuit.provenance) for name, circuit in circuits.items()},
        },
    )  # fmt: skip


def _check(
    circuits: Mapping[str, Circuit],
    scores: Mapping[str, EdgeScores],
    by: str,
    bins: int,
    draws: int,
) -> None:
    if by not in get_args(By):
        raise CircuitError(f"Circuits are compared by 'edges' or 'depth'; found {by!r}.")
    if len(circuits) < 2:
        raise CircuitError(f"A comparison needs two circuits or more; found {len(circuits)}.")
    empty = [name for name, circuit in circuits.items() if not len(circuit)]
    if empty:
        raise CircuitError(f"The circuit {empty[0]!r} has no edge to compare; choose more edges.")
    for name, one in scores.items():
        if name not in circuits or one.graph != circuits[name].graph:
            raise CircuitError(
                f"The scores {name!r} belong to no circuit here of that name and graph; name "
                "scores as their circuits are."
            )
    if bins < 1 or draws < 1:
        raise CircuitError(f"bins and draws count from 1; found {bins} and {draws}.")
    first, *rest = circuits.items()
    for name, circuit in rest:
        if by == "edges" and circuit.graph != first[1].graph:
            raise CircuitError(
                f"The circuits {first[0]!r} and {name!r} are of different graphs, of models built "
                "otherwise or split otherwise, so their edges have no counterparts; compare "
                "by='depth'."
            )


def _empty(names: Sequence[str], by: By, null: bool) -> xr.DataArray:
    levels = ["depth"] if by == "depth" else ["edges", "nodes"]
    coords = {"null": list(get_args(Null)), "level": levels, "circuit": names, "other": names}
    if not null:
        del coords["null"]
    shape = [len(values) for values in coords.values()]
    return xr.DataArray(np.full(shape, np.nan), coords, tuple(coords))


# ── one graph ────────────────────────────────────────────────────────────────────────────────


def _by_edges(one: Circuit, other: Circuit) -> dict[tuple[Null, str], Chance]:
    graph = one.graph
    edges = (one.kept[graph.valid], other.kept[graph.valid])
    nodes = (_held(one), _held(other))
    return {
        ("size", "edges"): against_chance(*edges, np.zeros(len(edges[0]), dtype=int)),
        ("shape", "edges"): against_chance(*edges, strata(graph)),
        ("size", "nodes"): against_chance(*nodes, np.zeros(len(nodes[0]), dtype=int)),
        ("shape", "nodes"): against_chance(*nodes, _places(graph)),
    }


def _held(circuit: Circuit) -> np.ndarray:
    """(writer,): which heads and MLPs an edge of it starts from; the input is left out."""
    return np.any(circuit.kept[:, 1:], axis=0)


def _places(graph: Graph) -> np.ndarray:
    """Which heads and MLPs are of one kind in one layer, as numbers."""
    places = [(writer.kind, writer.layer) for writer in graph.writers[1:]]
    known = {place: number for number, place in enumerate(dict.fromkeys(places))}
    return np.array([known[place] for place in places])


# ── any graphs ───────────────────────────────────────────────────────────────────────────────


def _by_depth(
    circuits: Mapping[str, Circuit], cells: Mapping[str, Cells], one: str, other: str,
    draws: int, generator: np.random.Generator,
) -> dict[tuple[Null, str], Chance]:  # fmt: skip
    shares = [cells[name].shares(circuits[name].kept) for name in (one, other)]
    drawn = [cells[name].drawn(len(circuits[name]), draws, generator) for name in (one, other)]
    found = float(np.minimum(*shares).sum())
    chance = np.minimum(*drawn).sum(axis=1)
    reached = int((chance >= found - 1e-12).sum())
    return {
        ("size", "depth"): Chance(
            shared=0, jaccard=found, expected=float(chance.mean()), p=(1 + reached) / (1 + draws)
        )
    }


# ── sizes, scores, parts ─────────────────────────────────────────────────────────────────────


def _sizes(circuits: Mapping[str, Circuit], by: By) -> xr.DataArray:
    sizes = {"edges": [len(circuit) for circuit in circuits.values()]}
    if by == "depth":
        sizes = {"depth": sizes["edges"]}
    else:
        sizes["nodes"] = [int(_held(circuit).sum()) for circuit in circuits.values()]
    coords = {"level": list(sizes), "circuit": list(circuits)}
    return xr.DataArray(np.array(list(sizes.values())), coords, ("level", "circuit"))


def _rank_correlations(names: Sequence[str], scores: Mapping[str, EdgeScores]) -> xr.DataArray:
    found = xr.DataArray(
        np.full((len(names), len(names)), np.nan), {name: list(names) for name in PAIR}, PAIR
    )
    for one, other in combinations([name for name in names if name in scores], 2):
        first, second = scores[one], scores[other]
        if first.graph == second.graph:
            rho = float(spearmanr(first.mean.to_numpy(), second.mean.to_numpy()).statistic)
            found.loc[{"circuit": one, "other": other}] = rho
            found.loc[{"circuit": other, "other": one}] = rho
    return found


def _weights(
    circuits: Mapping[str, Circuit], scores: Mapping[str, EdgeScores],
    cells: Mapping[str, Cells], by: By,
) -> xr.DataArray:  # fmt: skip
    columns: dict[str, pd.Series[float]] = {}
    for name, circuit in circuits.items():
        weight = np.where(circuit.kept, 1.0, 0.0)
        if name in scores:
            weight = np.where(circuit.kept, np.abs(scores[name].matrix), 0.0)
        by_writer = weight.sum(axis=0) / (weight.sum() or 1.0)
        parts = cells[name].writers if by == "depth" else map(str, circuit.graph.writers)
        columns[name] = pd.Series(by_writer, index=list(parts)).groupby(level=0, sort=False).sum()
    table = pd.DataFrame(columns).fillna(0.0)
    return xr.DataArray(
        table.to_numpy(), {"part": list(table.index), "circuit": list(columns)},
        ("part", "circuit"),
    )  # fmt: skip
