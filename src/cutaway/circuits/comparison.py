"""What circuits share, held against chance: the result of `compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal, Self, get_args

import numpy as np
import pandas as pd
import xarray as xr

from cutaway.circuits.graph import CircuitError
from cutaway.circuits.overlap import holm
from cutaway.measure.result import Result
from cutaway.views.figure import Figure
from cutaway.views.heatmap import heatmap

Null = Literal["size", "shape"]
"""What chance keeps of a circuit."""
PAIR = ("circuit", "other")
"""The two axes of everything that is said of a pair."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison(Result):
    """What circuits share."""

    similarity: xr.DataArray
    """(level, circuit, other): from 0 to 1, the share of edges or nodes in common; at the level
    `depth`, of where they lie."""
    expected: xr.DataArray
    """(null, level, circuit, other): the same by chance, on average; NaN where there is no such
    chance."""
    p: xr.DataArray
    """(null, level, circuit, other): how likely chance has as much; not corrected."""
    rank_correlation: xr.DataArray
    """(circuit, other): Spearman's, of all edges' scores; NaN without scores of both."""
    sizes: xr.DataArray
    """(level, circuit): how many edges or nodes each circuit has."""
    weights: xr.DataArray
    """(part, circuit): the share of a circuit's weight in the edges out of each part. An edge's
    weight is the size of its score, or 1 without scores. At the level `depth` parts are kinds of
    writers at some depth."""
    provenance: Mapping[str, Any] = field(repr=False)
    """Versions, the circuits' own provenance, and settings."""

    def table(self, null: Null = "shape") -> pd.DataFrame:
        """One row per pair and level, with `p_corrected` (Holm) over the pairs of a level.

        At the level `depth` the chance is always that of size. Raises `CircuitError` for another
        null.
        """
        if null not in get_args(Null):
            raise CircuitError(f"Chance keeps 'size' or 'shape'; found {null!r}.")
        names = [str(name) for name in self.sizes["circuit"].to_numpy()]
        levels = [str(level) for level in self.sizes["level"].to_numpy()]
        rows: list[dict[str, object]] = []
        for level in levels:
            pairs = list(combinations(names, 2))
            kept = "size" if level == "depth" else null
            p_values, chance = (x.sel(null=kept, level=level) for x in (self.p, self.expected))
            ps = np.array([float(p_values.sel(_pair(pair))) for pair in pairs])
            for pair, p, corrected in zip(pairs, ps, holm(ps), strict=True):
                rows.append({
                    "level": level, "circuit": pair[0], "other": pair[1],
                    "similarity": float(self.similarity.sel({**_pair(pair), "level": level})),
                    "by_chance": float(chance.sel(_pair(pair))),
                    "p": p, "p_corrected": corrected,
                    "rank_correlation": float(self.rank_correlation.sel(_pair(pair))),
                })  # fmt: skip
        return pd.DataFrame(rows)

    def parts(self, least: int = 1) -> pd.DataFrame:
        """The weight of every part in every circuit, those of the most circuits first.

        `circuits` counts those that hold it; parts in fewer than `least` are left out.
        """
        table = self.weights.to_pandas()
        assert isinstance(table, pd.DataFrame)
        held = (table > 0).sum(axis=1)
        table.insert(0, "circuits", held)
        table["mean"] = table.drop(columns="circuits").mean(axis=1)
        table = table[held >= least].sort_values(
            ["circuits", "mean"], ascending=False, kind="stable"
        )
        return table.drop(columns="mean").rename_axis("part").reset_index()

    def plot(self, level: str | None = None) -> Figure:
        """A heatmap of what each pair shares, at a level (`edges`, where there is it)."""
        levels = [str(each) for each in self.sizes["level"].to_numpy()]
        chosen = levels[0] if level is None else level
        if chosen not in levels:
            raise CircuitError(f"There is no level {level!r} here; choose of {', '.join(levels)}.")
        names = [str(name) for name in self.sizes["circuit"].to_numpy()]
        null = "size" if chosen == "depth" else "shape"
        p = self.p.sel(null=null, level=chosen).to_numpy()
        what = "of where their edges lie" if chosen == "depth" else f"of their {chosen}"
        return heatmap(
            self.similarity.sel(level=chosen).to_numpy(), names, names,
            title=f"What circuits share {what}",
            shows="Small cells share no more than circuits of the same "
            f"{null} do by chance (p above 0.05, not corrected).",
            row_axis="circuit", column_axis="circuit", measure="share in common",
            p=p, limit=1.0, signed=False,
        )  # fmt: skip

    def __str__(self) -> str:
        shown = self.table().drop(columns=[] if self._scored else ["rank_correlation"])
        chances = dict.fromkeys(["p", "p_corrected"], "{:.2g}".format)
        numbers = shown.to_string(index=False, float_format="{:.3f}".format, formatters=chances)
        lines = [numbers]
        reused = self.parts(least=2)
        if len(reused):
            named = ", ".join(f"{row.part} ({row.circuits})" for row in reused.head(8).itertuples())
            lines.append(f"parts of several circuits: {named}")
        return "\n".join(lines)

    @property
    def _scored(self) -> bool:
        off = ~np.eye(self.sizes.sizes["circuit"], dtype=bool)
        return bool(np.isfinite(self.rank_correlation.to_numpy()[off]).any())

    def to_dataset(self) -> xr.Dataset:
        """Every array, with how they came about."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        return xr.Dataset(arrays, attrs={"provenance": dict(self.provenance)})

    @classmethod
    def from_dataset(cls, data: xr.Dataset) -> Self:
        """The comparison that `to_dataset` gave this."""
        return cls(**{name: data[name] for name in _ARRAYS}, provenance=data.attrs["provenance"])


_ARRAYS = ("similarity", "expected", "p", "rank_correlation", "sizes", "weights")


def _pair(pair: Sequence[str]) -> dict[str, str]:
    return dict(zip(PAIR, pair, strict=True))
