"""A circuit as plain values: parts in their places, edges in order of rank, faithfulness by size.

The circuit of size n is the n edges of lowest rank; a `CircuitSize` says what it is worth. Names
are those of the graph (`input`, `a3.h1`, `m3`, `logits`), and `a3.kv0` for keys and values that
several heads share.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from cutaway.views.figure import ViewError
from cutaway.views.text import Estimate

NodeKind = Literal["input", "head", "kv", "mlp", "neuron", "logits"]
"""What a part is: `kv` are the keys and values of a group of heads, which only read; a `neuron`
writes by itself, and its MLP reads for it."""

_ENOUGH = 0.9


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One thing that a part attends to or writes, with how much."""

    text: str
    """A position's label, or a token."""
    value: float
    """The share of attention, or the effect, in the unit that the view names."""


@dataclass(frozen=True, kw_only=True)
class CircuitNode:
    """A part of the model."""

    name: str
    """Its name in edges: `input`, `a3.h1`, `a3.kv0`, `m3`, `m3.n17`, `logits`."""
    kind: NodeKind
    """What it is."""
    layer: int | None = None
    """Its layer; None for the input and the logits."""
    index: int | None = None
    """Its head, group or neuron; None for others, and for a key that all heads share."""
    role: str = ""
    """What it is known or believed to do, in a few words."""
    attends: tuple[Reading, ...] = ()
    """What a head attends to, most first."""
    writes: tuple[Reading, ...] = ()
    """What it writes, strongest first."""


@dataclass(frozen=True, kw_only=True)
class CircuitEdge:
    """From a part to an input of a later one."""

    source: str
    """The name of the part that writes."""
    target: str
    """The name of the part that reads."""
    port: str = ""
    """Which input of the target: `q`, `k`, `v`; `q at S2` where edges are split by position."""
    score: float
    """Its score; its sign is drawn."""
    rank: int
    """Its place in the order in which edges join the circuit, from 1."""
    inclusion: float = math.nan
    """The share of resampled data in which it is in the circuit; NaN when not measured."""


@dataclass(frozen=True, kw_only=True)
class CircuitSize:
    """What the circuit of one size is worth."""

    edges: int
    """How many edges it has."""
    faithfulness: Estimate
    """How much of the behaviour it keeps, with its interval."""
    controls: tuple[float, ...] = ()
    """The faithfulness of random circuits of its size."""


@dataclass(frozen=True, kw_only=True)
class CircuitView:
    """A circuit as it is looked at. Raises `ViewError` for what does not fit together."""

    title: str
    """A short name."""
    shows: str
    """One sentence: what it shows."""
    n_layers: int
    """Layers of the model."""
    n_heads: int
    """Query heads in a layer."""
    n_kv_heads: int
    """Key and value heads in a layer."""
    total: int
    """Edges of the whole model."""
    nodes: tuple[CircuitNode, ...]
    """The parts that are drawn in their places, in the circuit or not."""
    edges: tuple[CircuitEdge, ...]
    """The edges of the largest circuit that can be looked at."""
    sizes: tuple[CircuitSize, ...]
    """The sizes that were measured, growing. Sizes beyond `edges` are in the curve alone."""
    size: int | None = None
    """The size shown first; the smallest that keeps 0.9 of the behaviour when not given."""
    score_name: str = "score"
    """What a score is, in a few words: "effect on the logit difference"."""
    attends_name: str = "attends to"
    """What the numbers in a node's `attends` are: "attention from end"."""
    writes_name: str = "writes"
    """What the numbers in a node's `writes` are: "direct effect on the logit difference"."""
    reproduce: str = ""
    """A command or snippet that makes this view again."""

    def __post_init__(self) -> None:
        wrong = [*_wrong_nodes(self), *_wrong_edges(self), *_wrong_sizes(self)]
        if wrong:
            raise ViewError(
                f"The circuit '{self.title}' cannot be drawn: {'; '.join(wrong[:3])}; give parts, "
                "edges and sizes of one model."
            )

    @property
    def stops(self) -> tuple[CircuitSize, ...]:
        """The sizes whose edges are all there, which can be chosen."""
        return tuple(size for size in self.sizes if size.edges <= len(self.edges))

    @property
    def first(self) -> int:
        """The place in `stops` of the size that is shown first."""
        stops = self.stops
        if self.size is not None:
            return next(at for at, stop in enumerate(stops) if stop.edges == self.size)
        kept = [stop.faithfulness.mean for stop in stops]
        enough = [at for at, mean in enumerate(kept) if mean >= _ENOUGH]
        return enough[0] if enough else max(range(len(kept)), key=lambda at: (kept[at], -at))

    @property
    def ranked(self) -> tuple[CircuitEdge, ...]:
        """The edges in the order in which they join."""
        return tuple(sorted(self.edges, key=lambda edge: edge.rank))


def _wrong_nodes(view: CircuitView) -> list[str]:
    twice = [name for name, count in Counter(n.name for n in view.nodes).items() if count > 1]
    found = [f"there are two parts {name!r}" for name in twice]
    if min(view.n_layers, view.n_heads, view.n_kv_heads) < 1 or view.n_heads % view.n_kv_heads:
        found.append(
            f"{view.n_layers} layers of {view.n_heads} heads with {view.n_kv_heads} for keys and "
            "values are no model's"
        )
    most = {"head": view.n_heads, "kv": view.n_kv_heads, "neuron": math.inf}
    for node in view.nodes:
        placed = node.layer is not None and 0 <= node.layer < view.n_layers
        if placed != (node.kind not in ("input", "logits")):
            found.append(f"the {node.kind} {node.name!r} has layer {node.layer}")
        whole = node.index is None and node.kind not in ("head", "neuron")
        if not whole and not 0 <= (-1 if node.index is None else node.index) < most.get(
            node.kind, 0
        ):
            found.append(f"the {node.kind} {node.name!r} has index {node.index}")
    return found


def _wrong_edges(view: CircuitView) -> list[str]:
    known = {node.name for node in view.nodes}
    found = [
        f"the edge {edge.source!r} to {edge.target!r} ends in no part given"
        for edge in view.edges
        if not {edge.source, edge.target} <= known
    ]
    if sorted(edge.rank for edge in view.edges) != list(range(1, len(view.edges) + 1)):
        found.append(f"the {len(view.edges)} edges' ranks are not 1 to {len(view.edges)}")
    if any(not math.isfinite(edge.score) for edge in view.edges):
        found.append("a score is not a number")
    return found


def _wrong_sizes(view: CircuitView) -> list[str]:
    sizes = [size.edges for size in view.sizes]
    if not view.stops or sizes != sorted(set(sizes)) or sizes[0] < 0:
        return [f"sizes grow, and the first is at most the {len(view.edges)} edges; found {sizes}"]
    if view.size is not None and view.size not in [stop.edges for stop in view.stops]:
        return [f"size {view.size} is none of those measured"]
    return []
