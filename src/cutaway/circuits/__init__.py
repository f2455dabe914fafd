"""Touching many edges at once: the graph of a decoder, its masked forward, and circuits in it."""

from cutaway.circuits.circuit import Circuit, greedy, threshold, top_n
from cutaway.circuits.compare import compare
from cutaway.circuits.comparison import Comparison
from cutaway.circuits.crossing import Crossing, cross
from cutaway.circuits.discovery import METHODS, discover
from cutaway.circuits.effects import RANKED_BY, NoEffectError
from cutaway.circuits.evaluate import evaluate
from cutaway.circuits.evaluation import Check, Evaluation
from cutaway.circuits.faithfulness import SIZES, Curve, Ratio, curve
from cutaway.circuits.features import Case, Feature, Function
from cutaway.circuits.graph import CircuitError, Edge, Granularity, Graph, Reader, Writer
from cutaway.circuits.hypotheses import Hypothesis, Node
from cutaway.circuits.masked import Masked
from cutaway.circuits.optimal import optimal_constants
from cutaway.circuits.scores import EdgeScores
from cutaway.circuits.scrubbed import Scrubbed
from cutaway.circuits.scrubbing import scrub
from cutaway.circuits.septet import HYPOTHESES, INDUCTION, IOI
from cutaway.circuits.significance import Test
from cutaway.circuits.smallest import smallest
from cutaway.circuits.stability import Stability, rediscovery, stability
from cutaway.circuits.written import Ablation, Constants, Replacement, Written

__all__ = [
    "HYPOTHESES",
    "INDUCTION",
    "IOI",
    "METHODS",
    "RANKED_BY",
    "SIZES",
    "Ablation",
    "Case",
    "Check",
    "Circuit",
    "CircuitError",
    "Comparison",
    "Constants",
    "Crossing",
    "Curve",
    "Edge",
    "EdgeScores",
    "Evaluation",
    "Feature",
    "Function",
    "Granularity",
    "Graph",
    "Hypothesis",
    "Masked",
    "NoEffectError",
    "Node",
    "Ratio",
    "Reader",
    "Replacement",
    "Scrubbed",
    "Stability",
    "Test",
    "Writer",
    "Written",
    "compare",
    "cross",
    "curve",
    "discover",
    "evaluate",
    "greedy",
    "optimal_constants",
    "rediscovery",
    "scrub",
    "smallest",
    "stability",
    "threshold",
    "top_n",
]
