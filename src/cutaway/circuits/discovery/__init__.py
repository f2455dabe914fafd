"""Discovering circuits: a score for every edge, one file a method, one signature."""

from cutaway.circuits.discovery.discover import METHODS, RANKED_BY, discover

__all__ = ["METHODS", "RANKED_BY", "discover"]
