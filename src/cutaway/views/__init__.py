"""What a person looks at: figures, and the report that holds them in one HTML file.

Figures are pure functions from plain values to an SVG drawing with its sentence, its description
and its numbers (`Figure`). A `Report` is a list of sections of sentences, example prompts and
figures; `render` makes the page and `write` puts it in a file.
"""

from cutaway.views.attention import attention
from cutaway.views.bars import Total, bars
from cutaway.views.circuit import circuit
from cutaway.views.circuit_story import story
from cutaway.views.circuit_values import (
    CircuitEdge,
    CircuitNode,
    CircuitSize,
    CircuitView,
    Reading,
)
from cutaway.views.distribution import distribution
from cutaway.views.dots import Panel, Variation, breakdown, dots
from cutaway.views.figure import Figure, Live, Table, ViewError
from cutaway.views.heatmap import heatmap, lens
from cutaway.views.lines import Series, lens_curve
from cutaway.views.page import ExamplePrompt, Fact, Part, Point, Report, Section
from cutaway.views.report import render, write
from cutaway.views.scatter import scatter
from cutaway.views.text import Estimate

__all__ = [
    "CircuitEdge",
    "CircuitNode",
    "CircuitSize",
    "CircuitView",
    "Estimate",
    "ExamplePrompt",
    "Fact",
    "Figure",
    "Live",
    "Panel",
    "Part",
    "Point",
    "Reading",
    "Report",
    "Section",
    "Series",
    "Table",
    "Total",
    "Variation",
    "ViewError",
    "attention",
    "bars",
    "breakdown",
    "circuit",
    "distribution",
    "dots",
    "heatmap",
    "lens",
    "lens_curve",
    "render",
    "scatter",
    "story",
    "write",
]
