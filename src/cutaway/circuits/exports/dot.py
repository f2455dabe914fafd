"""DOT, the language of Graphviz: `dot -Tsvg circuit.dot -o circuit.svg` draws a circuit.

Layout hints: the stream goes upwards (`rankdir=BT`), and each row of the layout is one rank. A link
is as wide as its score is large, red where the score is negative; the insides of heads are dotted.

Every name and value is written as a quoted string. In one, DOT knows two escapes that matter: `\\"`
is a quote, and `\\\\` keeps a backslash from escaping what follows. Reading takes the whole of the
language but for HTML strings: comments, quoted strings and their concatenation by `+`, subgraphs,
defaults of attributes (which are passed over, being no part of a record), and chains `a -> b -> c`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import pairwise

import networkx as nx

from cutaway.circuits.exports.layout import Layout, Link, Node, laid_out
from cutaway.circuits.exports.network import from_network
from cutaway.circuits.exports.record import Record, dumped

_TOKEN = re.compile(
    r"""(?P<skip>\s+|//[^\n]*|/\*.*?\*/|^\#[^\n]*)
    |"(?P<quoted>(?:[^"\\]|\\.)*)"
    |(?P<mark>->|--|[\[\]{};,=:+])
    |(?P<word>[^\W\d]\w*|-?(?:\.\d+|\d+(?:\.\d*)?))""",
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
_SHAPES = {
    "input": "house",
    "logits": "invhouse",
    "head": "ellipse",
    "mlp": "box",
    "neuron": "diamond",
}
_POSITIVE, _NEGATIVE, _NEUTRAL = "#2b5f9e", "#b3362b", "#555555"


def write(record: Record) -> str:
    """The DOT text of a record."""
    layout = laid_out(record)
    lines = [
        "digraph circuit {",
        f"  graph [rankdir=BT, ranksep=0.6, cutaway={quoted(dumped(record.head))}];",
        '  node [fontname="Helvetica", fontsize=11];',
        "  edge [arrowsize=0.6];",
    ]
    lines += list(_rows(layout))
    largest = max((abs(link.score or 0.0) for link in layout.links), default=0.0)
    lines += [_link(link, largest) for link in layout.links]
    return "\n".join([*lines, "}", ""])


def quoted(text: str) -> str:
    """A DOT string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _rows(layout: Layout) -> Iterator[str]:
    rows: dict[int, list[Node]] = defaultdict(list)
    for node in layout.nodes:
        rows[node.row].append(node)
    for row, nodes in sorted(rows.items()):
        yield f"  subgraph row_{row} {{"
        yield "    rank=same;"
        for node in nodes:
            attributes = {"kind": node.kind, "shape": _SHAPES.get(node.kind, "plain")}
            yield f"    {quoted(node.name)} [{_listed(attributes)}];"
        yield "  }"


def _link(link: Link, largest: float) -> str:
    attributes: dict[str, str]
    if link.inside:
        attributes = {"inside": "true", "style": "dotted", "arrowhead": "none"}
    elif link.score is None:
        attributes = {"color": _NEUTRAL}
    else:
        width = 0.4 + 3.6 * (abs(link.score) / largest if largest else 0.0)
        colour = _NEGATIVE if link.score < 0 else _POSITIVE
        attributes = {"score": repr(link.score), "penwidth": f"{width:.2f}", "color": colour}
    return f"  {quoted(link.source)} -> {quoted(link.target)} [{_listed(attributes)}];"


def _listed(attributes: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={quoted(value)}" for name, value in attributes.items())


# ── reading ──────────────────────────────────────────────────────────────────────────────────


def read(text: str) -> Record:
    """The record of a DOT text. Raises `ValueError` or `KeyError` where it is not one."""
    return from_network(_Reader(text).graph())


class _Reader:
    """A recursive descent over the tokens: (kind, text), the kind "id" or the mark itself."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._at = 0
        self._found: nx.DiGraph[str] = nx.DiGraph()

    def graph(self) -> nx.DiGraph[str]:
        opening = [self._id().lower()]
        if opening == ["strict"]:
            opening.append(self._id().lower())
        if opening[-1] != "digraph":
            raise ValueError(f"it begins with {opening[-1]!r} and not with 'digraph'")
        if self._next() == "id":
            self._id()
        self._body()
        if self._next():
            raise ValueError("something follows its end")
        return self._found

    def _next(self) -> str:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    def _take(self, kind: str) -> str:
        if self._next() != kind:
            raise ValueError(f"it has {self._next() or 'its end'!r} in place of {kind!r}")
        self._at += 1
        return self._tokens[self._at - 1][1]

    def _passes(self, *kinds: str) -> bool:
        if self._next() not in kinds or not self._next():
            return False
        self._at += 1
        return True

    def _id(self) -> str:
        found = self._take("id")
        while self._passes("+"):
            found += self._take("id")
        return found

    def _body(self) -> list[str]:
        """`{ … }`; gives the nodes that are named in it."""
        self._take("{")
        named: list[str] = []
        while not self._passes("}"):
            named += self._statement()
            self._passes(";", ",")
        return named

    def _statement(self) -> list[str]:
        start = self._at
        if self._next() == "id":
            name = self._id()
            if self._passes("="):
                self._found.graph.setdefault(name, self._id())
                return []
            if name in ("graph", "node", "edge") and self._next() == "[":
                attributes = self._attributes()
                if name == "graph":
                    self._found.graph.update(attributes)
                return []
            self._at = start
        chain = [self._end()]
        while self._passes("->"):
            chain.append(self._end())
        attributes = self._attributes()
        for sources, targets in pairwise(chain):
            self._found.add_edges_from(((a, b) for a in sources for b in targets), **attributes)
        named = [name for names in chain for name in names]
        if len(chain) == 1:
            self._found.add_nodes_from(named)
        return named

    def _end(self) -> list[str]:
        """A node, without its port, or a subgraph's nodes."""
        if self._next() == "{":
            return self._body()
        name = self._id()
        if name == "subgraph":
            if self._next() == "id":
                self._id()
            return self._body()
        while self._passes(":"):
            self._id()
        return [name]

    def _attributes(self) -> dict[str, str]:
        found: dict[str, str] = {}
        while self._passes("["):
            while not self._passes("]"):
                name = self._id()
                found[name] = self._id() if self._passes("=") else "true"
                self._passes(";", ",")
        return found


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise ValueError(f"{text[at : at + 10]!r} is no DOT")
        at = found.end()
        if found["quoted"] is not None:
            plain = found["quoted"].replace("\\\n", "")
            yield "id", re.sub(r'\\(["\\])', r"\1", plain)
        elif found["word"]:
            yield "id", found["word"]
        elif found["mark"]:
            yield found["mark"], found["mark"]
