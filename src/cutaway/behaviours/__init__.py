"""Behaviours: contrastive prompts that isolate one thing a model does, and how to measure it."""

from cutaway.behaviours.behaviour import Behaviour, Split
from cutaway.behaviours.build import Listing, build, listing
from cutaway.behaviours.example import Example, Prompt
from cutaway.behaviours.interval import Interval, bootstrap
from cutaway.behaviours.metrics import METRICS, Coefficients, Metric, recovered
from cutaway.behaviours.problems import Problem, ProblemsError
from cutaway.behaviours.provenance import tokenizer_fingerprint
from cutaway.behaviours.recipe import Choice, Chosen, Filled, Recipe, choices
from cutaway.behaviours.variation import Probe, breakdown, probes

__all__ = [
    "METRICS",
    "Behaviour",
    "Choice",
    "Chosen",
    "Coefficients",
    "Example",
    "Filled",
    "Interval",
    "Listing",
    "Metric",
    "Probe",
    "Problem",
    "ProblemsError",
    "Prompt",
    "Recipe",
    "Split",
    "bootstrap",
    "breakdown",
    "build",
    "choices",
    "listing",
    "probes",
    "recovered",
    "tokenizer_fingerprint",
]
