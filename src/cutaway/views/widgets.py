"""Figures in notebooks that can be used as in the report: the same client, the same drawing.

A widget is an `anywidget`, so it works in Jupyter, VS Code, Colab and marimo, without a server. It
shares two values with Python in both directions: `chosen`, the name of the part that is chosen
(`"a2.h1"`, or nothing), and `size`, the number of edges that is shown.

Importing this module raises `ViewError` where anywidget is not installed.
"""

from __future__ import annotations

from typing import Any, Protocol

from cutaway.views.circuit import circuit
from cutaway.views.circuit_values import CircuitView
from cutaway.views.figure import Figure, ViewError, asset, figure_css
from cutaway.views.text import MOST, inert, shortened
from cutaway.views.tree import tree

try:
    import anywidget
    import traitlets
except ImportError as error:
    raise ViewError(
        "Widgets need the package anywidget, which is not installed; "
        "pip install 'cutaway[notebook]'."
    ) from error

_HOST = ".cutaway-widget"


class FigureWidget(anywidget.AnyWidget):
    """A figure in a notebook's cell. Made by `widget`."""

    _esm = asset("bundle/cutaway.js")
    # nested, so that none of the client's names means anything outside the cell
    _css = f"{figure_css(_HOST)}\n{asset('templates/widget.css')}\n" + (
        f"{_HOST}{{\n{asset('templates/live.css')}}}"
    )
    title = traitlets.Unicode().tag(sync=True)
    """The figure's name."""
    shows = traitlets.Unicode().tag(sync=True)
    """The figure's sentence."""
    drawing = traitlets.List(None, allow_none=True).tag(sync=True)
    """The figure's drawing as plain values; None where a view takes its place."""
    kind = traitlets.Unicode("").tag(sync=True)
    """Which of the client's views goes with it; empty for none."""
    data = traitlets.Dict().tag(sync=True)
    """What that view draws from."""
    chosen = traitlets.Unicode("").tag(sync=True)
    """The part of the model that is chosen, by name; empty for none."""
    size = traitlets.Int(None, allow_none=True).tag(sync=True)
    """The number of edges shown, where the view has sizes; the figure's own first size if None."""


class Drawable(Protocol):
    """A result that draws itself: lenses, attention patterns, effects of patching, and others."""

    def plot(self, *args: Any, **options: Any) -> Figure:
        """Its picture."""
        ...


def widget(shown: Figure | CircuitView | Drawable, *args: Any, **options: Any) -> FigureWidget:
    """A figure to be used in a notebook: its cells and marks read, its parts chosen.

    `shown` is a figure, a circuit's view (`cutaway.circuits.picture.view`), or a result, which is
    drawn by its own `plot(*args, **options)`. Raises `ViewError` for options of what is drawn
    already.
    """
    if isinstance(shown, Figure | CircuitView) and (args or options):
        raise ViewError(
            f"{type(shown).__name__} {shown.title!r} is drawn as it is; options are for results, "
            "whose plot() takes them."
        )
    figure = shown
    if isinstance(shown, CircuitView):
        figure = circuit(shown)
    elif not isinstance(shown, Figure):
        figure = shown.plot(*args, **options)
    assert isinstance(figure, Figure)
    live = figure.live
    return FigureWidget(
        title=inert(shortened(figure.title, MOST)),
        shows=inert(shortened(figure.shows, MOST)),
        drawing=None if live is not None and not live.beside else tree(figure.svg),
        kind="" if live is None else live.kind,
        data={} if live is None else dict(live.data),
    )
