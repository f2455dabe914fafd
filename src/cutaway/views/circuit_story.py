"""A circuit as a busy person reads it: the few parts that matter, grouped, left to right.

1. Edges between the same two parts are added up; a neuron counts as its MLP, and shared keys and
   values as the heads of their group that write in the circuit, in equal shares.
2. Of the parts that both read and write, those that the most passes through (the sum of their
   edges' magnitudes) are kept, at most nine; how many are left out is said below.
3. Parts of one layer with the same role share a box, which names the role and the parts.
4. Boxes stand in columns by depth, heads above and MLPs below, between the prompt at the left and
   the answer at the right. An arrow is as wide as what it carries; one that has to pass a box goes
   round it, above the heads, below the MLPs, or between the two.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from markupsafe import Markup

from cutaway.views.circuit_story_layout import (
    BAR,
    GAP,
    HEADING,
    LANE,
    PAD,
    PILL,
    PILL_GAP,
    Box,
    Placed,
    lane_of,
    place,
    short,
)  # fmt: skip
from cutaway.views.circuit_values import CircuitNode, CircuitView
from cutaway.views.figure import Figure, Table
from cutaway.views.svg import drawing, hint, label, rectangle, tag
from cutaway.views.text import decimals, number

_MOST = 9
_THINNEST, _WIDEST, _TIP = 1.5, 11.0, 8.0
_WEAK = 0.02
"""Arrows that carry less than this share of the widest are left out."""


def story(view: CircuitView, *, reproduce: str = "") -> Figure:
    """Draw what matters of a circuit at its first size."""
    flows = _flows(view)
    kept, left_out = _kept(view, flows)
    boxes = _boxes(view, kept)
    arrows = _between(boxes, flows)
    placed = place(boxes, arrows)
    most = max((abs(carried) for carried in arrows.values()), default=1.0)
    drawn = [_arrow(placed, *ends, carried, most) for ends, carried in arrows.items()]
    order = [part for box in boxes for part in box.parts]
    parts = [*drawn, *(part for box in boxes for part in _drawn(placed, box, order))]
    parts += _headings(placed)
    said = _said(arrows)
    alt = f"{view.title}, in short. {said}"
    floor = placed.height
    parts += _legend(floor + 20, left_out, any(carried < 0 for carried in arrows.values()))
    return Figure(
        svg=drawing(placed.width, floor + 30, alt, parts, data_grid="parts"),
        title=f"{view.title}, in short",
        shows=said,
        alt=alt,
        table=_table(arrows, view),
        reproduce=reproduce or view.reproduce,
    )


# ── what is drawn ────────────────────────────────────────────────────────────────────────────


def _flows(view: CircuitView) -> dict[tuple[str, str], float]:
    """What each pair of parts carries in the circuit shown."""
    shown = view.ranked[: view.stops[view.first].edges]
    senders = {edge.source for edge in shown}
    nodes = {node.name: node for node in view.nodes}
    flows: dict[tuple[str, str], float] = defaultdict(float)
    for edge in shown:
        readers = [edge.target.partition(".n")[0]]
        if (target := nodes[edge.target]).kind == "kv":
            readers = [node.name for node in view.nodes
                       if _of_group(view, node, target) and node.name in senders]  # fmt: skip
        for reader in readers:
            flows[edge.source.partition(".n")[0], reader] += edge.score / len(readers)
    return dict(flows)


def _of_group(view: CircuitView, node: CircuitNode, group: CircuitNode) -> bool:
    """Whether a head reads these shared keys and values."""
    if node.kind != "head" or node.layer != group.layer:
        return False
    many = view.n_heads // view.n_kv_heads
    return group.index is None or (node.index or 0) // many == group.index


def _kept(view: CircuitView, flows: dict[tuple[str, str], float]) -> tuple[list[CircuitNode], int]:
    """The parts that most passes through, in their order, and how many more there are."""
    through: dict[str, float] = defaultdict(float)
    ends = [{names[at] for names in flows} for at in (0, 1)]
    for names, carried in flows.items():
        for name in names:
            through[name] += abs(carried)
    inner = [
        node
        for node in view.nodes
        if node.kind in ("head", "mlp") and all(node.name in names for names in ends)
    ]
    ranked = sorted(inner, key=lambda node: -through[node.name])[:_MOST]
    return [node for node in inner if node in ranked], len(inner) - len(ranked)


def _boxes(view: CircuitView, kept: Sequence[CircuitNode]) -> list[Box]:
    """Parts of one layer, kind and role together, in columns by depth."""
    groups: dict[tuple[int, bool, str], list[CircuitNode]] = defaultdict(list)
    for node in kept:
        groups[node.layer or 0, node.kind == "mlp", node.role].append(node)
    columns = sorted({(layer, mlp) for layer, mlp, _ in groups})
    place = {key: at for at, key in enumerate(columns, start=1)}
    inner = [
        Box(tuple(nodes), role, place[layer, mlp]) for (layer, mlp, role), nodes in groups.items()
    ]
    ends = {node.kind: node for node in view.nodes if node.kind in ("input", "logits")}
    return [
        Box((ends["input"],), "", 0), *sorted(inner, key=lambda box: box.column),
        Box((ends["logits"],), "", len(columns) + 1),
    ]  # fmt: skip


def _between(
    boxes: Sequence[Box], flows: dict[tuple[str, str], float]
) -> dict[tuple[Box, Box], float]:
    """What passes from box to box, without what is too weak to be seen."""
    holder = {part.name: box for box in boxes for part in box.parts}
    found: dict[tuple[Box, Box], float] = defaultdict(float)
    for (source, target), carried in flows.items():
        if source in holder and target in holder and holder[source] != holder[target]:
            found[holder[source], holder[target]] += carried
    most = max((abs(carried) for carried in found.values()), default=0.0)
    ordered = sorted(found.items(), key=lambda one: -abs(one[1]))
    return {ends: carried for ends, carried in ordered if abs(carried) >= _WEAK * most}


# ── drawing ──────────────────────────────────────────────────────────────────────────────────


def _arrow(placed: Placed, source: Box, target: Box, carried: float, most: float) -> Markup:
    """From the right of a box to the left of another, with a tip."""
    wide = _THINNEST + (_WIDEST - _THINNEST) * abs(carried) / most
    lane = lane_of(placed.boxes, source, target)
    inner = target if source.end else source
    x0, x1 = placed.x[source] + source.width, placed.x[target] - _TIP
    levels = [_level(placed, source, inner, lane), _level(placed, target, inner, lane)]
    way = f"M{x0:.1f},{levels[0]:.1f}"
    if lane is None:
        way += _bend(x0, levels[0], x1, levels[1])
    else:
        base = (placed.above, placed.between, placed.below)[lane]
        step = placed.used[base]
        placed.used[base] += 1
        at = base + LANE * (step if lane else -step)
        first, last = x0 + GAP * 0.8, x1 - GAP * 0.8
        way += _bend(x0, levels[0], first, at) + f"H{last:.1f}" + _bend(last, at, x1, levels[1])
    kind = "negative" if carried < 0 else "positive"
    half = max(4.0, wide * 0.75)
    tip = (
        f"{x1 - 1:.1f},{levels[1] - half:.1f} {x1 - 1:.1f},{levels[1] + half:.1f} "
        f"{x1 + _TIP:.1f},{levels[1]:.1f}"
    )
    said = f"{_called(source)} → {_called(target)}: {number(carried, decimals(most), sign=True)}"
    dashes = f"{5 + wide:.1f} {2 + wide / 2:.1f}" if carried < 0 else None
    return tag(
        "g", hint(said),
        tag("path", d=way, stroke_width=round(wide, 1), stroke_dasharray=dashes,
            class_=f"edge {kind}"),
        tag("polygon", points=tip, class_=f"tip-of {kind}"),
        class_="carried",
    )  # fmt: skip


def _level(placed: Placed, box: Box, inner: Box, lane: int | None) -> float:
    """How far down an arrow leaves or meets a box; the ends are as tall as the picture."""
    if not box.end:
        return placed.y[box] + box.height / 2
    if lane is not None:
        return (placed.above, placed.between, placed.below)[lane]
    if inner.end:
        return placed.below
    return placed.y[inner] + inner.height / 2


def _bend(x0: float, y0: float, x1: float, y1: float) -> str:
    half = (x0 + x1) / 2
    return f"C{half:.1f},{y0:.1f} {half:.1f},{y1:.1f} {x1:.1f},{y1:.1f}"


def _drawn(placed: Placed, box: Box, order: Sequence[CircuitNode]) -> list[Markup]:
    """A box with its role and its parts, which arrow keys walk in `order`."""
    x, y = placed.x[box], placed.y[box]
    if box.end:
        words = "the prompt" if box.kind == "input" else "the answer"
        middle, centre = x + BAR / 2 + 4, (HEADING + placed.height) / 2
        turned = f"rotate(-90 {middle:.1f} {centre:.1f})"
        return [
            rectangle(x, y, BAR, placed.height - y, "part block", hint(words), rx=5),
            label(middle, centre, words, anchor="middle", kind="name", transform=turned),
        ]
    drawn = [rectangle(x, y, box.width, box.height, "group", rx=9)]
    for at, line in enumerate(box.lines):
        middle = x + box.width / 2
        drawn.append(label(middle, y + PAD + 8 + 14 * at, line, anchor="middle"))
    top = y + PAD + 14 * len(box.lines)
    for at, (part, text) in enumerate(zip(box.parts, box.pills, strict=True)):
        row, column = divmod(at, box.across)
        in_row = min(box.across, len(box.parts) - row * box.across)
        wide = in_row * box.pill + (in_row - 1) * PILL_GAP
        left = x + (box.width - wide) / 2 + column * (box.pill + PILL_GAP)
        down = top + row * (PILL + PILL_GAP)
        said = f"{_named(part)}: {part.role}" if part.role else _named(part)
        drawn += [
            rectangle(
                left, down, box.pill, PILL, "part", hint(said), data_r=0,
                data_c=order.index(part) - 1, data_part=part.name,
                rx=PILL / 2 if part.kind != "mlp" else 5,
            ),
            label(left + box.pill / 2, down + 15, text, anchor="middle", kind="name through"),
        ]  # fmt: skip
    return drawn


def _headings(placed: Placed) -> list[Markup]:
    """Each layer's number over its columns."""
    reach: dict[int, list[float]] = defaultdict(list)
    for box in placed.boxes:
        if not box.end:
            reach[box.parts[0].layer or 0] += [placed.x[box], placed.x[box] + box.width]
    return [
        label((min(ends) + max(ends)) / 2, 11, f"layer {layer}", anchor="middle")
        for layer, ends in reach.items()
    ]


def _legend(y: float, left_out: int, against: bool) -> list[Markup]:
    told = "an arrow is as wide as what it carries"
    if against:
        told += "; orange and dashed works against the answer"
    if left_out:
        told += f"; {left_out} weaker part{'s' * (left_out > 1)} left out"
    return [label(0, y, told)]


def _named(node: CircuitNode) -> str:
    return f"head {short(node)}" if node.kind == "head" else short(node)


def _called(box: Box) -> str:
    if box.end:
        return "the prompt" if box.kind == "input" else "the answer"
    heads = box.kind == "head"
    return f"head{'s' * (len(box.parts) > 1)} {', '.join(box.pills)}" if heads else box.pills[0]


def _said(arrows: dict[tuple[Box, Box], float]) -> str:
    """The strongest way from the prompt to the answer, found backwards."""
    into: dict[Box, list[Box]] = defaultdict(list)
    for source, target in arrows:  # strongest first
        into[target].append(source)
    way = [box for box in into if box.kind == "logits"]
    while (way and not way[0].end) or len(way) == 1:
        before = next((box for box in into.get(way[0], []) if box not in way), None)
        if before is None:
            break
        way.insert(0, before)
    if len(way) < 2 or way[0].kind != "input":
        return "No way leads from the prompt to the answer through the parts shown."
    return f"Most passes along {' → '.join(_called(box) for box in way)}."


def _table(arrows: dict[tuple[Box, Box], float], view: CircuitView) -> Table:
    digits = decimals(max((abs(carried) for carried in arrows.values()), default=1.0))
    rows = tuple(
        (f"{_called(source)} → {_called(target)}", number(carried, digits, sign=True))
        for (source, target), carried in arrows.items()
    )
    return Table(caption="What passes between them", columns=("from → to", view.score_name),
                 rows=rows)  # fmt: skip
