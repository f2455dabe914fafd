"""Faithfulness against size: the small curve beside a circuit, over all sizes that were measured.

Sizes lie on a logarithmic axis. The band is the interval, the short marks are random circuits of
the same size, and the dashed lines are nothing (0) and the whole model (1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from markupsafe import Markup

from cutaway.views.circuit_values import CircuitSize, CircuitView
from cutaway.views.svg import Scale, label, line, tag
from cutaway.views.text import decimals, number

WIDTH, HEIGHT = 280.0, 92.0
_LEFT, _TOP, _BOTTOM = 26.0, 8.0, 72.0
_MOST, _FEW = 1.5, 0.1


@dataclass(frozen=True)
class CurvePoint:
    """One size on the curve."""

    x: float
    """Pixels from the left."""
    y: float
    """Pixels from the top, of its faithfulness."""
    low: float
    """The same, of the interval's lower end."""
    high: float
    """The same, of the interval's upper end."""
    controls: tuple[float, ...]
    """The same, of random circuits."""


@dataclass(frozen=True)
class FaithfulnessCurve:
    """The curve, laid out."""

    points: tuple[CurvePoint, ...]
    """One for each size that was measured."""
    zero: float
    """The height of a faithfulness of 0."""
    one: float
    """The height of a faithfulness of 1."""
    ends: tuple[str, str]
    """The smallest and the largest size, as written below."""

    @property
    def line(self) -> str:
        """The curve's points, as SVG writes them."""
        return " ".join(f"{p.x:.1f},{p.y:.1f}" for p in self.points)

    @property
    def band(self) -> str:
        """The interval's outline, as SVG writes it."""
        upper = [f"{p.x:.1f},{p.high:.1f}" for p in self.points]
        return " ".join(upper + [f"{p.x:.1f},{p.low:.1f}" for p in reversed(self.points)])


def faithfulness_curve(view: CircuitView) -> FaithfulnessCurve:
    """Where each size stands."""
    known = [value for size in view.sizes for value in _values(size) if math.isfinite(value)]
    low, high = min([0.0, *known]), max([1.0, *known])
    vertical = Scale(max(low, -_MOST), min(high, 1 + _MOST), _BOTTOM, _TOP)
    sizes = [math.log(max(size.edges, 1)) for size in view.sizes]
    across = Scale(sizes[0], max(sizes[-1], sizes[0] + 1e-9), _LEFT, WIDTH - 6)
    if len(sizes) == 1:
        across = Scale(sizes[0] - 1, sizes[0] + 1, _LEFT, WIDTH - 6)
    points = [
        _point(size, across(at), vertical) for size, at in zip(view.sizes, sizes, strict=True)
    ]
    ends = (f"{view.sizes[0].edges:,}", f"{view.sizes[-1].edges:,} edges")
    return FaithfulnessCurve(tuple(points), vertical(0), vertical(1), ends)


def draw_curve(curve: FaithfulnessCurve, at: int) -> list[Markup]:
    """The curve as a picture, with the size `at` marked."""
    chosen = curve.points[at]
    controls = [
        line(point.x - 2.5, y, point.x + 2.5, y, "control")
        for point in curve.points
        for y in point.controls
    ]
    return [
        *(line(_LEFT, y, WIDTH - 6, y, "reference") for y in (curve.zero, curve.one)),
        *(label(_LEFT - 6, y + 4, text, anchor="end")
          for y, text in ((curve.zero, "0"), (curve.one, "1"))),
        tag("polygon", points=curve.band, class_="area amount"),
        *controls,
        tag("polyline", points=curve.line, class_="curve amount"),
        tag("circle", cx=chosen.x, cy=chosen.y, r=5.0, class_="dot amount"),
        label(_LEFT, HEIGHT - 4, curve.ends[0]),
        label(WIDTH - 6, HEIGHT - 4, curve.ends[1], anchor="end"),
    ]  # fmt: skip


def worth(view: CircuitView, size: CircuitSize) -> tuple[str, str, str]:
    """A size in words: its edges, its faithfulness, and that of random circuits or nothing."""
    percent = 100 * size.edges / max(view.total, 1)
    share = number(percent, 1 if percent >= _FEW else decimals(percent))
    edges = f"{size.edges:,} of {view.total:,} edges ({share}\u00a0%)"
    controls = ""
    if size.controls:
        low, high = (number(end) for end in (min(size.controls), max(size.controls)))
        between = f"{low} to {high}" if low != high else low
        controls = f"{len(size.controls)} random circuits of this size: {between}"
    return edges, f"faithfulness {size.faithfulness.written()}", controls


def _values(size: CircuitSize) -> tuple[float, ...]:
    found = size.faithfulness
    return (found.mean, found.low, found.high, *size.controls)


def _point(size: CircuitSize, x: float, vertical: Scale) -> CurvePoint:
    found = size.faithfulness
    ends = (found.low, found.high) if found.has_interval else (found.mean, found.mean)
    low, high = (vertical(end) for end in ends)
    return CurvePoint(x, vertical(found.mean), low, high, tuple(map(vertical, size.controls)))
