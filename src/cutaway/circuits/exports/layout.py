"""A record as a plain graph: nodes, the links between them, and where each node stands.

There is a node for each writer and each reader that an edge of the record ends in, by its name; an
MLP reads and writes under one name and is one node. A link is an edge, under the name
`SOURCE->TARGET`; and from each of a head's inputs there is one more link to the head, its *inside*,
so that a path from `input` to `logits` in the plain graph is a path in the circuit. `input` and
`logits` are there always.

In a graph that is split by position a reader belongs to a label and a writer to none, so that a
path may change position there where no head does. In a split graph, what an MLP reads and what it
writes are nodes of their own, with its inside between them.

Nodes stand in rows in the order in which a decoder computes: the input, then for each layer the
inputs of its heads, its heads and its MLP (in two rows where it is split), and last the logits.
"""

from __future__ import annotations

from dataclasses import dataclass

from cutaway.circuits.exports.record import Record
from cutaway.circuits.graph import Graph, Reader, Writer, led_to


@dataclass(frozen=True, kw_only=True)
class Node:
    """A writer, a reader, or an MLP, which is both."""

    name: str
    """The name of the writer or reader."""
    kind: str
    """What it is: input, head, mlp, logits, or which input of a head (q, k, v, kr)."""
    layer: int | None
    """The model's layer; None for the input and the logits."""
    row: int
    """Which row it stands in, from the input's, 0."""
    at: str | None
    """The position label of a reader in a graph that is split by position."""


@dataclass(frozen=True, kw_only=True)
class Link:
    """An edge of the record, or the inside of a head."""

    source: str
    """The node that it leaves."""
    target: str
    """The node that it enters."""
    inside: bool
    """Whether it is a head's inside and no edge."""
    score: float | None
    """An edge's score, if it has one."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Nodes and links."""

    nodes: tuple[Node, ...]
    """Every node, row by row."""
    links: tuple[Link, ...]
    """The edges in the graph's order, then the insides."""


def laid_out(record: Record) -> Layout:
    """The plain graph of a record."""
    graph = record.graph
    writers: set[Writer] = {graph.writers[0]}
    readers: set[Reader] = {graph.readers[-1]}
    links: list[Link] = []
    for name, score in record.edges.items():
        edge = graph.parse(name)
        writers.add(edge.writer)
        readers.add(edge.reader)
        links.append(
            Link(source=str(edge.writer), target=str(edge.reader), inside=False, score=score)
        )
    links += _insides(graph, writers, readers)
    nodes = {
        str(end): _node(graph, end)
        for ends in (graph.writers, graph.readers)
        for end in ends
        if end in (writers if isinstance(end, Writer) else readers)
    }
    ordered = sorted(nodes.values(), key=lambda node: node.row)
    return Layout(nodes=tuple(ordered), links=tuple(links))


def _insides(graph: Graph, writers: set[Writer], readers: set[Reader]) -> list[Link]:
    """From each reader to the writers that it leads to, where they are nodes of their own."""
    return [
        Link(source=str(reader), target=str(graph.writers[column]), inside=True, score=None)
        for reader in graph.readers
        if reader in readers
        for column in led_to(graph, reader)
        if graph.writers[column] in writers and str(graph.writers[column]) != str(reader)
    ]


def _node(graph: Graph, end: Writer | Reader) -> Node:
    at = end.at if isinstance(end, Reader) else None
    return Node(name=str(end), kind=end.kind, layer=end.layer, row=_row(graph, end), at=at)


def _row(graph: Graph, end: Writer | Reader) -> int:
    """The input is in row 0; each layer has three rows, or four where MLPs are two nodes."""
    many = 4 if graph.split else 3
    if end.layer is None:
        return 0 if end.kind == "input" else many * graph.n_layers + 1
    first = many * end.layer + 1
    if isinstance(end, Reader):
        return first + 2 if end.kind == "mlp" else first
    return first + 1 if end.kind == "head" else first + many - 1
