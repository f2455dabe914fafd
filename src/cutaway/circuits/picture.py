"""A circuit's picture: scores, their order and what each size is worth, as plain values to draw.

Edges join in the order in which `discover` ranks them for the method (`RANKED_BY`), as `top_n` and
`curve` do, so that the circuit of a size is the one whose faithfulness is shown beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from cutaway.circuits.circuit import By
from cutaway.circuits.discovery import RANKED_BY
from cutaway.circuits.faithfulness import Curve, Ratio
from cutaway.circuits.graph import CircuitError, Edge, Graph, Reader, Writer
from cutaway.circuits.scores import EdgeScores
from cutaway.views.circuit_values import (
    CircuitEdge,
    CircuitNode,
    CircuitSize,
    CircuitView,
    NodeKind,
    Reading,
)
from cutaway.views.text import Estimate

MOST_EDGES = 1000
"""Edges that a view holds at most; larger sizes stand in its curve alone."""


def view(
    scores: EdgeScores,
    curve: Curve,
    *,
    title: str = "The circuit",
    shows: str = "",
    size: int | None = None,
    controls: Mapping[int, Sequence[Ratio]] | None = None,
    inclusion: Mapping[str, float] | None = None,
    roles: Mapping[str, str] | None = None,
    attends: Mapping[str, Sequence[Reading]] | None = None,
    writes: Mapping[str, Sequence[Reading]] | None = None,
    attends_name: str = "attends to",
    writes_name: str = "writes",
    most: int = MOST_EDGES,
    reproduce: str = "",
) -> CircuitView:
    """The scored circuit as values, for `cutaway.views.circuit` to draw.

    `controls` are ratios of random circuits by number of edges, `inclusion` are frequencies
    by edge, and `roles`, `attends` and `writes` say more about parts by name (`a3.h1`, `m2`).
    `size` is the number of edges shown first: one of the curve's.
    """
    graph = scores.graph
    if graph.positions:
        raise CircuitError(
            "Edges split by position are not drawn, since parts have one place; score the whole "
            "graph instead."
        )
    stops = tuple(_sizes(curve, len(graph), controls or {}))
    held = max((stop.edges for stop in stops if stop.edges <= most), default=most)
    told = roles or {}, attends or {}, writes or {}
    return CircuitView(
        title=title,
        shows=shows or _sentence(scores),
        n_layers=graph.n_layers, n_heads=graph.n_heads, n_kv_heads=graph.n_kv_heads,
        total=len(graph),
        nodes=tuple(_nodes(graph, *told)),
        edges=tuple(_edges(scores, curve.by, min(held, len(graph)), inclusion or {})),
        sizes=stops, size=size,
        score_name=_score_name(scores),
        attends_name=attends_name, writes_name=writes_name, reproduce=reproduce,
    )  # fmt: skip


def _nodes(
    graph: Graph,
    roles: Mapping[str, str],
    attends: Mapping[str, Sequence[Reading]],
    writes: Mapping[str, Sequence[Reading]],
) -> list[CircuitNode]:
    """Every writer, the groups that share keys and values, and the logits."""
    found = [
        CircuitNode(
            name=str(writer), kind=_kind(writer), layer=writer.layer, index=writer.head,
            role=roles.get(str(writer), ""),
            attends=tuple(attends.get(str(writer), ())), writes=tuple(writes.get(str(writer), ())),
        )
        for writer in graph.writers
    ]  # fmt: skip
    groups = dict.fromkeys(
        (_target(reader), reader.layer, reader.index)
        for reader in graph.readers
        if _grouped(reader)
    )
    found += [
        CircuitNode(name=name, kind="kv", layer=layer, index=index) for name, layer, index in groups
    ]
    return [*found, CircuitNode(name="logits", kind="logits")]


def _edges(
    scores: EdgeScores, by: By, many: int, inclusion: Mapping[str, float]
) -> list[CircuitEdge]:
    """The first edges in the order of rank; ties go to the earlier edge."""
    mean = scores.mean.to_numpy()
    order = np.argsort(-(np.abs(mean) if by == "magnitude" else mean), kind="stable")[:many]
    return [
        _edge(scores.graph.edges[at], float(mean[at]), rank, inclusion)
        for rank, at in enumerate(order.tolist(), start=1)
    ]


def _edge(edge: Edge, score: float, rank: int, inclusion: Mapping[str, float]) -> CircuitEdge:
    reader = edge.reader
    return CircuitEdge(
        source=str(edge.writer), target=_target(reader),
        port="" if reader.kind in ("mlp", "logits") else reader.kind,
        score=score, rank=rank, inclusion=inclusion.get(str(edge), math.nan),
    )  # fmt: skip


def _kind(writer: Writer) -> NodeKind:
    if writer.kind == "neuron":
        raise CircuitError("Single neurons are not drawn; score a graph of whole MLPs instead.")
    return writer.kind


def _grouped(reader: Reader) -> bool:
    return reader.kind == "kr" or reader.shared


def _target(reader: Reader) -> str:
    """The name of the part that a reader belongs to."""
    name = str(reader).partition("<")[0]
    return f"{name}.kv" if reader.kind == "kr" else name


def _sizes(curve: Curve, total: int, controls: Mapping[int, Sequence[Ratio]]) -> list[CircuitSize]:
    """What each size is worth; sizes that come to the same number of edges once."""
    found = curve.faithfulness
    sizes: dict[int, CircuitSize] = {}
    for at, share in enumerate(found["share"].to_numpy().tolist()):
        edges = max(1, round(share * total))
        ends = (float(found[name][at]) for name in ("mean", "low", "high"))
        beside = tuple(one.mean for one in controls.get(edges, ()))
        sizes.setdefault(
            edges, CircuitSize(edges=edges, faithfulness=Estimate(*ends), controls=beside)
        )
    return list(sizes.values())


def _score_name(scores: EdgeScores) -> str:
    """What a score is: an effect on the metric for methods that measure or estimate one."""
    effect = RANKED_BY.get(scores.method) == "magnitude"
    return f"effect on {scores.metric}" if effect else f"{scores.method} score"


def _sentence(scores: EdgeScores) -> str:
    best = scores.top(1).to_dict("records")[0]
    return (
        f"The strongest of {len(scores.graph):,} edges by {scores.method} is {best['edge']} "
        f"({best['score']:+.2f})."
    )
