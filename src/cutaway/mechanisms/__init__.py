"""Mechanisms from the literature, each found by one call."""

from cutaway.mechanisms.induction import Induction, induction

__all__ = ["Induction", "induction"]
