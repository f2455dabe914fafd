"""What causal scrubbing found: a saved result, with the fraction recovered by all claims and each.

    recovered = (scrubbed − baseline) / (clean − baseline)

with means over draws and examples before the ratio, and a bootstrap interval over examples. 1 is
the model's own metric: nothing that was swapped mattered. 0 is the baseline, where the logits are
those of any other prompt. It can lie outside, since what was swapped may have worked against the
answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pandas as pd
import xarray as xr

from cutaway.circuits.faithfulness import Ratio
from cutaway.circuits.hypotheses import REST
from cutaway.measure.result import Result

_ARRAYS = ("values", "baseline", "clean", "alone", "without", "others")


@dataclass(frozen=True, kw_only=True, eq=False)
class Scrubbed(Result):
    """How much of a behaviour is left when all is swapped that a hypothesis allows."""

    values: xr.DataArray
    """(draw, example): the scrubbed metric."""
    baseline: xr.DataArray
    """(draw, example): the metric of any other prompt's logits, with the example's own answers."""
    clean: xr.DataArray
    """(example,): the model's own metric."""
    alone: xr.DataArray
    """(claim, example): the metric when only one claim is put to the test, mean over draws; `claim`
    names the nodes, and "everything else" the claim that nothing else matters."""
    without: xr.DataArray
    """(claim, example): the metric when a node is taken out of the hypothesis, mean over draws; NaN
    for "everything else"."""
    others: xr.DataArray
    """(claim, example): how many other prompts agree with this one on the node's feature. Where it
    is 0 a prompt stands in for itself, and the claim is not tested."""
    hypothesis: Mapping[str, Any]
    """What was claimed, as `Hypothesis.record` gives it."""
    provenance: Mapping[str, Any] = field(repr=False)
    """Versions, model, data and settings."""

    @property
    def recovered(self) -> Ratio:
        """The fraction of the behaviour that is left, with its interval over examples."""
        return self._ratio(self.values.mean("draw").to_numpy())

    @property
    def claims(self) -> pd.DataFrame:
        """One row per claim.

        `claim`, `parts` and `agrees` say what it is; `others` how many prompts agree with one, on
        average, and `untested` the share of prompts that have none; `alone` what is recovered when
        only this claim is tested, and `without` when the node is taken out, each with `_low` and
        `_high`. A false claim is low alone; a node that is not needed is as high without.
        """
        nodes = {one["name"]: one for one in self.hypothesis["nodes"]}
        rows: list[dict[str, object]] = []
        for claim in self.alone["claim"].to_numpy():
            node = nodes.get(str(claim), {"parts": (), "agrees": self.hypothesis["within"]})
            others = self.others.sel(claim=claim).to_numpy()
            row: dict[str, object] = {
                "claim": str(claim), "parts": ", ".join(node["parts"]), "agrees": node["agrees"],
                "others": float(others.mean()), "untested": float((others == 0).mean()),
            }  # fmt: skip
            for name, measured in (("alone", self.alone), ("without", self.without)):
                ratio = self._ratio(measured.sel(claim=claim).to_numpy())
                ends = (ratio.mean, ratio.low, ratio.high)
                names = (name, f"{name}_low", f"{name}_high")
                row |= dict(zip(names, ends, strict=True))
            rows.append(row)
        columns = ["claim", "parts", "agrees", "others", "untested", "alone", "alone_low",
                   "alone_high", "without", "without_low", "without_high"]  # fmt: skip
        return pd.DataFrame(rows, columns=pd.Index(columns))

    def _ratio(self, values: np.ndarray) -> Ratio:
        if np.isnan(values).any():
            return Ratio(mean=float("nan"), low=float("nan"), high=float("nan"))
        return Ratio.of(values, self.clean.to_numpy(), self.baseline.mean("draw").to_numpy())

    def __str__(self) -> str:
        scrubbed, clean, baseline = (
            float(x.mean()) for x in (self.values, self.clean, self.baseline)
        )
        lines = [
            f"{self.hypothesis['name']}: recovered {self.recovered} of {self.values.name} "
            f"({scrubbed:.3f}; the model {clean:.3f}, any other prompt {baseline:.3f})"
        ]
        for row in self.claims.to_dict("records"):
            without = "" if row["claim"] == REST else f", without it {row['without']:.3f}"
            lines.append(
                f"  {row['claim']} ({row['agrees']}): alone {row['alone']:.3f}{without}; "
                f"{row['untested']:.0%} of prompts without another that agrees"
            )
        return "\n".join(lines)

    def to_dataset(self) -> xr.Dataset:
        """The arrays, the hypothesis, and how they came about."""
        return xr.Dataset(
            {name: getattr(self, name) for name in _ARRAYS},
            attrs={
                "metric": self.values.name,
                "hypothesis": dict(self.hypothesis),
                "provenance": dict(self.provenance),
            },
        )

    @classmethod
    def from_dataset(cls, data: xr.Dataset) -> Self:
        """The result that `to_dataset` gave this."""
        measured = {name: data[name].rename(data.attrs["metric"]) for name in _ARRAYS[:-1]}
        return cls(
            **measured, others=data["others"], hypothesis=data.attrs["hypothesis"],
            provenance=data.attrs["provenance"],
        )  # fmt: skip
