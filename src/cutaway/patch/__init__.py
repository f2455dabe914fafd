"""Touching one place at a time: sweeps of activation patches and their effects."""

from cutaway.patch.cells import Cell, Grid, SweepError, grid, sites_of
from cutaway.patch.effects import Effects
from cutaway.patch.sources import Mode
from cutaway.patch.sweep import sweep

__all__ = ["Cell", "Effects", "Grid", "Mode", "SweepError", "grid", "sites_of", "sweep"]
