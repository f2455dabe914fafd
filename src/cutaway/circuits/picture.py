"""A circuit's picture: scores, their order and what each size is worth, as plain values to draw.

Edges join in the order in which `discover` ranks them for the method (`RANKED_BY`), as `top_n` and
`curve` do, so that the circuit of a size is the one whose faithfulness is shown beside it. An edge
that supports the behaviour is drawn as positive, also where the metric is a loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set

import numpy as np

from cutaway.circuits.circuit import in_order
from cutaway.circuits.effects import RANKED_BY, By
from cutaway.circuits.faithfulness import Curve, Ratio
from cutaway.circuits.graph import Edge, Graph, Reader, Writer
from cutaway.circuits.scores import EdgeScores
from cutaway.views.circuit_values import (
    CircuitEdge,
    CircuitNode,
    CircuitSize,
    CircuitView,
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
    stops = tuple(_sizes(curve, len(graph), controls or {}))
    held = max((stop.edges for stop in stops if stop.edges <= most), default=most)
    edges = _edges(scores, curve.by, min(held, len(graph)), inclusion or {})
    told = roles or {}, attends or {}, writes or {}
    return CircuitView(
        title=title,
        shows=shows or _sentence(scores),
        n_layers=graph.n_layers, n_heads=graph.n_heads, n_kv_heads=graph.n_kv_heads,
        total=len(graph),
        nodes=tuple(_nodes(graph, {edge.source for edge in edges}, *told)),
        edges=tuple(edges),
        sizes=stops, size=size,
        score_name=_score_name(scores),
        attends_name=attends_name, writes_name=writes_name, reproduce=reproduce,
    )  # fmt: skip


def _nodes(
    graph: Graph,
    writing: Set[str],
    roles: Mapping[str, str],
    attends: Mapping[str, Sequence[Reading]],
    writes: Mapping[str, Sequence[Reading]],
) -> list[CircuitNode]:
    """Every writer, of neurons those in some edge; the groups that share keys and values, and the
    logits."""
    found = [
        CircuitNode(
            name=name, kind=writer.kind, layer=writer.layer,
            index=writer.neuron if writer.kind == "neuron" else writer.head,
            role=roles.get(name, ""), attends=tuple(attends.get(name, ())),
            writes=tuple(writes.get(name, ())),
        )
        for writer, name in ((writer, _source(writer)) for writer in graph.writers)
        if writer.kind != "neuron" or name in writing
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
    shown = scores.supporting.to_numpy()
    order = np.argsort(-in_order(scores, by), kind="stable")[:many]
    return [
        _edge(scores.graph.edges[at], float(shown[at]), rank, inclusion)
        for rank, at in enumerate(order.tolist(), start=1)
    ]


def _edge(edge: Edge, score: float, rank: int, inclusion: Mapping[str, float]) -> CircuitEdge:
    reader = edge.reader
    return CircuitEdge(
        source=_source(edge.writer), target=_target(reader), port=_port(reader),
        score=score, rank=rank, inclusion=inclusion.get(str(edge), math.nan),
    )  # fmt: skip


def _source(writer: Writer) -> str:
    """The name of the part that writes; what is left of a split MLP stands for it."""
    return writer.part if writer.rest else str(writer)


def _port(reader: Reader) -> str:
    """Which input of the part, and at which positions where they are split: `q at S2`."""
    kind = "" if reader.kind in ("mlp", "logits") else reader.kind
    return kind if reader.at is None else f"{kind} at {reader.at}".strip()


def _grouped(reader: Reader) -> bool:
    return reader.kind == "kr" or reader.shared


def _target(reader: Reader) -> str:
    """The name of the part that a reader belongs to."""
    name = str(reader).partition("@")[0].partition("<")[0]
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
    if scores.loss:
        return f"rise of {scores.metric} without it"
    return f"effect on {scores.metric}" if effect else f"{scores.method} score"


def _sentence(scores: EdgeScores) -> str:
    best = scores.top(1).to_dict("records")[0]
    return (
        f"The strongest of {len(scores.graph):,} edges by {scores.method} is {best['edge']} "
        f"({best['score'] * (-1 if scores.loss else 1):+.2f})."
    )
