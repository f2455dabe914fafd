"""How a per-example value spreads, clean prompts above the axis and corrupt ones mirrored below."""

import math

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from cutaway.views.figure import Array, Figure, Numbers, Table, ViewError, as_array
from cutaway.views.svg import Scale, drawing, hint, label, line, rectangle
from cutaway.views.text import number

_WIDTH, _LEFT = 780.0, 118.0
_MIDDLE, _ROOM = 96.0, 82.0


def distribution(
    clean: Numbers,
    corrupt: Numbers,
    *,
    title: str = "Every example, clean and corrupt",
    shows: str,
    measure: str = "logit difference of one example",
    names: tuple[str, str] = ("clean", "corrupt"),
    reproduce: str = "",
) -> Figure:
    """Draw per-example values [example] of both kinds as mirrored histograms on one axis."""
    upper = as_array(clean, 1, "The clean values")
    lower = as_array(corrupt, 1, "The corrupt values")
    both = np.concatenate([upper, lower])
    if not np.isfinite(both).all():
        raise ViewError(
            f"{int((~np.isfinite(both)).sum())} of {both.size} values are not finite numbers: "
            "leave them out, or find out why they are not."
        )
    edges = _edges(both)
    scale = Scale(float(edges[0]), float(edges[-1]), _LEFT, _WIDTH - 14)
    counts = [np.histogram(values, edges)[0] for values in (upper, lower)]
    most = int(max(counts[0].max(), counts[1].max()))
    parts = _axis(scale, measure)
    for index, values in enumerate((upper, lower)):
        parts += _side(values, counts[index], edges, scale, most, index == 0, names[index])
    parts.append(line(_LEFT, _MIDDLE, _WIDTH - 14, _MIDDLE, "zero"))
    rows = [_in_row(name, values) for name, values in zip(names, (upper, lower), strict=True)]
    said = "; ".join(f"{row[0]}: mean {row[2]}, {row[6]} above zero" for row in rows)
    alt = f"{title}. Two histograms of {measure}: {said}. {shows}"
    columns = ("prompts", "examples", "mean", "smallest", "median", "largest", "above zero")
    return Figure(
        svg=drawing(_WIDTH, _MIDDLE + _ROOM + 66, alt, parts),
        title=title,
        shows=shows,
        alt=alt,
        table=Table(caption=f"{title}: {measure}", columns=columns, rows=tuple(rows)),
        reproduce=reproduce,
    )


def _edges(values: Array) -> Array:
    """About 40 equal bins over a range that holds zero, one edge exactly on it."""
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    width = (high - low) / 40 or 0.025
    first, last = math.floor(low / width) - 1, math.floor(high / width) + 2
    return np.arange(first, last + 1, dtype=np.float64) * width


def _axis(scale: Scale, measure: str) -> list[Markup]:
    top, bottom = _MIDDLE - _ROOM - 8, _MIDDLE + _ROOM + 8
    parts: list[Markup] = []
    for tick in scale.ticks(8):
        x = scale(tick)
        parts.append(line(x, top, x, bottom, "zero" if tick == 0 else "grid"))
        written = number(tick, scale.decimals(8), sign=True)
        parts.append(label(x, bottom + 16, written, anchor="middle"))
    middle = (scale.start + scale.end) / 2
    parts.append(label(middle, bottom + 40, measure, anchor="middle", kind="axis"))
    return parts


def _side(
    values: Array,
    counts: npt.NDArray[np.int64],
    edges: Array,
    scale: Scale,
    most: int,
    above: bool,
    name: str,
) -> list[Markup]:
    kind = "positive" if above else "negative"
    way = -1 if above else 1
    parts: list[Markup] = []
    for index, count in enumerate(counts):
        if not count:
            continue
        left, right = scale(float(edges[index])), scale(float(edges[index + 1]))
        height = _ROOM * int(count) / most
        span = f"{number(float(edges[index]))} to {number(float(edges[index + 1]))}"
        said = f"{name}: {int(count)} of {len(values)} examples from {span}"
        top = _MIDDLE - height if above else _MIDDLE
        shape = (left + 0.5, top, max(right - left - 1, 0.5), height)
        parts.append(rectangle(*shape, f"bar {kind}", hint(said)))
    mean = float(values.mean())
    x = scale(mean)
    parts.append(line(x, _MIDDLE, x, _MIDDLE + way * (_ROOM + 8), f"mean {kind}"))
    y = _MIDDLE + way * _ROOM * 0.55
    parts.append(label(0, y, name, kind=f"callout {kind}"))
    parts.append(label(0, y + 16, f"mean {number(mean, sign=True)}"))
    return parts


def _in_row(name: str, values: Array) -> tuple[str, ...]:
    measures = (values.mean(), values.min(), np.median(values), values.max())
    written = (number(float(value), sign=True) for value in measures)
    share = number(float((values > 0).mean()), percent=True)
    return (name, str(len(values)), *written, share)
