"""Two numbers for each of several things: estimated effects against exact ones.

Both axes have one scale, so that agreement is the diagonal; the points furthest from it are named,
where that can be seen.
"""

import math
from collections.abc import Sequence

from markupsafe import Markup

from cutaway.views.figure import Figure, Numbers, Table, as_array, same_length
from cutaway.views.mentions import part_of
from cutaway.views.svg import SMALL, Scale, drawing, fitted, hint, label, line, scale_over, tag
from cutaway.views.text import decimals, number, shortened, text_width

_WIDTH, _LEFT, _TOP, _SIDE = 400.0, 46.0, 26.0, 270.0
_NAMED, _SEEN = 3, 12.0
"""At most so many are named, and only so many pixels off the diagonal."""


def scatter(
    across: Numbers,
    up: Numbers,
    names: Sequence[str],
    *,
    title: str,
    shows: str,
    across_axis: str = "exact",
    up_axis: str = "estimated",
    reproduce: str = "",
) -> Figure:
    """Draw one point for each of `names`, at `across` [point] and `up` [point]."""
    x, y = as_array(across, 1, "The scatter's values"), as_array(up, 1, "The scatter's values")
    same_length("The scatter", len(x), names=names, values=y.tolist())
    ends = [*x.tolist(), *y.tolist()]
    right, bottom = scale_over(ends, _LEFT, _LEFT + _SIDE), scale_over(ends, _TOP + _SIDE, _TOP)
    digits = decimals(max((abs(end) for end in ends if math.isfinite(end)), default=1.0))
    parts = _frame(right, bottom, across_axis, up_axis)
    known = [i for i in range(len(x)) if math.isfinite(x[i]) and math.isfinite(y[i])]
    said = {
        i: f"{names[i]}: {up_axis} {number(y[i], digits, sign=True)}, "
        f"{across_axis} {number(x[i], digits, sign=True)}"
        for i in known
    }
    column = {index: at for at, index in enumerate(sorted(known, key=lambda i: x[i]))}
    for index in known:
        place: dict[str, object] = {"cx": right(x[index]), "cy": bottom(y[index])}
        place |= {"data_r": 0, "data_c": column[index], "data_part": part_of(names[index])}
        parts.append(tag("circle", hint(said[index]), **place, r=4.5, class_="dot amount"))
    furthest = sorted(known, key=lambda i: -abs(y[i] - x[i]))
    seen = [i for i in furthest[:_NAMED] if abs(right(x[i]) - right(y[i])) >= _SEEN]
    parts += _callouts([(names[i], right(x[i]), bottom(y[i])) for i in seen])
    worst = f"; furthest apart: {said[furthest[0]]}" if furthest else ""
    alt = f"{title}. {len(known)} points, {up_axis} against {across_axis}{worst}. {shows}"
    rows = tuple(
        (shortened(name, 200), number(a, digits), number(b, digits))
        for name, a, b in zip(names, x.tolist(), y.tolist(), strict=True)
    )
    return Figure(
        svg=drawing(_WIDTH, _TOP + _SIDE + 48, alt, parts, data_grid="points"),
        title=title,
        shows=shows,
        alt=alt,
        table=Table(caption=title, columns=("name", across_axis, up_axis), rows=rows),
        reproduce=reproduce,
    )


def _frame(right: Scale, bottom: Scale, across_axis: str, up_axis: str) -> list[Markup]:
    """Grid, the diagonal and the axes' names."""
    low, high = right.low, right.high
    parts = [label(_LEFT, 13, up_axis, kind="axis")]
    for tick in right.ticks():
        written, kind = number(tick, right.decimals(), sign=True), "zero" if tick == 0 else "grid"
        parts.append(line(right(tick), bottom.start, right(tick), bottom.end, kind))
        parts.append(line(right.start, bottom(tick), right.end, bottom(tick), kind))
        parts.append(label(right(tick), bottom.start + 16, written, anchor="middle"))
        parts.append(label(right.start - 6, bottom(tick) + 4, written, anchor="end"))
    parts.append(line(right(low), bottom(low), right(high), bottom(high), "reference"))
    middle = (right.start + right.end) / 2
    parts.append(label(middle, bottom.start + 38, across_axis, anchor="middle", kind="axis"))
    return parts


def _callouts(points: Sequence[tuple[str, float, float]]) -> list[Markup]:
    """Names beside points, each on a line of its own where they would touch."""
    parts: list[Markup] = []
    used: list[float] = []
    for name, x, y in sorted(points, key=lambda point: point[2]):
        height = y + 4
        while any(abs(height - other) < 13 for other in used):
            height += 13
        used.append(height)
        shown = fitted(name, 110)
        beside = x + 9 + text_width(shown, SMALL) < _WIDTH
        parts.append(
            label(x + 9 if beside else x - 9, height, shown, anchor="start" if beside else "end")
        )
    return parts
