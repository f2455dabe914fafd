"""Means with intervals, one row each, in panels side by side: a behaviour by its variations."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from cutaway.views.figure import Figure, Table, ViewError, same_length
from cutaway.views.svg import (
    NORMAL,
    Scale,
    drawing,
    fitted,
    hint,
    label,
    line,
    rectangle,
    scale_over,
    tag,
)
from cutaway.views.text import Estimate, decimals, inert, number, shortened, text_width

_WIDTH = 780.0
_TOP, _PITCH, _GROUP_GAP = 34.0, 24.0, 32.0
_NAME_ROOM = 230.0


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One measure, drawn for every row."""

    measure: str
    """What is measured."""
    estimates: tuple[Estimate, ...]
    """One per row."""
    percent: bool = False
    """Fractions written as percentages, on an axis from 0 (50 where all lie above) to 100 %."""
    overall: float | None = None
    """Mean over everything, drawn as a dashed line."""


@dataclass(frozen=True, kw_only=True)
class Variation:
    """How the behaviour fares on the examples that share one value of one variation."""

    kind: str
    """What varies: template, order, …"""
    value: str
    """This value of it."""
    n: int
    """How many examples."""
    accuracy: Estimate
    """Fraction answered correctly, 0 to 1."""
    logit_difference: Estimate
    """Mean logit difference."""


def dots(
    labels: Sequence[str],
    panels: Sequence[Panel],
    *,
    title: str,
    shows: str,
    groups: Sequence[str] | None = None,
    counts: Sequence[int] | None = None,
    reproduce: str = "",
) -> Figure:
    """Draw a dot and its interval for each label, in one to three panels that share the labels.

    `groups` puts a heading over neighbours with one name; `counts` is how many examples a row has.
    """
    if not 1 <= len(panels) <= 3 or not labels:
        raise ViewError(
            f"A dot chart got {len(labels)} rows and {len(panels)} panels: give 1 to 3 panels "
            "and at least one row."
        )
    count = len(labels)
    same_length("The dot chart's labels", count, groups=groups)
    for panel in panels:
        same_length(f"The panel '{panel.measure}'", len(panel.estimates), labels=labels)
    same_length("The dot chart's labels", count, counts=counts)
    named = [_in_lines(inert(text)) for text in labels]
    heights, headings, bottom = _places(groups, [len(lines) for lines in named])
    widest = max(text_width(each, NORMAL) for lines in named for each in lines)
    wide = min(_NAME_ROOM, widest) + (56 if counts else 4)
    each = (_WIDTH - wide) / len(panels)
    parts = [label(0, y, fitted(name, wide + 40, NORMAL), kind="heading") for name, y in headings]
    for index, (y, lines) in enumerate(zip(heights, named, strict=True)):
        first = y + 4 - 7.5 * (len(lines) - 1)
        parts += [label(0, first + 15 * at, text, kind="name") for at, text in enumerate(lines)]
        if counts:
            parts.append(label(wide, y + 4, f"n = {counts[index]}", anchor="end"))
        parts.append(rectangle(0, y - 11, wide, 22, "nothing", hint(labels[index])))
    for index, panel in enumerate(panels):
        left = wide + index * each
        parts += _panel(panel, labels, heights, left + 22, left + each - 62, bottom)
    names = ", ".join(panel.measure for panel in panels)
    alt = f"{title}. Dots with intervals for {count} rows: {names}. {shows}"
    return Figure(
        svg=drawing(_WIDTH, bottom + 26, alt, parts),
        title=title,
        shows=shows,
        alt=alt,
        table=_table(labels, panels, groups, counts, title),
        reproduce=reproduce,
    )


def breakdown(
    variations: Sequence[Variation],
    *,
    title: str = "Does it hold for every variation?",
    shows: str,
    overall_accuracy: float | None = None,
    overall_logit_difference: float | None = None,
    reproduce: str = "",
) -> Figure:
    """Draw accuracy and logit difference for each variation, grouped by its kind."""
    panels = (
        Panel(
            measure="accuracy",
            estimates=tuple(v.accuracy for v in variations),
            percent=True,
            overall=overall_accuracy,
        ),
        Panel(
            measure="logit difference",
            estimates=tuple(v.logit_difference for v in variations),
            overall=overall_logit_difference,
        ),
    )
    return dots(
        [v.value for v in variations],
        panels,
        title=title,
        shows=shows,
        groups=[v.kind for v in variations],
        counts=[v.n for v in variations],
        reproduce=reproduce,
    )


def _in_lines(text: str) -> list[str]:
    """A row's name in one line, or broken at a blank into two, the second cut to fit."""
    if text_width(text, NORMAL) <= _NAME_ROOM:
        return [text]
    first, rest = "", text
    for at in (index for index, character in enumerate(text) if character == " "):
        if text_width(text[:at], NORMAL) > _NAME_ROOM:
            break
        first, rest = text[:at], text[at + 1 :]
    return [line for line in (first, fitted(rest, _NAME_ROOM, NORMAL)) if line]


def _places(
    groups: Sequence[str] | None, lines: Sequence[int]
) -> tuple[list[float], list[tuple[str, float]], float]:
    """The middle of each row, each group's heading with its baseline, and where the rows end."""
    heights: list[float] = []
    headings: list[tuple[str, float]] = []
    y = _TOP
    for index, count in enumerate(lines):
        if groups is not None and (index == 0 or groups[index] != groups[index - 1]):
            headings.append((groups[index], y + 18))
            y += _GROUP_GAP
        pitch = _PITCH + 15 * (count - 1)
        heights.append(y + pitch / 2)
        y += pitch
    return heights, headings, y + 4


def _panel(
    panel: Panel,
    labels: Sequence[str],
    heights: Sequence[float],
    left: float,
    right: float,
    bottom: float,
) -> list[Markup]:
    scale = _panel_scale(panel, left, right)
    parts = [label(left, 13, panel.measure, kind="axis")]
    for tick in scale.ticks(2 if panel.percent else 4):
        written = f"{100 * tick:.0f} %" if panel.percent else number(tick, scale.decimals(4))
        kind = "zero" if tick == 0 else "grid"
        parts.append(line(scale(tick), _TOP - 8, scale(tick), bottom, kind))
        parts.append(label(scale(tick), bottom + 16, written, anchor="middle"))
    if panel.overall is not None:
        where = scale(panel.overall)
        parts.append(line(where, _TOP - 8, where, bottom, "reference"))
        parts.append(label(where, _TOP - 11, "all", anchor="middle", kind="tiny"))
    for y, text, estimate in zip(heights, labels, panel.estimates, strict=True):
        said = f"{text}: {panel.measure} {estimate.written(percent=panel.percent)}"
        parts += _dot(estimate, scale, y, said)
        digits = decimals(max(-scale.low, scale.high))
        written = number(estimate.mean, digits, percent=panel.percent)
        parts.append(label(right + 62, y + 4, written, anchor="end", kind="value"))
    return parts


def _panel_scale(panel: Panel, left: float, right: float) -> Scale:
    if panel.percent:
        lowest = min(min(e.mean, e.low if e.has_interval else e.mean) for e in panel.estimates)
        return Scale(0.5 if lowest >= 0.55 else 0.0, 1.0, left, right)
    ends = [end for e in panel.estimates for end in (e.mean, e.low, e.high)]
    return scale_over([*ends, panel.overall or 0.0], left, right)


def _dot(estimate: Estimate, scale: Scale, y: float, said: str) -> list[Markup]:
    if estimate.mean != estimate.mean:  # NaN: nothing to place
        return []
    kind = "negative" if estimate.mean < 0 else "positive"
    parts: list[Markup] = []
    if estimate.has_interval:
        parts.append(line(scale(estimate.low), y, scale(estimate.high), y, f"interval {kind}"))
    parts.append(
        tag("circle", hint(said), cx=scale(estimate.mean), cy=y, r=4.5, class_=f"dot {kind}")
    )
    return parts


def _table(
    labels: Sequence[str],
    panels: Sequence[Panel],
    groups: Sequence[str] | None,
    counts: Sequence[int] | None,
    title: str,
) -> Table:
    rows: list[tuple[str, ...]] = []
    for index, text in enumerate(labels):
        name = shortened(f"{groups[index]}: {text}" if groups else text, 200)
        numbers = (panel.estimates[index].written(percent=panel.percent) for panel in panels)
        rows.append((name, *([str(counts[index])] if counts else []), *numbers))
    heads = ("row", *(["examples"] if counts else []), *(panel.measure for panel in panels))
    return Table(caption=title, columns=heads, rows=tuple(rows))
