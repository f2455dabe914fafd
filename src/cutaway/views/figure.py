"""What a figure is: a picture, the sentence it supports, and the numbers behind it."""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xarray as xr
from markupsafe import Markup

from cutaway.errors import CutawayError
from cutaway.views.palette import theme_css
from cutaway.views.svg import tag
from cutaway.views.text import MOST, inert, shortened, text_width

Numbers = npt.ArrayLike | xr.DataArray
"""Anything with axes and numbers in it; per-example values are averaged by the caller."""
Array = npt.NDArray[np.float64]


_MARGIN, _HEADING = 12, 13


class ViewError(CutawayError):
    """Values that cannot be drawn, or a report that cannot be written."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of text and numbers; the first column names each row."""

    caption: str
    """What the table holds, in one line."""
    columns: tuple[str, ...]
    """Column headings."""
    rows: tuple[tuple[str, ...], ...]
    """Cells as they are to be read, one tuple per row, as long as `columns`."""

    def __post_init__(self) -> None:
        for index, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ViewError(
                    f"Row {index} of the table '{self.caption}' has {len(row)} cells where "
                    f"{len(self.columns)} columns were announced: give every row that many."
                )


@dataclass(frozen=True, kw_only=True)
class Live:
    """What the client shows with a drawing, where scripts run."""

    kind: str
    """Which of the client's views."""
    data: Mapping[str, object]
    """What that view draws from: text, numbers, lists and mappings of them."""
    beside: bool = False
    """Whether it stands beside the drawing; else it takes the drawing's place, but in print."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture with everything a reader needs to trust it."""

    svg: Markup
    """The drawing; colours are classes, so it needs the report's styles or `standalone()`."""
    title: str
    """A short name."""
    shows: str
    """One sentence: what it shows."""
    alt: str
    """What it shows, for those who cannot see it."""
    table: Table | None = None
    """The numbers drawn, for screen readers and for copying."""
    reproduce: str = ""
    """A command or snippet that makes this figure again."""
    live: Live | None = None
    """The view that stands with the drawing where scripts run."""
    part: str = ""
    """The part of the model that the whole figure is about (`a3.h1`), if it is about one."""

    @property
    def narrow(self) -> bool:
        """Whether two such figures fit side by side in a report."""
        return 'class="cutaway narrow"' in self.svg

    def standalone(self) -> str:
        """A complete SVG file: the title and the drawing with its styles, light or dark as the
        viewer is, on a ground of its own."""
        sizes = re.search(r' width="([\d.]+)" height="([\d.]+)"', self.svg)
        assert sizes is not None
        width = max(float(sizes[1]), text_width(self.title, _HEADING)) + 2 * _MARGIN
        height = float(sizes[2]) + 2 * _MARGIN + 26
        title = tag("text", self.title, x=_MARGIN, y=_MARGIN + 12, class_="heading")
        style = f"<style>{figure_css()}\nsvg.alone{{background:var(--card)}}</style>"
        inner = str(self.svg).replace("<svg", f'<svg x="{_MARGIN}" y="{_MARGIN + 26}"', 1)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
            f'width="{width:g}" height="{height:g}" class="cutaway alone">'
            f"{style}{title}{inner}</svg>"
        )

    def save(self, path: str | Path) -> Path:
        """Write the complete SVG file. Raises `ViewError` where that cannot be done."""
        target = Path(path)
        if target.suffix.lower() != ".svg":
            raise ViewError(
                f"A figure is saved as an SVG file; found {target.name!r}, name it .svg."
            )
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(self.standalone(), encoding="utf-8")
        except OSError as error:
            raise ViewError(
                f"The figure cannot be saved as {target} ({error.strerror or error}); choose a "
                "place that can be written."
            ) from error
        return target

    def _repr_svg_(self) -> str:
        return self.standalone()

    def _repr_html_(self) -> str:
        """The picture and its sentence; as an image, so that its styles mean nothing outside."""
        drawn = base64.b64encode(self.standalone().encode("utf-8")).decode("ascii")
        return Markup(
            '<figure style="margin:0"><img src="data:image/svg+xml;base64,{}" alt="{}" '
            'style="max-width:100%"><figcaption>{}</figcaption></figure>'
        ).format(drawn, inert(shortened(self.alt, MOST)), inert(shortened(self.shows, MOST)))


def figure_css(root: str = ":root") -> str:
    """Theme variables (see `theme_css`) and the rules for what figures draw."""
    return f"{theme_css(root)}\n{asset('templates/figure.css')}"


def asset(name: str) -> str:
    """A text file of this package: a style sheet, or the client's bundle."""
    return files("cutaway.views").joinpath(name).read_text("utf-8")


def as_array(values: Numbers, dimensions: int, what: str) -> Array:
    """`values` as floats with this many axes, or a `ViewError` that says what was found."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != dimensions or not array.size:
        raise ViewError(
            f"{what} has shape {array.shape}, where a non-empty array of {dimensions} axes "
            "was expected: average over examples first, or pick one."
        )
    return array


def same_length(what: str, expected: int, **others: Sequence[object] | None) -> None:
    """Refuse sequences (None is fine) that are not as long as the values they go with."""
    wrong = {name: len(o) for name, o in others.items() if o is not None and len(o) != expected}
    if wrong:
        found = ", ".join(f"{count} {name}" for name, count in wrong.items())
        raise ViewError(f"{what} has {expected} entries but {found}: give one for each.")
