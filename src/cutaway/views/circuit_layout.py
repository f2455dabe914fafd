"""Where a circuit's parts stand and how its edges run, in pixels.

Layers are columns, left to right: the heads below each other in their places, the MLP at the foot,
a little to the right because it reads the heads beside it. The input is a bar at the left and the
logits one at the right, each as tall as the columns, so that what comes from or goes to them runs
level. Levels are the gaps between the rows, which also take an edge from a part to a later one of
its own row round what stands between. Every other edge is one smooth curve from the right of a part
to the left of another: a head's query above, its key in the middle, its value below.
"""

from __future__ import annotations

from dataclasses import dataclass

from cutaway.views.circuit_values import CircuitEdge, CircuitNode, CircuitView

_ROOM, _HEADING, _BAR = 744.0, 24.0, 16.0
_FEW, _SHARPEST = 80, 14.0
_PORTS = {"q": -0.3, "k": 0.0, "v": 0.3}


@dataclass(frozen=True)
class Box:
    """A part's rectangle."""

    x: float
    """Its left side."""
    y: float
    """Its top."""
    width: float
    """Its width."""
    height: float
    """Its height."""

    @property
    def right(self) -> float:
        """Its right side."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """Its lower side."""
        return self.y + self.height

    @property
    def middle(self) -> float:
        """Half its height down."""
        return self.y + self.height / 2


@dataclass(frozen=True)
class Layout:
    """A model's parts in their places."""

    width: float
    """Of the whole drawing."""
    height: float
    """Of the whole drawing."""
    column: float
    """From a layer to the next."""
    row: float
    """From a head to the next."""
    boxes: dict[str, Box]
    """Each part's place."""
    headings: tuple[tuple[float, str], ...]
    """Where each layer's number stands, and the number."""
    labelled: bool
    """Whether the parts are wide enough for their names."""
    sparse: bool
    """Whether parts outside the circuit are few enough to be named too."""
    nodes: dict[str, CircuitNode]
    """Each part, by name."""

    def path(self, edge: CircuitEdge) -> str:
        """The way of an edge, as SVG writes it."""
        source, target = self.boxes[edge.source], self.boxes[edge.target]
        first, last = self.nodes[edge.source], self.nodes[edge.target]
        from_input, to_logits = first.kind == "input", last.kind == "logits"
        end = target.middle + _PORTS.get(edge.port[:1], 0.0) * min(target.height, self.row)
        if from_input and to_logits:
            y = source.bottom - self.row * 0.1
            return f"M{_n(source.right)},{_n(y)}H{_n(target.x)}"
        if from_input:
            return self._from_input(source, target, end)
        if to_logits:
            return self._to_logits(source, target)
        if last.kind == "mlp" and last.layer == first.layer:
            return self._down(source, target)
        if abs(end - source.middle) < 0.6 * self.row and target.x - source.right > self.column:
            return self._round(source, target, end, _PORTS.get(edge.port[:1], 0.0))
        return _curve(source.right, source.middle, target.x, end)

    def _from_input(self, source: Box, target: Box, end: float) -> str:
        turn = target.x - self.column * 0.36
        if turn <= source.right + 4:
            return f"M{_n(source.right)},{_n(end)}H{_n(target.x)}"
        level = target.y - (self.row - target.height) / 2
        return f"M{_n(source.right)},{_n(level)}H{_n(turn)}" + _bend(turn, level, target.x, end)

    def _to_logits(self, source: Box, target: Box) -> str:
        turn = source.right + self.column * 0.36
        if turn >= target.x - 4:
            return f"M{_n(source.right)},{_n(source.middle)}H{_n(target.x)}"
        level = source.bottom + (self.row - source.height) / 2
        start = f"M{_n(source.right)},{_n(source.middle)}"
        return start + _bend(source.right, source.middle, turn, level) + f"H{_n(target.x)}"

    def _down(self, source: Box, target: Box) -> str:
        """From a head to the MLP at the foot of its own column."""
        x = max(source.right + 5, target.x + target.width / 2)
        return (
            f"M{_n(source.right)},{_n(source.middle)}"
            f"C{_n(x)},{_n(source.middle)} {_n(x)},{_n(source.middle + 2)} "
            f"{_n(x)},{_n(source.middle + self.row * 0.45)}V{_n(target.y)}"
        )

    def _round(self, source: Box, target: Box, end: float, port: float) -> str:
        """To a later part of the same row, past those between."""
        reach = self.column * 0.36
        level = source.bottom + (self.row - source.height) * (0.5 + port)
        first, last = source.right + reach, target.x - reach
        return (
            f"M{_n(source.right)},{_n(source.middle)}"
            + _bend(source.right, source.middle, first, level)
            + f"H{_n(last)}"
            + _bend(last, level, target.x, end)
        )


def layout(view: CircuitView) -> Layout:
    """Places for every part, for about the width of a page and more where columns need it."""
    shared = any(node.kind == "kv" for node in view.nodes)
    column = max(68.0 if shared else 56.0, min(150.0, _ROOM / view.n_layers))
    row = max(17.0, min(34.0, 400.0 / (view.n_heads + 1)))
    width, height = min(44.0, column * 0.6), min(22.0, row * 0.72)
    left = _BAR + column * 0.34
    foot = _HEADING + (view.n_heads + 0.35) * row
    tall = (view.n_heads + 1.35) * row + 6
    boxes: dict[str, Box] = {}
    right = left + view.n_layers * column + max(0.0, width - column * 0.4)
    for node in view.nodes:
        boxes[node.name] = _box(
            node, view, column, row, (width, height), left, foot, tall, right, shared=shared
        )
    middle = left + width / 2 + (12 if shared else 0)
    headings = tuple((middle + at * column, str(at)) for at in range(view.n_layers))
    return Layout(
        width=right + _BAR + 2, height=_HEADING + tall + 4, column=column, row=row, boxes=boxes,
        headings=headings, labelled=width >= 30 and height >= 12,
        sparse=len(boxes) <= _FEW, nodes={node.name: node for node in view.nodes},
    )  # fmt: skip


def _box(
    node: CircuitNode, view: CircuitView, column: float, row: float, size: tuple[float, float],
    left: float, foot: float, tall: float, right: float, *, shared: bool,
) -> Box:  # fmt: skip
    width, height = size
    if node.kind == "input":
        return Box(0, _HEADING, _BAR, tall)
    if node.kind == "logits":
        return Box(right, _HEADING, _BAR, tall)
    x = left + (node.layer or 0) * column
    if node.kind == "mlp":
        return Box(x + column * 0.3, foot + (row - height) / 2, width, height)
    if node.kind == "kv":
        many = view.n_heads if node.index is None else view.n_heads // view.n_kv_heads
        top = _HEADING + (node.index or 0) * many * row + (row - height) / 2
        return Box(x, top, 7, (many - 1) * row + height)
    y = _HEADING + (node.index or 0) * row + (row - height) / 2
    return Box(x + (12 if shared else 0), y, width, height)


def _curve(x0: float, y0: float, x1: float, y1: float) -> str:
    return f"M{_n(x0)},{_n(y0)}" + _bend(x0, y0, x1, y1)


def _bend(x0: float, y0: float, x1: float, y1: float) -> str:
    """On from a point, level at both ends."""
    half = max((x1 - x0) / 2, _SHARPEST)
    return f"C{_n(x0 + half)},{_n(y0)} {_n(x1 - half)},{_n(y1)} {_n(x1)},{_n(y1)}"


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
