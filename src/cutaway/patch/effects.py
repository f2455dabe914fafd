"""Effects: what a sweep measured, cell by cell and example by example.

With the metric's value p after patching, c on the clean and k on the corrupt prompts:

- effect   = p − base, where the base is k when denoising and c otherwise;
- recovery = (mean p − mean k) / (mean c − mean k) when denoising: 0 changes nothing, 1 restores
  the clean behaviour;
- recovery = (mean c − mean p) / (mean c − mean k) otherwise: the fraction of the behaviour that is
  lost; 0 changes nothing, 1 breaks it as much as corrupting the whole prompt does.

So recovery is the effect over the same gap with the sign that makes 1 a complete effect, and
denoising is noising with clean and corrupt exchanged. Means are taken before the ratio (Wang et al.
2022; Zhang & Nanda 2023), since single ratios have heavy tails where clean and corrupt nearly
agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pandas as pd
import xarray as xr

from cutaway.behaviours.metrics import recovered
from cutaway.measure.result import Result, interval
from cutaway.patch.sources import Mode


@dataclass(frozen=True, kw_only=True, eq=False)
class Effects(Result):
    """The metric after patching every cell, and what it is compared with."""

    values: xr.DataArray
    """(cell axes…, example): the metric with that cell patched. The cell axes are those of `by`."""
    clean: xr.DataArray
    """(example,): the metric on the clean prompts, nothing patched."""
    corrupt: xr.DataArray
    """(example,): the metric on the corrupt prompts, nothing patched."""
    site: str
    """The kind of site, or the site, that was swept."""
    mode: Mode
    """What was put in each cell's place; see `patch.sources`."""
    metric: str
    """The metric's name."""
    provenance: Mapping[str, Any] = field(repr=False)
    """Versions, model, data and settings."""

    @property
    def axes(self) -> tuple[str, ...]:
        """The cell axes."""
        return tuple(str(dim) for dim in self.values.dims if dim != "example")

    @property
    def base(self) -> xr.DataArray:
        """(example,): the metric of the run that was changed, before the change."""
        return self.corrupt if self.mode == "denoise" else self.clean

    @property
    def gap(self) -> float:
        """Mean clean less mean corrupt metric."""
        return float(self.clean.mean() - self.corrupt.mean())

    @property
    def effect(self) -> xr.DataArray:
        """(cell axes…, example): how much patching changed the metric."""
        return self.values - self.base

    @property
    def mean(self) -> xr.DataArray:
        """(cell axes…): the effect averaged over examples, in the metric's own unit."""
        return self.effect.mean("example")

    @property
    def recovery(self) -> xr.DataArray:
        """(cell axes…): from the means; 1 is a complete effect. NaN where there is no gap."""
        patched = self.values.mean("example")
        ends = self.clean.mean("example"), self.corrupt.mean("example")
        return recovered(patched, *self._towards(*ends))

    @property
    def recovery_per_example(self) -> xr.DataArray:
        """(cell axes…, example): the same ratio of each example; NaN where it has no gap."""
        return recovered(self.values, *self._towards(self.clean, self.corrupt))

    def _towards(self, clean: xr.DataArray, corrupt: xr.DataArray) -> tuple[Any, Any]:
        """The value that counts as 1 and the one that counts as 0."""
        return (clean, corrupt) if self.mode == "denoise" else (corrupt, clean)

    def interval(self, level: float = 0.95) -> xr.Dataset:
        """`mean`, `low`, `high` of the effect over examples (bootstrap)."""
        return interval(self.effect, level)

    def top(self, k: int = 10, *, level: float = 0.95) -> pd.DataFrame:
        """The `k` cells with the largest mean effect by magnitude.

        One row per cell: its coordinates, `effect` with `low` and `high`, and `recovery`.
        """
        found = self.interval(level)
        mean = found["mean"].to_numpy()
        order = np.argsort(-np.abs(np.nan_to_num(mean)), axis=None, kind="stable")[:k]
        places = np.unravel_index(order, mean.shape)
        columns: dict[str, Any] = {
            axis: self.values[axis].to_numpy()[place]
            for axis, place in zip(self.axes, places, strict=True)
        }
        columns |= {"effect": mean[places]}
        columns |= {end: found[end].to_numpy()[places] for end in ("low", "high")}
        return pd.DataFrame({**columns, "recovery": self.recovery.to_numpy()[places]})

    def to_dataset(self) -> xr.Dataset:
        """All arrays in one."""
        names = ("site", "mode", "metric", "provenance")
        return xr.Dataset(
            {"values": self.values, "clean": self.clean, "corrupt": self.corrupt},
            attrs={name: getattr(self, name) for name in names},
        )

    @classmethod
    def from_dataset(cls, data: xr.Dataset) -> Self:
        """The inverse of `to_dataset`."""
        ends = {name: data[name].reset_coords(drop=True) for name in ("clean", "corrupt")}
        return cls(values=data["values"], **ends, **data.attrs)
