"""How often something was right against how sure it was: the reliability diagram.

One dot for each bin of confidence, with the interval of its accuracy. On the diagonal the two are
equal; below it, more was claimed than was right.
"""

import math
from collections.abc import Sequence

from markupsafe import Markup

from cutaway.views.figure import Figure, Numbers, Table, as_array, same_length
from cutaway.views.svg import Scale, drawing, hint, label, line, tag
from cutaway.views.text import Estimate, number

_WIDTH, _LEFT, _TOP, _SIDE = 400.0, 54.0, 26.0, 270.0


def reliability(
    confidence: Numbers,
    accuracy: Sequence[Estimate],
    counts: Sequence[int],
    *,
    title: str,
    shows: str,
    across_axis: str = "confidence",
    reproduce: str = "",
) -> Figure:
    """Draw one dot for each bin: its mean `confidence` [bin], its accuracy, and how many it holds.

    Both axes are fractions and have one scale, from 1 down to just below the smallest end.
    """
    sure = as_array(confidence, 1, "The reliability diagram's confidences")
    same_length("The reliability diagram", len(sure), accuracy=accuracy, counts=counts)
    ends = [*sure.tolist(), *(end for each in accuracy for end in (each.mean, each.low))]
    lowest = min((end for end in ends if math.isfinite(end)), default=0.0)
    low = max(0.0, math.floor(min(lowest, 0.9) * 10 - 1e-9) / 10)
    right, bottom = Scale(low, 1.0, _LEFT, _LEFT + _SIDE), Scale(low, 1.0, _TOP + _SIDE, _TOP)
    parts = _frame(right, bottom, across_axis)
    for at, each, count in zip(sure.tolist(), accuracy, counts, strict=True):
        said = (
            f"{count} prompts, {across_axis} {number(at, percent=True)}: right on "
            f"{each.written(percent=True)}"
        )
        x = right(at)
        if each.has_interval:
            parts.append(line(x, bottom(each.low), x, bottom(each.high), "interval positive"))
        place = {"cx": x, "cy": bottom(each.mean)}
        parts.append(tag("circle", hint(said), **place, r=4.5, class_="dot positive"))
    rows = tuple(
        (number(at, percent=True), each.written(percent=True), str(count))
        for at, each, count in zip(sure.tolist(), accuracy, counts, strict=True)
    )
    told = "; ".join(f"{row[0]} sure, {row[1]} right" for row in rows)
    alt = f"{title}. Accuracy against {across_axis} in {len(rows)} bins: {told}. {shows}"
    return Figure(
        svg=drawing(_WIDTH, _TOP + _SIDE + 48, alt, parts),
        title=title,
        shows=shows,
        alt=alt,
        table=Table(caption=title, columns=(across_axis, "accuracy", "prompts"), rows=rows),
        reproduce=reproduce,
    )


def _frame(right: Scale, bottom: Scale, across_axis: str) -> list[Markup]:
    """Grid, the diagonal and the axes' names."""
    parts = [label(_LEFT, 13, "accuracy", kind="axis")]
    for tick in right.ticks():
        written = f"{100 * tick:.0f} %"
        parts.append(line(right(tick), bottom.start, right(tick), bottom.end, "grid"))
        parts.append(line(right.start, bottom(tick), right.end, bottom(tick), "grid"))
        parts.append(label(right(tick), bottom.start + 16, written, anchor="middle"))
        parts.append(label(right.start - 6, bottom(tick) + 4, written, anchor="end"))
    corner = (right(right.low), bottom(bottom.low), right(1.0), bottom(1.0))
    parts.append(line(*corner, "reference"))
    middle = (right.start + right.end) / 2
    parts.append(label(middle, bottom.start + 38, across_axis, anchor="middle", kind="axis"))
    return parts
