"""Where a circuit's parts stand and how its edges run, in pixels.

Layers are columns, left to right: the heads below each other in their places, the MLP at the foot,
a little to the right because it reads the heads beside it. The input is a bar at the left and the
logits one at the right, each as tall as the columns, so that what comes from or goes to them runs
level. Levels are the gaps between the rows, which also take an edge from a part to a later one of
its own row round what stands between. Every other edge is one smooth curve from the right of a part
to the left of another: a head's query above, its key in the middle, its value below. Edges that
differ only in the positions at which they are read run side by side. Single neurons are dots below
their MLP.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cutaway.views.circuit_values import CircuitEdge, CircuitNode, CircuitView

_ROOM, _HEADING, _BAR = 744.0, 24.0, 16.0
_FEW, _SHARPEST, _SPREAD = 80, 14.0, 0.4
_DOT, _DOT_GAP = 9.0, 3.0
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

    def moved(self, down: float) -> Box:
        """The same, further down."""
        return replace(self, y=self.y + down)

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
    aside: dict[tuple[str, str, str], float]
    """How far down edges are moved that would lie on one another, by source, target and port."""

    def path(self, edge: CircuitEdge) -> str:
        """The way of an edge, as SVG writes it."""
        aside = self.aside.get((edge.source, edge.target, edge.port), 0.0)
        source, target = (self.boxes[name].moved(aside) for name in (edge.source, edge.target))
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

    def _gap(self, box: Box) -> float:
        """Half the room between a part and the next one below or above it."""
        return _DOT_GAP / 2 if box.height == _DOT else (self.row - box.height) / 2

    def _from_input(self, source: Box, target: Box, end: float) -> str:
        turn = target.x - self.column * 0.36
        if turn <= source.right + 4:
            return f"M{_n(source.right)},{_n(end)}H{_n(target.x)}"
        level = target.y - self._gap(target)
        return f"M{_n(source.right)},{_n(level)}H{_n(turn)}" + _bend(turn, level, target.x, end)

    def _to_logits(self, source: Box, target: Box) -> str:
        turn = source.right + self.column * 0.36
        if turn >= target.x - 4:
            return f"M{_n(source.right)},{_n(source.middle)}H{_n(target.x)}"
        level = source.bottom + self._gap(source)
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
        level = source.bottom + self._gap(source) * (1 + 2 * port)
        first, last = source.right + reach, target.x - reach
        return (
            f"M{_n(source.right)},{_n(source.middle)}"
            + _bend(source.right, source.middle, first, level)
            + f"H{_n(last)}"
            + _bend(last, level, target.x, end)
        )


def layout(view: CircuitView) -> Layout:
    """Places for every part, for about the width of a page and more where columns need it."""
    grid = _Grid.of(view)
    boxes = {node.name: grid.box(node) for node in view.nodes}
    middle = grid.left + grid.width / 2 + grid.inset
    return Layout(
        width=grid.right + _BAR + 2, height=_HEADING + grid.tall + 4,
        column=grid.column, row=grid.row, boxes=boxes,
        headings=tuple((middle + at * grid.column, str(at)) for at in range(view.n_layers)),
        labelled=grid.width >= 30 and grid.height >= 12, sparse=len(boxes) <= _FEW,
        nodes={node.name: node for node in view.nodes}, aside=_aside(view, grid.height),
    )  # fmt: skip


@dataclass(frozen=True)
class _Grid:
    """The sizes that all places follow from."""

    view: CircuitView
    column: float
    row: float
    inset: float  # of heads, where shared keys stand before them
    dots: dict[str, tuple[int, int]]  # each neuron's column and row below its MLP

    @staticmethod
    def of(view: CircuitView) -> _Grid:
        shared = any(node.kind == "kv" for node in view.nodes)
        column = max(68.0 if shared else 56.0, min(150.0, _ROOM / view.n_layers))
        row = max(17.0, min(34.0, 400.0 / (view.n_heads + 1)))
        across = max(1, int(column * 0.66 // (_DOT + _DOT_GAP)))
        dots: dict[str, tuple[int, int]] = {}
        for layer in range(view.n_layers):
            alone = [n.name for n in view.nodes if n.kind == "neuron" and n.layer == layer]
            dots |= {name: (at % across, at // across) for at, name in enumerate(alone)}
        return _Grid(view, column, row, 12.0 if shared else 0.0, dots)

    @property
    def width(self) -> float:
        return min(44.0, self.column * 0.6)

    @property
    def height(self) -> float:
        return min(22.0, self.row * 0.72)

    @property
    def left(self) -> float:
        return _BAR + self.column * 0.34

    @property
    def right(self) -> float:
        most = max(0.0, self.width - self.column * 0.4)
        return self.left + self.view.n_layers * self.column + most

    @property
    def foot(self) -> float:
        """The top of the MLPs' row."""
        return _HEADING + (self.view.n_heads + 0.35) * self.row

    @property
    def tall(self) -> float:
        rows = max((row + 1 for _, row in self.dots.values()), default=0)
        return self.foot - _HEADING + self.row + 6 + rows * (_DOT + _DOT_GAP)

    def box(self, node: CircuitNode) -> Box:
        if node.kind in ("input", "logits"):
            return Box(0 if node.kind == "input" else self.right, _HEADING, _BAR, self.tall)
        x, above = self.left + (node.layer or 0) * self.column, (self.row - self.height) / 2
        if node.kind == "mlp":
            return Box(x + self.column * 0.3, self.foot + above, self.width, self.height)
        if node.kind == "neuron":
            across, down = (place * (_DOT + _DOT_GAP) for place in self.dots[node.name])
            return Box(x + self.column * 0.3 + across, self.foot + self.row + down, _DOT, _DOT)
        if node.kind == "kv":
            heads = self.view.n_heads
            many = heads if node.index is None else heads // self.view.n_kv_heads
            top = _HEADING + (node.index or 0) * many * self.row + above
            return Box(x, top, 7, (many - 1) * self.row + self.height)
        y = _HEADING + (node.index or 0) * self.row + above
        return Box(x + self.inset, y, self.width, self.height)


def _aside(view: CircuitView, height: float) -> dict[tuple[str, str, str], float]:
    """How far to move edges that differ only in the positions at which they are read."""
    alike: dict[tuple[str, str, float], list[str]] = {}
    for edge in view.ranked:
        way = (edge.source, edge.target, _PORTS.get(edge.port[:1], 0.0))
        alike.setdefault(way, []).append(edge.port)
    return {
        (source, target, port): height * _SPREAD * ((at + 0.5) / len(ports) - 0.5)
        for (source, target, _), ports in alike.items()
        if len(ports) > 1
        for at, port in enumerate(ports)
    }


def _curve(x0: float, y0: float, x1: float, y1: float) -> str:
    return f"M{_n(x0)},{_n(y0)}" + _bend(x0, y0, x1, y1)


def _bend(x0: float, y0: float, x1: float, y1: float) -> str:
    """On from a point, level at both ends."""
    half = max((x1 - x0) / 2, _SHARPEST)
    return f"C{_n(x0 + half)},{_n(y0)} {_n(x1 - half)},{_n(y1)} {_n(x1)},{_n(y1)}"


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
