"""Discovering circuits: a score for every edge, one file a method, one signature."""

from cutaway.circuits.discovery.discover import METHODS, discover

__all__ = ["METHODS", "discover"]
