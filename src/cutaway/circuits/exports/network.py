"""A record as a `networkx.DiGraph`, which GraphML and DOT are then written from and read into.

Nodes have `kind` and `row`, and where they have one `layer`, and `at`, a position label; links have
`score` where there is one, and `inside` where they are no edge (see `layout`). The graph's
attribute `cutaway` holds the record's head as JSON text. Reading back takes every link that is not
`inside` for an edge, by the names of its two ends: nodes and links that were taken out are out,
those that were put in are in if there is such an edge.
"""

from __future__ import annotations

import json
from typing import Any

import networkx as nx

from cutaway.circuits.exports.layout import laid_out
from cutaway.circuits.exports.record import Record, dumped


def to_network(record: Record) -> nx.DiGraph[str]:
    """The directed graph of a record."""
    found: nx.DiGraph[str] = nx.DiGraph(cutaway=dumped(record.head))
    layout = laid_out(record)
    for node in layout.nodes:
        where = {"layer": node.layer, "at": node.at}
        known = {name: value for name, value in where.items() if value is not None}
        found.add_node(node.name, kind=node.kind, row=node.row, **known)
    for link in layout.links:
        score = {} if link.score is None else {"score": link.score}
        found.add_edge(link.source, link.target, inside=link.inside, **score)
    return found


def from_network(network: nx.DiGraph[str]) -> Record:
    """The record of a directed graph. Raises `KeyError` or `ValueError` where it is not one."""
    edges: dict[str, float | None] = {}
    held: tuple[str, str, dict[str, Any]]
    for held in network.edges(data=True):
        source, target, data = held
        if not is_true(data.get("inside", False)):
            score = data.get("score")
            edges[f"{source}->{target}"] = None if score is None else float(score)
    return Record.of(json.loads(network.graph["cutaway"]), edges)


def is_true(value: object) -> bool:
    """A truth value, also as the text that some formats keep it as."""
    return value is True or str(value).lower() == "true"
