"""A circuit, drawn: columns by layer, heads and MLPs in place, edges as wide as their scores.

An edge that supports the behaviour is blue and whole, one that works against it orange and dashed.
Parts that are in no edge shown stay in their places as pale outlines. The drawing shows one size,
with its faithfulness; where scripts run, the page's client takes its place (see `live`), with the
same places and the same ways, a slider over the sizes, and a card for each part and edge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from cutaway.views.circuit_curve import HEIGHT as CURVE_HEIGHT
from cutaway.views.circuit_curve import WIDTH as CURVE_WIDTH
from cutaway.views.circuit_curve import draw_curve, faithfulness_curve, worth
from cutaway.views.circuit_layout import Box, Layout, layout
from cutaway.views.circuit_values import CircuitEdge, CircuitNode, CircuitView, Reading
from cutaway.views.figure import Figure, Live, Table
from cutaway.views.svg import drawing, hint, label, rectangle, tag
from cutaway.views.text import decimals, inert, number, shortened, token_label

_THINNEST, _WIDEST = 1.0, 7.0
_TOP = CURVE_HEIGHT + 22.0
_MOST_ROWS = 100
_WORD, _READINGS = 60, 12


def circuit(view: CircuitView) -> Figure:
    """Draw the circuit at its first size, with everything its client needs to show the others."""
    placed, curve = layout(view), faithfulness_curve(view)
    stop = view.stops[view.first]
    shown = view.ranked[: stop.edges]
    said = worth(view, stop)
    alt = f"{view.title}. {_in_words(view, shown, said)} {view.shows}"
    width = max(placed.width, CURVE_WIDTH + 340)
    words = [
        label(0, 24 + 20 * at, text, kind="callout" if not at else "name")
        for at, text in enumerate(said)
        if text
    ]
    scores = _largest(view)
    parts = [
        *words,
        tag("g", *draw_curve(curve, view.sizes.index(stop)),
            transform=f"translate({width - CURVE_WIDTH:.0f} 0)"),
        tag("g", *_picture(placed, shown, scores), transform=f"translate(0 {_TOP:.0f})"),
        *_legend(_TOP + placed.height + 22, view.score_name, scores),
    ]  # fmt: skip
    return Figure(
        svg=drawing(width, _TOP + placed.height + 34, alt, parts),
        title=view.title,
        shows=view.shows,
        alt=alt,
        table=_table(view, shown),
        reproduce=view.reproduce,
        live=Live(kind="circuit", data=_data(view, placed)),
    )


# ── the static drawing ───────────────────────────────────────────────────────────────────────


def _picture(placed: Layout, shown: Sequence[CircuitEdge], largest: float) -> list[Markup]:
    used = {name for edge in shown for name in (edge.source, edge.target)}
    layers = [label(x, 13, text, anchor="middle") for x, text in placed.headings]
    drawn = [
        (node.name in used, _node(placed, node, used=node.name in used))
        for node in placed.nodes.values()
    ]
    below = [part for there, parts in drawn if not there for part in parts]
    above = [part for there, parts in drawn if there for part in parts]
    return [*layers, *below, *(_edge(placed, edge, largest) for edge in reversed(shown)), *above]


def _edge(placed: Layout, edge: CircuitEdge, largest: float) -> Markup:
    said = f"{_way(edge)}: {number(edge.score, decimals(largest), sign=True)}"
    return tag(
        "path", hint(said), d=placed.path(edge), stroke_width=_width(edge, largest),
        stroke_opacity=_strength(edge, largest),
        stroke_dasharray=_dashes(edge, largest) or None,
        class_=f"edge {'negative' if edge.score < 0 else 'positive'}",
    )  # fmt: skip


def _node(placed: Layout, node: CircuitNode, *, used: bool) -> list[Markup]:
    box = placed.boxes[node.name]
    round_one = node.kind in ("head", "kv", "neuron")
    kind = f"part{'' if round_one else ' block'}{'' if used else ' unused'}"
    radius = min(box.width, box.height) / (2 if round_one else 5)
    said = f"{node.name}: {node.role}" if node.role else node.name
    drawn = [rectangle(box.x, box.y, box.width, box.height, kind, hint(said), rx=radius)]
    if node.kind in ("input", "logits"):
        drawn.append(_upright(box, node.kind))
    elif placed.labelled and node.kind in ("head", "mlp") and (used or placed.sparse):
        kind = "called" if used else "called unused"
        x = box.x + box.width / 2
        drawn.append(label(x, box.middle + 3.6, short_name(node), anchor="middle", kind=kind))
    return drawn


def _upright(box: Box, text: str) -> Markup:
    x, y = box.x + box.width / 2 + 3.5, box.middle
    turned = f"rotate(-90 {x:.1f} {y:.1f})"
    return label(x, y, text, anchor="middle", kind="called", transform=turned)


def short_name(node: CircuitNode) -> str:
    """What is written on a part: `3.1` for a head, `M3` for an MLP, `3.kv0` for shared keys."""
    if node.kind == "head":
        return f"{node.layer}.{node.index}"
    if node.kind == "neuron":
        return f"M{node.layer}.n{node.index}"
    if node.kind == "kv":
        return f"{node.layer}.kv{'' if node.index is None else node.index}"
    return f"M{node.layer}" if node.kind == "mlp" else node.name


def _legend(y: float, name: str, largest: float) -> list[Markup]:
    ways = f"M0,{y - 4:.1f}H26", f"M100,{y - 4:.1f}H126"
    supports = tag("path", d=ways[0], stroke_width=3.0, class_="edge positive")
    against = tag(
        "path", d=ways[1], stroke_width=3.0, stroke_dasharray="8 3", class_="edge negative"
    )
    told = f"width: {name}, at most {number(largest, decimals(largest))}"
    return [
        supports, label(32, y, "supports"), against, label(132, y, "works against"),
        label(230, y, told),
    ]  # fmt: skip


def _width(edge: CircuitEdge, largest: float) -> float:
    return _THINNEST + (_WIDEST - _THINNEST) * abs(edge.score) / (largest or 1.0)


def _dashes(edge: CircuitEdge, largest: float) -> str:
    """Dashes that suit the width, for an edge that works against; nothing for others."""
    width = _width(edge, largest)
    return f"{5 + 1.2 * width:.1f} {2 + width / 2:.1f}" if edge.score < 0 else ""


def _strength(edge: CircuitEdge, largest: float) -> float:
    """How solid an edge is drawn, so that weak ones do not hide strong ones."""
    return 0.4 + 0.45 * math.sqrt(abs(edge.score) / (largest or 1.0))


def _largest(view: CircuitView) -> float:
    return max((abs(edge.score) for edge in view.edges), default=0.0)


def _in_words(view: CircuitView, shown: Sequence[CircuitEdge], said: Sequence[str]) -> str:
    parts = {name for edge in shown for name in (edge.source, edge.target)}
    heads = [node.name for node in view.nodes if node.kind == "head" and node.name in parts]
    some = f"; heads {', '.join(heads[:12])}{', …' if len(heads) > 12 else ''}" if heads else ""
    return f"A circuit of {said[0]}, {said[1]}{some}."


def _way(edge: CircuitEdge) -> str:
    return f"{edge.source} → {edge.target}{f' ({edge.port})' if edge.port else ''}"


def _table(view: CircuitView, shown: Sequence[CircuitEdge]) -> Table:
    digits = decimals(_largest(view))
    included = any(math.isfinite(edge.inclusion) for edge in shown)
    rows = tuple(
        (
            token_label(_way(edge)), str(edge.rank), number(edge.score, digits, sign=True),
            *((number(edge.inclusion, percent=True),) if included else ()),
        )
        for edge in shown[:_MOST_ROWS]
    )  # fmt: skip
    cut = f", the first {_MOST_ROWS} of {len(shown)}" if len(shown) > _MOST_ROWS else ""
    columns = ("edge", "rank", view.score_name, *(("inclusion",) if included else ()))
    return Table(caption=f"{view.title}: edges{cut}", columns=columns, rows=rows)


# ── what the client draws from ───────────────────────────────────────────────────────────────


def _data(view: CircuitView, placed: Layout) -> Mapping[str, object]:
    curve, largest = faithfulness_curve(view), _largest(view)
    return {
        "title": _said(view.title, 200), "score": _said(view.score_name),
        "attends": _said(view.attends_name), "writes": _said(view.writes_name),
        "width": round(placed.width, 1), "height": round(placed.height, 1),
        "labelled": placed.labelled, "sparse": placed.sparse, "first": view.first,
        "most": number(largest, decimals(largest)),
        "headings": [[round(x, 1), text] for x, text in placed.headings],
        "nodes": [_node_data(placed, node) for node in view.nodes],
        "edges": [_edge_data(placed, edge, largest) for edge in view.ranked],
        "curve": {
            "width": CURVE_WIDTH, "height": CURVE_HEIGHT, "zero": curve.zero, "one": curve.one,
            "line": curve.line, "band": curve.band, "ends": list(curve.ends),
            "controls": [[round(p.x, 1), round(y, 1)] for p in curve.points for y in p.controls],
        },
        "stops": [
            {"edges": stop.edges, "x": round(point.x, 1), "y": round(point.y, 1),
             "said": list(worth(view, stop))}
            for stop, point in zip(view.stops, curve.points, strict=False)
        ],
    }  # fmt: skip


def _node_data(placed: Layout, node: CircuitNode) -> Mapping[str, object]:
    box = placed.boxes[node.name]
    shape = [round(side, 1) for side in (box.x, box.y, box.width, box.height)]
    return {
        "name": _said(node.name), "kind": node.kind, "short": _said(short_name(node)),
        "layer": node.layer, "index": node.index, "role": _said(node.role), "box": shape,
        "attends": _readings(node.attends, percent=True), "writes": _readings(node.writes),
        "through": _groups(placed, node),
    }  # fmt: skip


def _groups(placed: Layout, node: CircuitNode) -> list[str]:
    """What reads for a part: shared keys and values beside a head, and a neuron's whole MLP."""
    middle = placed.boxes[node.name].middle
    reading = {"head": "kv", "neuron": "mlp"}.get(node.kind)
    return [
        _said(name)
        for name, other in placed.nodes.items()
        if other.kind == reading and other.layer == node.layer
        if reading == "mlp" or placed.boxes[name].y <= middle <= placed.boxes[name].bottom
    ]


def _edge_data(placed: Layout, edge: CircuitEdge, largest: float) -> Mapping[str, object]:
    known = math.isfinite(edge.inclusion)
    return {
        "from": _said(edge.source), "to": _said(edge.target), "port": _said(edge.port),
        "d": placed.path(edge), "width": round(_width(edge, largest), 2),
        "strength": round(_strength(edge, largest), 2),
        "dashes": _dashes(edge, largest),
        "score": number(edge.score, decimals(largest), sign=True),
        "inclusion": number(edge.inclusion, percent=True) if known else "",
    }  # fmt: skip


def _readings(readings: Sequence[Reading], *, percent: bool = False) -> list[list[object]]:
    """Text, number as written, and the bar's length from −1 to 1."""
    largest = 1.0 if percent else max((abs(each.value) for each in readings), default=1.0) or 1.0
    return [
        [
            token_label(each.text), number(each.value, percent=percent, sign=not percent),
            round(max(-1.0, min(1.0, each.value / largest)), 3),
        ]
        for each in readings[:_READINGS]
    ]  # fmt: skip


def _said(text: str, limit: int = _WORD) -> str:
    return inert(shortened(text, limit), keep="")
