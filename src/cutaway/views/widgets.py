"""Figures in notebooks that can be used as in the report: the same client, the same drawing.

A widget is an `anywidget`, so it works in Jupyter, VS Code, Colab and marimo, without a server. It
shares two values with Python in both directions: `chosen`, the name of the part that is chosen
(`"a2.h1"`, or nothing), and `size`, the number of edges that is shown.

Importing this module raises `ViewError` where anywidget is not installed.
"""

from __future__ import annotations

from cutaway.views.figure import Figure, ViewError, asset, figure_css

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
    """A figure with a live view, in a notebook's cell. Made by `widget`."""

    _esm = asset("bundle/cutaway.js")
    _css = "\n".join(
        (figure_css(_HOST), asset("templates/widget.css"), asset("templates/circuit.css"))
    )
    kind = traitlets.Unicode().tag(sync=True)
    """Which of the client's views it is."""
    title = traitlets.Unicode().tag(sync=True)
    """The figure's name."""
    shows = traitlets.Unicode().tag(sync=True)
    """The figure's sentence."""
    data = traitlets.Dict().tag(sync=True)
    """What the view draws from."""
    chosen = traitlets.Unicode("").tag(sync=True)
    """The part that is chosen, by name; empty for none."""
    size = traitlets.Int(None, allow_none=True).tag(sync=True)
    """The number of edges shown, where the view has sizes; the figure's own first size if None."""


def widget(figure: Figure) -> FigureWidget:
    """A figure to be used in a notebook. Raises `ViewError` for one without a live view."""
    if figure.live is None:
        raise ViewError(
            f"The figure '{figure.title}' is a drawing without a live view; show the figure "
            "itself, which notebooks draw."
        )
    return FigureWidget(
        kind=figure.live.kind, data=dict(figure.live.data), title=figure.title, shows=figure.shows
    )
