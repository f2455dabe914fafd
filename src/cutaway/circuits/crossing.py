"""Cross-faithfulness: what the circuit found on one behaviour keeps of another.

Every circuit is run on every behaviour, as masks of the same few passes. A circuit that keeps as
much of another behaviour as of its own is not its own behaviour's alone; one that keeps nothing of
it shares no mechanism, however many edges both have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pandas as pd
import xarray as xr

from cutaway.behaviours.behaviour import Behaviour
from cutaway.behaviours.metrics import Metric
from cutaway.circuits.circuit import Circuit
from cutaway.circuits.discovery.discover import checked_metric
from cutaway.circuits.faithfulness import Ratio, check_gap, measured
from cutaway.circuits.graph import CircuitError
from cutaway.circuits.masked import Masked
from cutaway.measure.batches import Progress
from cutaway.measure.result import Result, provenance
from cutaway.model.model import Model
from cutaway.views.figure import Figure
from cutaway.views.heatmap import heatmap


@dataclass(frozen=True, kw_only=True, eq=False)
class Crossing(Result):
    """The metric of every circuit on every behaviour."""

    values: xr.DataArray
    """(circuit, behaviour, example): the metric; NaN past a behaviour's last example."""
    clean: xr.DataArray
    """(behaviour, example): with every edge on."""
    ablated: xr.DataArray
    """(behaviour, example): with every edge off."""
    provenance: Mapping[str, Any] = field(repr=False)
    """For each behaviour: versions, model, data and settings."""

    def faithfulness(self, circuit: str, behaviour: str) -> Ratio:
        """What a circuit keeps of a behaviour, with its interval."""
        clean, ablated, values = (
            _filled(array.sel(at))
            for array, at in (
                (self.clean, {"behaviour": behaviour}),
                (self.ablated, {"behaviour": behaviour}),
                (self.values, {"behaviour": behaviour, "circuit": circuit}),
            )
        )
        return Ratio.of(values, clean, ablated)

    def table(self) -> pd.DataFrame:
        """One row per circuit and behaviour: `mean`, `low` and `high`."""
        rows: list[dict[str, object]] = []
        for circuit in self.values["circuit"].to_numpy():
            for behaviour in self.values["behaviour"].to_numpy():
                kept = self.faithfulness(str(circuit), str(behaviour))
                rows.append({"circuit": str(circuit), "behaviour": str(behaviour),
                             "mean": kept.mean, "low": kept.low, "high": kept.high})  # fmt: skip
        return pd.DataFrame(rows)

    def plot(self) -> Figure:
        """A heatmap of circuits by behaviours."""
        table = self.table()
        circuits = [str(name) for name in self.values["circuit"].to_numpy()]
        behaviours = [str(name) for name in self.values["behaviour"].to_numpy()]
        grids = [
            table[end].to_numpy().reshape(len(circuits), len(behaviours))
            for end in ("mean", "low", "high")
        ]
        return heatmap(
            grids[0], circuits, behaviours, title="What each circuit keeps of each behaviour",
            shows="1 is all of the model’s behaviour, 0 what the replaced run does.",
            row_axis="circuit of", column_axis="behaviour", measure="faithfulness",
            lows=grids[1], highs=grids[2],
        )  # fmt: skip

    def __str__(self) -> str:
        shown = self.table().pivot(index="circuit", columns="behaviour", values="mean")
        return shown.to_string(float_format="{:.3f}".format)

    def to_dataset(self) -> xr.Dataset:
        """The three arrays, with how they came about."""
        arrays = {"values": self.values, "clean": self.clean, "ablated": self.ablated}
        return xr.Dataset(arrays, attrs={"provenance": dict(self.provenance)})

    @classmethod
    def from_dataset(cls, data: xr.Dataset) -> Self:
        """The crossing that `to_dataset` gave this."""
        return cls(
            values=data["values"], clean=data["clean"], ablated=data["ablated"],
            provenance=data.attrs["provenance"],
        )  # fmt: skip


def cross(
    model: Model | Masked,
    circuits: Mapping[str, Circuit],
    behaviours: Mapping[str, Behaviour],
    *,
    metric: str | Metric | None = None,
    ablation: str = "counterfactual",
    batch_size: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Crossing:
    """The faithfulness of every circuit on every behaviour (held-out examples, for a claim).

    `metric` is each behaviour's own when not given. `progress` is called with the behaviours done
    and their number. Raises `CircuitError` for another model's circuit, and for a behaviour whose
    total effect is about zero.
    """
    if not circuits or not behaviours:
        raise CircuitError(
            f"Give circuits and behaviours; found {len(circuits)} and {len(behaviours)}."
        )
    for circuit in circuits.values():
        circuit.check(model.model if isinstance(model, Masked) else model)
    on = Masked.of(model, next(iter(circuits.values())).graph)
    longest = max(map(len, behaviours.values()))
    values = np.full((len(circuits), len(behaviours), longest), np.nan)
    ends = np.full((2, len(behaviours), longest), np.nan)
    came: dict[str, object] = {}
    for place, (name, behaviour) in enumerate(behaviours.items()):
        found = measured(
            on, behaviour, np.stack([circuit.kept for circuit in circuits.values()]),
            metric=metric, ablation=ablation, batch_size=batch_size, seed=seed,
        )  # fmt: skip
        check_gap(found.clean, found.ablated, behaviour)
        many = len(behaviour)
        values[:, place, :many] = found.values
        ends[0, place, :many], ends[1, place, :many] = found.clean, found.ablated
        settings = {"metric": checked_metric(behaviour, metric).name, "ablation": ablation,
                    "seed": seed}  # fmt: skip
        came[name] = provenance(on.model, behaviour, settings)
        if progress is not None:
            progress(place + 1, len(behaviours))
    coords = {"circuit": list(circuits), "behaviour": list(behaviours)}
    beside = {"behaviour": list(behaviours)}
    return Crossing(
        values=xr.DataArray(values, coords, ("circuit", "behaviour", "example")),
        clean=xr.DataArray(ends[0], beside, ("behaviour", "example")),
        ablated=xr.DataArray(ends[1], beside, ("behaviour", "example")), provenance=came,
    )  # fmt: skip


def _filled(array: xr.DataArray) -> np.ndarray:
    """(example,) without the empty end."""
    values = array.to_numpy()
    return values[~np.isnan(values)]
