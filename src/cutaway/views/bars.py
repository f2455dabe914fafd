"""Signed bars with intervals, for parts that add up: direct logit attribution by component.

Up to 24 parts are rows with their names and numbers written out. More become columns side by side,
in bands (one band per layer), with the largest named and every one told on hover and in the table.
Below either stands the check that the parts add up: their sum beside the measured total.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType

from markupsafe import Markup

from cutaway.views.figure import Figure, Numbers, Table, ViewError, as_array, same_length
from cutaway.views.mentions import part_of
from cutaway.views.svg import (
    NORMAL,
    SMALL,
    Scale,
    drawing,
    fitted,
    hint,
    label,
    line,
    rectangle,
    scale_over,
)
from cutaway.views.text import Estimate, decimals, number, p_value, text_width

_MOST_ROWS = 24
_LEVEL = 0.05
_WIDTH = 780.0


@dataclass(frozen=True, kw_only=True)
class Total:
    """What the parts should add up to."""

    parts: Estimate
    """Mean over examples of the sum of all parts."""
    measured: Estimate
    """Mean over examples of the quantity itself, from the model's own output."""
    largest_gap: float
    """Largest absolute difference between the two on any one example."""
    parts_name: str = "sum of the parts"
    """What the first bar is called."""
    measured_name: str = "logit difference"
    """What the second bar is called."""


@dataclass(frozen=True)
class _Part:
    name: str
    short: str
    group: str
    size: Estimate
    p: float = math.nan

    @property
    def said(self) -> str:
        return f"{self.name}: {self.written}"

    @property
    def written(self) -> str:
        chance = "" if math.isnan(self.p) else f", {p_value(self.p)}"
        return f"{self.size.written(sign=True)}{chance}"

    @property
    def pale(self) -> bool:
        return self.p > _LEVEL

    def at(self, row: int, column: int) -> dict[str, object]:
        """Its place for the arrow keys, and the part of the model that it stands for."""
        return {"data_r": row, "data_c": column, "data_part": part_of(self.name)}

    @property
    def kind(self) -> str:
        sign = "negative" if self.size.mean < 0 else "positive"
        return f"bar {sign} pale" if self.pale else f"bar {sign}"


def bars(
    labels: Sequence[str],
    values: Numbers,
    lows: Numbers | None = None,
    highs: Numbers | None = None,
    *,
    title: str,
    shows: str,
    measure: str = "contribution to the logit difference",
    p: Numbers | None = None,
    groups: Sequence[str] | None = None,
    short: Sequence[str] | None = None,
    total: Total | None = None,
    reproduce: str = "",
) -> Figure:
    """Draw one bar per label, with whiskers where `lows` and `highs` are given.

    `p` are p-values, told with each bar, which is pale where they are above 0.05; `groups` names
    the band of each part (neighbours with one name share a band); `short` is what is
    written under a column (default: nothing); `total` adds the sum check.
    """
    parts = _parts(labels, values, lows, highs, p, groups, short)
    if any(part.pale for part in parts):
        measure = f"{measure}   (pale: p > {_LEVEL})"
    in_rows = len(parts) <= _MOST_ROWS
    drawn, height = _rows(parts, measure) if in_rows else _columns(parts, measure)
    if total is not None:
        more, height = _sum_check(total, height + 14)
        drawn += more
    alt = f"{title}. {_in_words(parts, total)} {shows}"
    return Figure(
        svg=drawing(_WIDTH, height, alt, drawn, data_grid="bars"),
        title=title,
        shows=shows,
        alt=alt,
        table=_table(parts, total, title, measure),
        reproduce=reproduce,
    )


def _parts(
    labels: Sequence[str],
    values: Numbers,
    lows: Numbers | None,
    highs: Numbers | None,
    p: Numbers | None,
    groups: Sequence[str] | None,
    short: Sequence[str] | None,
) -> list[_Part]:
    means = as_array(values, 1, "The bars' values")
    count = len(means)
    ends = [
        None if end is None else as_array(end, 1, "What goes with each bar")
        for end in (lows, highs, p)
    ]
    same_length("The bars' values", count, labels=labels, groups=groups, short=short)
    for end in ends:
        if end is not None and len(end) != count:
            raise ViewError(
                f"{count} bars have {len(end)} interval ends or p-values: give one for each bar."
            )
    low, high, chance = (
        [math.nan] * count if end is None else [float(value) for value in end] for end in ends
    )
    return [
        _Part(
            str(labels[index]),
            short[index] if short else "",
            groups[index] if groups else "",
            Estimate(float(means[index]), low[index], high[index]),
            chance[index],
        )
        for index in range(count)
    ]


def _reach(estimates: Sequence[Estimate]) -> list[float]:
    return [end for each in estimates for end in (each.mean, each.low, each.high)]


def _rows(parts: Sequence[_Part], measure: str) -> tuple[list[Markup], float]:
    names_wide = min(220.0, max(text_width(p.name, NORMAL) for p in parts) + 14)
    scale = scale_over(_reach([p.size for p in parts]), names_wide + 10, _WIDTH - 70)
    top, pitch = 30.0, 21.0
    bottom = top + pitch * len(parts)
    drawn = [label(names_wide + 10, 13, measure, kind="axis")]
    for tick in scale.ticks():
        drawn.append(line(scale(tick), top, scale(tick), bottom, "grid"))
        written = number(tick, scale.decimals(), sign=True)
        drawn.append(label(scale(tick), bottom + 15, written, anchor="middle"))
    for index, part in enumerate(parts):
        drawn += _row(part, scale, top + index * pitch, pitch, names_wide, part.at(index, 0))
    drawn.append(line(scale(0), top, scale(0), bottom, "zero"))
    return drawn, bottom + 24


def _row(
    part: _Part, scale: Scale, top: float, pitch: float, names_wide: float,
    place: Mapping[str, object] = MappingProxyType({}),
) -> list[Markup]:  # fmt: skip
    middle = top + pitch / 2
    drawn = [
        label(
            names_wide,
            middle + 4,
            fitted(part.name, names_wide - 6, NORMAL),
            anchor="end",
            kind="name",
        )
    ]
    if math.isnan(part.size.mean):
        return [*drawn, label(scale(0) + 6, middle + 4, "n/a")]
    left, right = sorted((scale(0), scale(part.size.mean)))
    width = right - left
    drawn.append(
        rectangle(left, top + 3, width, pitch - 6, part.kind, hint(part.said), rx=1.5, **place)
    )
    drawn += _whisker_across(part.size, scale, middle)
    digits = decimals(max(-scale.low, scale.high))
    written = number(part.size.mean, digits, sign=True)
    drawn.append(label(_WIDTH - 4, middle + 4, written, anchor="end", kind="value"))
    return drawn


def _whisker_across(size: Estimate, scale: Scale, y: float) -> list[Markup]:
    if not size.has_interval:
        return []
    low, high = scale(size.low), scale(size.high)
    return [
        line(low, y, high, y, "whisker"),
        line(low, y - 3, low, y + 3, "whisker"),
        line(high, y - 3, high, y + 3, "whisker"),
    ]


def _columns(parts: Sequence[_Part], measure: str) -> tuple[list[Markup], float]:
    left, top, bottom, gap = 44.0, 34.0, 288.0, 6.0
    bands = [(name, list(members)) for name, members in groupby(parts, key=lambda p: p.group)]
    pitch = (_WIDTH - left - 6 - gap * (len(bands) - 1)) / len(parts)
    scale = scale_over(_reach([p.size for p in parts]), bottom, top)
    drawn = [label(left, 13, measure, kind="axis")]
    frame: list[Markup] = []
    for tick in scale.ticks():
        frame.append(line(left, scale(tick), _WIDTH, scale(tick), "grid"))
        written = number(tick, scale.decimals(), sign=True)
        frame.append(label(left - 6, scale(tick) + 4, written, anchor="end"))
    columns: list[Markup] = []
    places: list[tuple[_Part, float]] = []
    x = left
    for _, members in bands:
        width = pitch * len(members)
        drawn.append(rectangle(x, top, width, bottom - top, "band"))
        for index, part in enumerate(members):
            place = part.at(0, len(places))
            columns += _column(part, scale, x + index * pitch, pitch, bottom, place)
            places.append((part, x + (index + 0.5) * pitch))
        x += width + gap
    drawn += _band_names([(n, pitch * len(m)) for n, m in bands], left, gap, bottom + 30)
    zero = line(left, scale(0), _WIDTH, scale(0), "zero")
    return [*drawn, *frame, *columns, zero, *_largest_named(places, scale)], bottom + 38


def _band_names(
    bands: Sequence[tuple[str, float]], left: float, gap: float, y: float
) -> list[Markup]:
    """Names under bands (name, width): only their last words where whole names would touch."""
    crowded = any(text_width(name, NORMAL) > width + gap for name, width in bands if width > 40)
    crowded = crowded or all(width <= 40 for _, width in bands)
    drawn: list[Markup] = []
    x, taken = left, -math.inf
    for name, width in bands:
        shown = name.split()[-1] if crowded and name.split() else name
        half = text_width(shown, NORMAL) / 2
        middle = max(x + width / 2, half)
        if middle - half > taken:
            drawn.append(label(middle, y, shown, anchor="middle", kind="axis"))
            taken = middle + half + 2
        x += width + gap
    return drawn


def _column(
    part: _Part, scale: Scale, x: float, pitch: float, bottom: float, place: Mapping[str, object]
) -> list[Markup]:
    middle = x + pitch / 2
    drawn: list[Markup] = []
    if part.short and text_width(part.short, 9) < pitch - 1:
        drawn.append(label(middle, bottom + 13, part.short, anchor="middle", kind="tiny"))
    if math.isnan(part.size.mean):
        return drawn
    upper, lower = sorted((scale(0), scale(part.size.mean)))
    air = 0.12 * pitch
    height = max(lower - upper, 0.75)
    drawn.append(
        rectangle(x + air, upper, pitch - 2 * air, height, part.kind, hint(part.said), **place)
    )
    if part.size.has_interval:
        drawn.append(line(middle, scale(part.size.low), middle, scale(part.size.high), "whisker"))
    return drawn


def _largest_named(places: Sequence[tuple[_Part, float]], scale: Scale) -> list[Markup]:
    """Names of the six largest, each left out where it would lie on a larger one's."""
    finite = [place for place in places if not math.isnan(place[0].size.mean)]
    ranked = sorted(finite, key=lambda place: -abs(place[0].size.mean))[:6]
    drawn: list[Markup] = []
    taken: list[tuple[float, float, float]] = []
    for part, x in ranked:
        size = part.size
        up = size.mean >= 0
        outer = (size.high if up else size.low) if size.has_interval else size.mean
        y = scale(outer) - 5 if up else scale(outer) + 13
        half = text_width(part.name, SMALL) / 2 + 2
        x = min(max(x, 44 + half), _WIDTH - half)
        if any(abs(x - other) < half + room and abs(y - at) < 13 for other, at, room in taken):
            continue
        taken.append((x, y, half))
        drawn.append(label(x, y, part.name, anchor="middle", kind="callout"))
    return drawn


def _sum_check(total: Total, top: float) -> tuple[list[Markup], float]:
    names_wide = 190.0
    scale = scale_over(_reach([total.parts, total.measured]), names_wide + 10, _WIDTH - 70)
    rows = [
        _Part(total.parts_name, "", "", total.parts),
        _Part(f"measured {total.measured_name}", "", "", total.measured),
    ]
    drawn = [line(0, top, _WIDTH, top, "grid")]
    for index, part in enumerate(rows):
        drawn += _row(part, scale, top + 12 + 21 * index, 21, names_wide)
    said = f"largest difference on any one example: {total.largest_gap:.1e}"
    drawn.append(label(names_wide + 10, top + 70, said))
    return drawn, top + 80


def _in_words(parts: Sequence[_Part], total: Total | None) -> str:
    finite = [part for part in parts if not math.isnan(part.size.mean)]
    ranked = sorted(finite, key=lambda part: -abs(part.size.mean))[:3]
    said = f"Bar chart of {len(parts)} parts; largest: {'; '.join(p.said for p in ranked)}."
    if total is not None:
        said += f" Together {number(total.parts.mean)}; measured {number(total.measured.mean)}."
    return said


def _table(parts: Sequence[_Part], total: Total | None, title: str, measure: str) -> Table:
    rows = [(part.name, part.written) for part in parts]
    if total is not None:
        rows.append((total.parts_name, total.parts.written(sign=True)))
        rows.append((f"measured {total.measured_name}", total.measured.written(sign=True)))
    return Table(caption=title, columns=("part", measure), rows=tuple(rows))
