"""Mechanisms from the literature, each found by one call."""

from cutaway.mechanisms.induction import Induction, induction
from cutaway.mechanisms.memorised import Memorised, memorised
from cutaway.mechanisms.recall import Recall, recall
from cutaway.mechanisms.reuse import Reuse, reuse

__all__ = [
    "Induction",
    "Memorised",
    "Recall",
    "Reuse",
    "induction",
    "memorised",
    "recall",
    "reuse",
]
