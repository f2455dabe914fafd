"""A value by layer, with its interval as a band: how a reading grows through the model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from cutaway.views.figure import Figure, Table, ViewError, same_length
from cutaway.views.svg import Scale, drawing, hint, label, line, scale_over, tag
from cutaway.views.text import Estimate, number, text_width

_WIDTH, _HEIGHT = 600.0, 264.0
_LEFT, _TOP, _BOTTOM = 44.0, 28.0, 214.0
_KINDS = ("positive", "negative", "amount")


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line."""

    name: str
    """Written at the line's end."""
    estimates: tuple[Estimate, ...]
    """One per place on the horizontal axis."""


def lens_curve(
    series: Sequence[Series],
    layers: Sequence[str],
    *,
    title: str = "The answer, layer by layer",
    shows: str,
    measure: str = "logit difference at the last position",
    axis: str = "layer",
    reproduce: str = "",
) -> Figure:
    """Draw up to three series over `layers`, each with its interval band."""
    if not 1 <= len(series) <= len(_KINDS) or not layers:
        raise ViewError(
            f"A line chart got {len(series)} series over {len(layers)} layers: "
            f"give 1 to {len(_KINDS)} series over at least one layer."
        )
    for each in series:
        same_length(f"The series '{each.name}'", len(each.estimates), layers=layers)
    ends = [end for s in series for e in s.estimates for end in (e.mean, e.low, e.high)]
    vertical = scale_over(ends, _BOTTOM, _TOP)
    right = _WIDTH - max(text_width(s.name, 12) for s in series) - 14
    across = Scale(0, max(len(layers) - 1, 1), _LEFT + 12, right - 10)
    parts = _frame(vertical, across, right, layers, measure, axis)
    heights = _apart([vertical(_last(s.estimates)) for s in series])
    for one, kind, height in zip(series, _KINDS, heights, strict=False):
        parts += _series(one, kind, vertical, across, layers, axis)
        parts.append(label(right, height + 4, one.name, kind=f"callout {kind}"))
    said = "; ".join(f"{s.name} ends at {number(_last(s.estimates))}" for s in series)
    alt = f"{title}. Line chart of {measure} over {len(layers)} {axis}s: {said}. {shows}"
    columns = (axis, *(s.name for s in series))
    rows = tuple(
        (str(name), *(s.estimates[index].written() for s in series))
        for index, name in enumerate(layers)
    )
    return Figure(
        svg=drawing(_WIDTH, _HEIGHT, alt, parts),
        title=title,
        shows=shows,
        alt=alt,
        table=Table(caption=f"{title}: {measure}", columns=columns, rows=rows),
        reproduce=reproduce,
    )


def _frame(
    vertical: Scale, across: Scale, right: float, layers: Sequence[str], measure: str, axis: str
) -> list[Markup]:
    parts = [label(_LEFT, 13, measure, kind="axis")]
    for tick in vertical.ticks():
        y = vertical(tick)
        parts.append(line(_LEFT, y, right, y, "zero" if tick == 0 else "grid"))
        parts.append(
            label(_LEFT - 6, y + 4, number(tick, vertical.decimals(), sign=True), anchor="end")
        )
    room = (across.end - across.start) / max(len(layers) - 1, 1)
    every = max(1, math.ceil((max(text_width(str(n), 11) for n in layers) + 8) / room))
    parts += [
        label(across(index), _BOTTOM + 18, str(name), anchor="middle")
        for index, name in enumerate(layers)
        if index % every == 0
    ]
    middle = (across.start + across.end) / 2
    parts.append(label(middle, _BOTTOM + 40, axis, anchor="middle", kind="axis"))
    return parts


def _series(
    one: Series, kind: str, vertical: Scale, across: Scale, layers: Sequence[str], axis: str
) -> list[Markup]:
    known = [(i, e) for i, e in enumerate(one.estimates) if math.isfinite(e.mean)]
    parts: list[Markup] = []
    banded = [(i, e) for i, e in known if e.has_interval]
    if len(banded) > 1:
        upper = [f"{across(i):.1f},{vertical(e.high):.1f}" for i, e in banded]
        lower = [f"{across(i):.1f},{vertical(e.low):.1f}" for i, e in reversed(banded)]
        parts.append(tag("polygon", points=" ".join(upper + lower), class_=f"area {kind}"))
    path = " ".join(f"{across(i):.1f},{vertical(e.mean):.1f}" for i, e in known)
    parts.append(tag("polyline", points=path, class_=f"curve {kind}"))
    for index, estimate in known:
        said = f"{one.name}, {axis} {layers[index]}: {estimate.written(sign=True)}"
        place = {"cx": across(index), "cy": vertical(estimate.mean)}
        parts.append(tag("circle", hint(said), **place, r=4, class_=f"dot {kind}"))
    return parts


def _last(estimates: Sequence[Estimate]) -> float:
    return next((e.mean for e in reversed(estimates) if math.isfinite(e.mean)), math.nan)


def _apart(heights: Sequence[float]) -> list[float]:
    """The same heights, moved down just enough that names at line ends do not touch."""
    moved = [0.0] * len(heights)
    above = -math.inf
    for index in sorted(range(len(heights)), key=lambda i: heights[i]):
        above = max(heights[index] if math.isfinite(heights[index]) else _BOTTOM, above + 15)
        moved[index] = above
    return moved
