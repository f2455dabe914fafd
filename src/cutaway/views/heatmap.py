"""A grid of values: patching effects by layer and head, lens readings by layer and position.

Colour is centred at zero and symmetric, so that equal strength looks equal in both directions;
amounts without a sign have a ramp of their own, from nothing to the strongest colour. Each
cell carries its value and interval as a title; rows and columns can be walked with the arrow keys
(the report's script), and the same numbers stand in the figure's table. Where p-values are given,
cells above 0.05 are small, so that their colour can still be read.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from cutaway.views.figure import Array, Figure, Numbers, Table, ViewError, as_array, same_length
from cutaway.views.palette import DIVERGING_STEPS, SEQUENTIAL_STEPS, diverging_step, sequential_step
from cutaway.views.svg import (
    NORMAL,
    SMALL,
    drawing,
    fitted,
    hint,
    label,
    rectangle,
)
from cutaway.views.text import Estimate, decimals, number, p_value, text_width, token_label, word

_LEGEND_WIDTH, _LEGEND_HEIGHT = 164, 10
_LEVEL = 0.05
_SMALL_INSET = 0.26
"""How far a small cell is drawn in from each side, as a share of it."""


def heatmap(
    values: Numbers,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str,
    shows: str,
    row_axis: str = "layer",
    column_axis: str = "head",
    measure: str = "effect",
    ends: tuple[str, str] = ("", ""),
    lows: Numbers | None = None,
    highs: Numbers | None = None,
    p: Numbers | None = None,
    limit: float | None = None,
    signed: bool = True,
    row_parts: Sequence[str] | None = None,
    reproduce: str = "",
) -> Figure:
    """Draw `values` [row column], NaN where nothing was measured, with optional interval ends.

    `measure` names the values; `ends` says what the negative and positive ends mean; `p` are
    p-values, told with each value, whose cell is small where they are above 0.05; `limit` is the
    value of the strongest colour (default: the largest magnitude present). `signed` False draws
    amounts, from 0 to `limit`. `row_parts` names the part of the model that each row is about
    (`m3`), where the axes do not say it: cells of layer and head, and rows of heads, are known.
    """
    same_length("The heatmap's first axis", len(rows), row_parts=row_parts)
    grid = _Grid.of(values, lows, highs, p, rows, columns, limit, signed=signed)
    names = (row_axis, column_axis, measure)
    heading = f"{measure}   (− {ends[0]}, + {ends[1]})" if any(ends) else measure
    layout = _Layout.of(grid, heading)
    parts = [
        *_legend(layout, grid, heading),
        *_column_labels(layout, grid, column_axis),
        *_row_labels(layout, grid, row_axis),
        *_cells(layout, grid, names, row_parts),
    ]
    alt = f"{title}. {_in_words(grid, names)} {shows}"
    return Figure(
        svg=drawing(layout.width, layout.height, alt, parts, data_grid="cells"),
        title=title,
        shows=shows,
        alt=alt,
        table=_table(grid, names, title),
        reproduce=reproduce,
    )


def lens(
    values: Numbers,
    layers: Sequence[str],
    positions: Sequence[str],
    *,
    title: str = "What each layer would answer",
    shows: str,
    measure: str = "logit difference",
    lows: Numbers | None = None,
    highs: Numbers | None = None,
    limit: float | None = None,
    reproduce: str = "",
) -> Figure:
    """Draw a logit-lens reading [layer position], averaged over examples, as a heatmap."""
    return heatmap(
        values,
        layers,
        positions,
        title=title,
        shows=shows,
        column_axis="position",
        measure=measure,
        ends=("wrong answer", "correct answer"),
        lows=lows,
        highs=highs,
        limit=limit,
        reproduce=reproduce,
    )


@dataclass(frozen=True)
class _Grid:
    values: Array
    lows: Array | None
    highs: Array | None
    p: Array | None
    rows: list[str]
    columns: list[str]
    limit: float
    signed: bool

    @staticmethod
    def of(
        values: Numbers,
        lows: Numbers | None,
        highs: Numbers | None,
        p: Numbers | None,
        rows: Sequence[str],
        columns: Sequence[str],
        limit: float | None,
        *,
        signed: bool,
    ) -> "_Grid":
        array = as_array(values, 2, "The heatmap's values")
        same_length("The heatmap's first axis", array.shape[0], rows=rows)
        same_length("The heatmap's second axis", array.shape[1], columns=columns)
        beside = [
            None if each is None else as_array(each, 2, "What goes with each cell")
            for each in (lows, highs, p)
        ]
        for each in beside:
            if each is not None and each.shape != array.shape:
                raise ViewError(
                    f"The heatmap has shape {array.shape} but its intervals or p-values have "
                    f"{each.shape}: give one for each cell."
                )
        finite = np.abs(array[np.isfinite(array)])
        top = limit or (float(finite.max()) if finite.size else 0.0)
        return _Grid(
            array, beside[0], beside[1], beside[2], [str(r) for r in rows],
            [str(c) for c in columns], top or 1.0, signed,
        )  # fmt: skip

    def at(self, row: int, column: int) -> Estimate:
        low = float(self.lows[row, column]) if self.lows is not None else math.nan
        high = float(self.highs[row, column]) if self.highs is not None else math.nan
        return Estimate(float(self.values[row, column]), low, high)

    def written(self, row: int, column: int, *, sign: bool = False) -> str:
        """A cell's value with its interval and its p-value."""
        told = self.at(row, column).written(sign=sign)
        if self.p is None or not math.isfinite(self.p[row, column]):
            return told
        return f"{told}, {p_value(float(self.p[row, column]))}"

    def small(self, row: int, column: int) -> bool:
        """Whether a cell may be chance."""
        return self.p is not None and bool(self.p[row, column] > _LEVEL)

    def colour(self, value: float) -> tuple[str, str]:
        """The classes of a cell's fill and of the text on it."""
        if self.signed:
            step = diverging_step(value, self.limit)
            return f"d{step}", f"e{step}"
        step = sequential_step(value, self.limit)
        return f"s{step}", f"u{step}"


@dataclass(frozen=True)
class _Layout:
    left: float
    top: float
    cell_width: float
    cell_height: float
    width: float
    height: float
    slanted: bool
    column_room: float
    column_depth: float

    @staticmethod
    def of(grid: _Grid, heading: str) -> "_Layout":
        n_rows, n_columns = grid.values.shape
        cell_width = max(15.0, min(42.0, 640 / n_columns))
        cell_height = max(11.0, min(32.0, 560 / n_rows, cell_width * 0.8))
        longest = max(text_width(token_label(c), SMALL) for c in grid.columns)
        slanted = longest > cell_width - 4 and longest > 24
        room = min(longest, 110.0)
        rows_wide = max(text_width(token_label(r), SMALL) for r in grid.rows)
        # a name slanted by 45° reaches about this far down, and to the left of its column
        deep = 0.72 * room + 14 if slanted else 18.0
        left = max(34 + min(rows_wide, 130.0), deep - cell_width / 2 if slanted else 0)
        top = 60.0
        width = left + max(n_columns * cell_width + 4, 300, text_width(heading, NORMAL))
        height = top + n_rows * cell_height + deep + 22
        return _Layout(left, top, cell_width, cell_height, width, height, slanted, room, deep)


def _legend(layout: _Layout, grid: _Grid, heading: str) -> list[Markup]:
    ramp, steps = ("d", 2 * DIVERGING_STEPS + 1) if grid.signed else ("s", SEQUENTIAL_STEPS + 1)
    each = _LEGEND_WIDTH / steps
    left, top, limit = layout.left, 22, grid.limit
    strip = [
        rectangle(left + step * each, top, each + 0.4, _LEGEND_HEIGHT, f"{ramp}{step}")
        for step in range(steps)
    ]
    digits = 1 if limit >= 10 else decimals(limit)
    finite = grid.values[np.isfinite(grid.values)]
    below = "≤ " if finite.size and finite.min() < -1.005 * limit else ""
    above = "≥ " if finite.size and finite.max() > 1.005 * limit else ""
    most = above + number(limit, digits, sign=grid.signed)
    ticks = [(0.0, "0", "start"), (1.0, most, "end")]
    if grid.signed:
        least = below + number(-limit, digits, sign=True)
        ticks = [(0.0, least, "start"), (0.5, "0", "middle"), (1.0, most, "end")]
    marks = [
        label(left + share * _LEGEND_WIDTH, top + 24, written, anchor=anchor)
        for share, written, anchor in ticks
    ]
    if grid.p is not None and bool((grid.p > _LEVEL).any()):
        marks.append(label(left + _LEGEND_WIDTH + 18, top + 9, f"▪ p > {_LEVEL}"))
    return [label(left, 13, heading, kind="axis"), *strip, *marks]


def _column_labels(layout: _Layout, grid: _Grid, axis: str) -> list[Markup]:
    parts: list[Markup] = []
    bottom = layout.top + len(grid.rows) * layout.cell_height
    longest = max(text_width(token_label(c), SMALL) for c in grid.columns)
    every = 1 if layout.slanted else max(1, math.ceil((longest + 3) / layout.cell_width))
    for index, text in enumerate(grid.columns):
        if index % every:
            continue
        x = layout.left + (index + 0.5) * layout.cell_width
        shown = fitted(word(text) or "␣", layout.column_room)
        if layout.slanted:
            x, y = x + 4, bottom + 11
            turned = f"rotate(-45 {x:.1f} {y:.1f})"
            parts.append(label(x, y, shown, anchor="end", transform=turned))
        else:
            parts.append(label(x, bottom + 15, shown, anchor="middle"))
    middle = layout.left + len(grid.columns) * layout.cell_width / 2
    below = bottom + layout.column_depth + 15
    parts.append(label(middle, below, axis, anchor="middle", kind="axis"))
    return parts


def _row_labels(layout: _Layout, grid: _Grid, axis: str) -> list[Markup]:
    every = max(1, math.ceil(12 / layout.cell_height))
    parts = [
        label(
            layout.left - 8,
            layout.top + (index + 0.5) * layout.cell_height + SMALL * 0.35,
            fitted(word(text) or "␣", 130),
            anchor="end",
        )
        for index, text in enumerate(grid.rows)
        if index % every == 0
    ]
    middle = layout.top + len(grid.rows) * layout.cell_height / 2
    turned = f"rotate(-90 14 {middle:.1f})"
    parts.append(label(14, middle, axis, anchor="middle", kind="axis", transform=turned))
    return parts


def _cells(
    layout: _Layout, grid: _Grid, names: tuple[str, str, str], row_parts: Sequence[str] | None
) -> list[Markup]:
    parts: list[Markup] = []
    gap = 1 if layout.cell_height < 16 else 2
    printed = layout.cell_width >= 38 and layout.cell_height >= 20
    for row in range(len(grid.rows)):
        for column in range(len(grid.columns)):
            cell = grid.at(row, column)
            x = layout.left + column * layout.cell_width
            y = layout.top + row * layout.cell_height
            said = _said(grid, names, row, column)
            part = row_parts[row] if row_parts else _part(grid, names, row, column)
            place = {"data_r": row, "data_c": column, "data_part": part}
            place["rx"] = 2 if gap > 1 else 0
            size = (layout.cell_width - gap, layout.cell_height - gap)
            if math.isnan(cell.mean):
                parts.append(rectangle(x, y, *size, "missing", hint(said), **place))
                continue
            fill, ink = grid.colour(cell.mean)
            small = grid.small(row, column)
            inset = _SMALL_INSET if small else 0.0
            place_of = (x + inset * size[0], y + inset * size[1])
            shape = (size[0] * (1 - 2 * inset), size[1] * (1 - 2 * inset))
            parts.append(rectangle(*place_of, *shape, f"cell {fill}", hint(said), **place))
            if printed and not small and abs(cell.mean) >= 0.08 * grid.limit:
                middle = x + size[0] / 2
                written = number(cell.mean, 1 if grid.limit >= 10 else decimals(grid.limit))
                baseline = y + size[1] / 2 + 4
                parts.append(
                    label(middle, baseline, written, anchor="middle", kind=f"inside {ink}")
                )
    return parts


def _part(grid: _Grid, names: tuple[str, str, str], row: int, column: int) -> str | None:
    """The head or MLP that a cell stands for, as circuits call it, by which it is chosen."""
    layer, _, head = grid.rows[row].partition(".")
    if names[:2] == ("layer", "head"):
        layer, head = grid.rows[row], grid.columns[column]
        if head == "MLP":
            return f"m{layer}"
    elif names[0] != "head":
        return None
    return f"a{layer}.h{head}" if layer.isdecimal() and head.isdecimal() else None


def _said(grid: _Grid, names: tuple[str, str, str], row: int, column: int) -> str:
    missing = math.isnan(grid.values[row, column])
    value = "not measured" if missing else grid.written(row, column, sign=grid.signed)
    where = f"{names[0]} {token_label(grid.rows[row])}"
    return f"{where}, {names[1]} {token_label(grid.columns[column])}: {names[2]} {value}"


def _in_words(grid: _Grid, names: tuple[str, str, str]) -> str:
    shape = f"Heatmap of {names[2]} over {len(grid.rows)} × {len(grid.columns)} cells"
    if not np.isfinite(grid.values).any():
        return f"{shape}, none measured."
    strongest = int(np.nanargmax(np.abs(grid.values)))
    row, column = divmod(strongest, len(grid.columns))
    said = _said(grid, names, row, column)
    return f"{shape}; strongest at {said}."


def _table(grid: _Grid, names: tuple[str, str, str], title: str) -> Table:
    rows = tuple(
        (
            token_label(row_name),
            *(grid.written(row, column) for column in range(len(grid.columns))),
        )
        for row, row_name in enumerate(grid.rows)
    )
    heads = tuple(f"{names[1]} {token_label(column)}" for column in grid.columns)
    return Table(caption=f"{title}: {names[2]}", columns=(names[0], *heads), rows=rows)
