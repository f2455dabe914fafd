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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd
import xarray as xr

from cutaway.behaviours.metrics import recovered
from cutaway.measure.result import Result, interval
from cutaway.measure.significance import DRAWS, sign_flips
from cutaway.patch.cells import Coordinate, SweepError
from cutaway.patch.picture import draw
from cutaway.patch.sources import Mode
from cutaway.views.figure import Figure


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
    also: Mapping[str, Effects] = field(default_factory=dict, repr=False)
    """The same cells by other metrics, measured on the same runs; by the metric's name."""

    def beside(self, others: Sequence[Effects]) -> Effects:
        """The same with other metrics of the same runs in `also`."""
        return replace(self, also={other.metric: other for other in others})

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

    def p_values(self, draws: int = DRAWS, *, seed: int = 0) -> xr.Dataset:
        """(cell axes…): `p` of each cell's effect, and `p_corrected` for the number of cells.

        By flipping the signs of examples; see `measure.significance`. Exact where all signs are no
        more than `draws` (up to 14 examples, by default), else `draws` of them, drawn with `seed`.
        The attributes `draws` and `exact` say which. With 5 examples or fewer nothing can be below
        0.05; a single one raises `SweepError`.
        """
        each = self.effect.transpose(*self.axes, "example").to_numpy()
        found = sign_flips(each.reshape(-1, each.shape[-1]), draws=draws, seed=seed)
        kept = self.mean.transpose(*self.axes)
        return xr.Dataset(
            {
                "p": kept.copy(data=found.p.reshape(kept.shape)),
                "p_corrected": kept.copy(data=found.p_corrected.reshape(kept.shape)),
            },
            attrs={"draws": found.draws, "exact": found.exact},
        )

    @cached_property
    def p_corrected(self) -> xr.DataArray:
        """(cell axes…): as `p_values` gives by default; NaN where there is a single example."""
        if self.values.sizes["example"] < 2:
            return xr.full_like(self.mean, np.nan)
        return self.p_values()["p_corrected"]

    def top(self, k: int = 10, *, level: float = 0.95) -> pd.DataFrame:
        """The `k` cells with the largest mean effect by magnitude.

        One row per cell: its coordinates, `effect` with `low` and `high`, `recovery`, and
        `p_corrected`, the effect's p-value corrected for the number of all cells (`p_values`; NaN
        with a single example). Raises `SweepError` when `k` is not a whole number of 1 or more.
        """
        if type(k) is not int or k < 1:
            raise SweepError(f"top takes a whole number of cells, 1 or more; found {k!r}.")
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
        columns["recovery"] = self.recovery.to_numpy()[places]
        columns["p_corrected"] = self.p_corrected.to_numpy()[places]
        return pd.DataFrame(columns)

    def plot(self, **at: Coordinate) -> Figure:
        """A picture for a notebook or a file (`.save("heads.svg")`).

        A heatmap of two axes, bars of one, with intervals and corrected p-values on hover. More
        axes are held at a coordinate, `plot(position="end")`, which leaves the correction and the
        scale of colours at all cells; see `patch.picture`. Raises `SweepError`.
        """
        return draw(self, at)

    def to_dataset(self) -> xr.Dataset:
        """All arrays in one; those of other metrics have the metric's name before theirs."""
        names = ("site", "mode", "metric", "provenance")
        arrays = {
            f"{prefix}{name}": getattr(effects, name).rename(None)
            for prefix, effects in [("", self), *((f"{m}:", e) for m, e in self.also.items())]
            for name in _ARRAYS
        }
        attributes = {name: getattr(self, name) for name in names}
        return xr.Dataset(arrays, attrs=attributes | {"also": list(self.also)})

    @classmethod
    def from_dataset(cls, data: xr.Dataset) -> Self:
        """The inverse of `to_dataset`."""
        attributes: dict[str, Any] = dict(data.attrs)
        also: list[str] = attributes.pop("also", [])

        def read(prefix: str) -> dict[str, Any]:
            ends = {n: data[f"{prefix}{n}"].reset_coords(drop=True) for n in _ARRAYS[1:]}
            return {"values": data[f"{prefix}values"], **ends}

        others: dict[str, Any] = {}
        origin: Mapping[str, Any] = attributes["provenance"]
        for name in also:
            renamed: dict[str, Any] = attributes | {"metric": name}
            if "configuration" in origin:
                settings = {**origin["configuration"], "metric": name}
                renamed["provenance"] = {**origin, "configuration": settings}
            others[name] = cls(**read(f"{name}:"), **renamed)
        return cls(**read(""), **attributes, also=others)


_ARRAYS = ("values", "clean", "corrupt")
