"""Faithfulness: how much of a behaviour some edges keep, against how many they are.

With every other edge off, the metric of a circuit C is m(C); m(M) is that of the whole model and
m(∅) that of no edge at all. Then

    faithfulness(C) = (m(C) − m(∅)) / (m(M) − m(∅))

with means over examples taken before the ratio (single ratios have heavy tails), and an interval by
bootstrap over the examples. 1 is the model's own behaviour, 0 that of the replacement; a circuit
can lie outside, since edges that are off may have worked against the behaviour.

Over circuits of growing size, as shares of the graph's edges, the MIB benchmark (Mueller et al.
2025, arXiv:2504.13151) takes two areas, by trapezia between the sizes at which it was measured:

- CPR, the area under faithfulness: how much of the performance circuits keep (more is better);
- CMD, the area between faithfulness and 1: how far circuits are from the model (less is better).

MIB ranks edges by their score for CPR and by its magnitude for CMD. Here one ranking, `by`, is for
both: CPR is MIB's with "score", and CMD is MIB's with "magnitude".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from cutaway.behaviours.behaviour import Behaviour
from cutaway.behaviours.metrics import (
    Coefficients,
    Metric,
    answer_coefficients,
    at_least_float32,
)
from cutaway.circuits.batch import Batch
from cutaway.circuits.checks import check_prompts, whole_number
from cutaway.circuits.circuit import Circuit, top_n
from cutaway.circuits.discovery.discover import checked_metric
from cutaway.circuits.effects import By, check_gap
from cutaway.circuits.effects import NoEffectError as NoEffectError
from cutaway.circuits.graph import CircuitError, Graph
from cutaway.circuits.masked import Masked
from cutaway.circuits.optimal import replacement
from cutaway.circuits.scores import EdgeScores
from cutaway.circuits.written import Constants, named
from cutaway.measure.batches import Progress, batch_size_for
from cutaway.measure.result import Result, provenance
from cutaway.model.model import Model

SIZES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""The shares of edges at which the MIB benchmark measures."""

_RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A faithfulness with its interval."""

    mean: float
    """From the means over examples."""
    low: float
    """Lower end of the interval; NaN for a single example."""
    high: float
    """Upper end of the interval; NaN for a single example."""

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"

    @classmethod
    def of(
        cls,
        values: Float[ndarray, " example"],
        clean: Float[ndarray, " example"],
        ablated: Float[ndarray, " example"],
    ) -> Self:
        """The faithfulness of a circuit with these metrics, between the two ends."""
        mean, resampled = _ratios(values[None], clean, ablated)
        low, high = _ends(resampled)
        return cls(mean=float(mean[0]), low=float(low[0]), high=float(high[0]))


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve(Result):
    """The metric of circuits of growing size, and their faithfulness."""

    values: xr.DataArray
    """(share, example): the metric of each circuit; `share` is its fraction of the edges."""
    clean: xr.DataArray
    """(example,): the metric with every edge on."""
    ablated: xr.DataArray
    """(example,): the metric with every edge off."""
    by: By
    """How edges were ranked, for both areas."""
    provenance: Mapping[str, Any] = field(repr=False)
    """Versions, model, data and settings."""

    @property
    def faithfulness(self) -> xr.Dataset:
        """(share,): `mean`, `low` and `high`."""
        found = _ratios(self.values.to_numpy(), self.clean.to_numpy(), self.ablated.to_numpy())
        mean, resampled = found
        low, high = _ends(resampled)
        return xr.Dataset(
            {name: ("share", x) for name, x in (("mean", mean), ("low", low), ("high", high))},
            {"share": self.values["share"]},
        )

    @property
    def cpr(self) -> Ratio:
        """The area under faithfulness; MIB's CPR where `by` is "score"."""
        return self._area(lambda f: f)

    @property
    def cmd(self) -> Ratio:
        """The area between faithfulness and 1; MIB's CMD where `by` is "magnitude"."""
        return self._area(lambda f: np.abs(1 - f))

    def _area(self, what: Any) -> Ratio:
        share = self.values["share"].to_numpy()
        mean, resampled = _ratios(
            self.values.to_numpy(), self.clean.to_numpy(), self.ablated.to_numpy()
        )
        low, high = _ends(np.trapezoid(what(resampled), share, axis=1)[:, None])
        return Ratio(
            mean=float(np.trapezoid(what(mean), share)), low=float(low[0]), high=float(high[0])
        )

    def to_dataset(self) -> xr.Dataset:
        """The three arrays, with how they came about."""
        arrays = {"values": self.values, "clean": self.clean, "ablated": self.ablated}
        return xr.Dataset(arrays, attrs={"by": self.by, "provenance": dict(self.provenance)})

    @classmethod
    def from_dataset(cls, data: xr.Dataset) -> Self:
        """The curve that `to_dataset` gave this."""
        return cls(
            values=data["values"], clean=data["clean"], ablated=data["ablated"],
            by=data.attrs["by"], provenance=data.attrs["provenance"],
        )  # fmt: skip


def curve(
    model: Model | Masked,
    behaviour: Behaviour,
    scores: EdgeScores,
    *,
    sizes: Sequence[float] = SIZES,
    by: By = "magnitude",
    metric: str | Metric | None = None,
    ablation: str | Constants | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Curve:
    """Faithfulness of the top edges of each size, on these examples (held-out ones, for a claim).

    `sizes` are shares of the edges; a circuit has at least one edge. Metric and ablation are the
    scores' own when not given. Raises `CircuitError` when the whole effect is about zero.
    """
    wrong = [size for size in sizes if not 0 < size <= 1]
    if wrong or len(sizes) < 2 or list(sizes) != sorted(set(sizes)):
        raise CircuitError(
            f"sizes are two or more growing shares of the edges between 0 and 1; found {sizes}."
        )
    many = len(scores.graph)
    circuits = [top_n(scores, max(1, round(size * many)), by=by) for size in sizes]
    chosen, kind = metric or scores.metric, ablation or scores.ablation
    circuits[0].check(model.model if isinstance(model, Masked) else model)
    on = Masked.of(model, scores.graph)
    found = measured(
        on, behaviour, np.stack([one.kept for one in circuits]), metric=chosen, ablation=kind,
        batch_size=batch_size, seed=seed, progress=progress,
    )  # fmt: skip
    check_gap(found.clean, found.ablated, behaviour)
    name = checked_metric(behaviour, chosen).name
    settings = {
        "by": by,
        "metric": name,
        "ablation": named(kind),
        "scores": scores.method,
        "seed": seed,
    }
    return Curve(
        values=xr.DataArray(found.values, {"share": list(sizes)}, ("share", "example"), name),
        clean=xr.DataArray(found.clean, dims="example", name=name),
        ablated=xr.DataArray(found.ablated, dims="example", name=name),
        by=by, provenance=provenance(on.model, behaviour, settings),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The metric under some masks, and its two ends."""

    values: Float[ndarray, "mask example"]
    """The metric under each mask."""
    clean: Float[ndarray, " example"]
    """With every edge on."""
    ablated: Float[ndarray, " example"]
    """With every edge off."""
    preference: Float[ndarray, "prompt answers"]
    """How much each prompt's clean run prefers each example's right answers to its wrong ones."""

    def ratio(self, mask: int) -> Ratio:
        """The faithfulness of one of the masks."""
        return Ratio.of(self.values[mask], self.clean, self.ablated)


def measured(
    model: Model | Masked,
    behaviour: Behaviour,
    kept: Bool[ndarray, "mask reader writer"],
    *,
    metric: str | Metric | None = None,
    ablation: str | Constants = "counterfactual",
    batch_size: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Measured:
    """The metric of circuits given as a stack of matrices, example by example.

    Circuits that differ in edges alone which lead nowhere are run once (see `Circuit.pruned`).
    `progress` is called with the batches done and their total.
    """
    on = Masked.of(model)
    chosen, n = checked_metric(behaviour, metric), len(behaviour)
    check_prompts(on.model, behaviour)
    size, seed = batch_size_for(on.model, behaviour, batch_size), whole_number("seed", seed, 0)
    instead = replacement(on, behaviour, ablation, kept, seed=seed, batch_size=size)
    distinct, among = _distinct(on.graph, kept, instead.ablation)
    masks = torch.as_tensor(distinct, dtype=torch.float32)
    values, ends = np.empty((len(kept), n)), (np.empty(n), np.empty(n))
    known, preference = answer_coefficients(behaviour), np.empty((n, n))
    for done, start in enumerate(range(0, n, size), start=1):
        where = slice(start, min(start + size, n))
        batch = Batch(on, behaviour.rows(where), where, chosen, instead)
        values[:, where] = batch.values(masks)[among]
        ends[0][where], ends[1][where] = batch.ends
        preference[where] = _preference(batch.on_logits(), known)
        if progress is not None:
            progress(done, -(-n // size))
    return Measured(values=values, clean=ends[0], ablated=ends[1], preference=preference)


def _distinct(
    graph: Graph, kept: Bool[ndarray, "mask reader writer"], ablation: str
) -> tuple[Bool[ndarray, "distinct reader writer"], Int[ndarray, " mask"]]:
    """The masks that have to be run, and which of them stands for each one given.

    Where replacements are those of whole prompts, a part that nothing leads to writes just what
    replaces it, and so dangling edges change nothing.
    """
    if ablation in ("counterfactual", "resample"):
        kept = np.stack(
            [Circuit(graph=graph, kept=one & graph.valid).pruned().kept for one in kept]
        )
    flat, among = np.unique(kept.reshape(len(kept), -1), axis=0, return_inverse=True)
    return flat.reshape(-1, *kept.shape[1:]), among.reshape(-1)


def _preference(
    logits: Float[Tensor, "prompt vocab"], known: Coefficients
) -> Float[ndarray, "prompt answers"]:
    """The difference of logits that each example's answers make in each prompt."""
    used, place = known.ids.unique(return_inverse=True)
    weights = torch.zeros(len(known.ids), len(used)).scatter_add_(1, place, known.weights)
    seen = at_least_float32(logits[:, used.to(logits.device)]).cpu()
    return (seen @ weights.to(seen).T).numpy()


def check_span(span: tuple[float, float]) -> None:
    """Refuse a range of faithfulness that the model itself would not be in."""
    if not span[0] < 1 < span[1]:
        raise CircuitError(f"span is a low end below 1 and a high end above it; found {span}.")


def _ratios(
    values: np.ndarray, clean: np.ndarray, ablated: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(mask,) ratios of means, and (resample, mask) those of resampled examples."""
    n = len(clean)
    draws = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=_RESAMPLES) / n
    gap = clean.mean() - ablated.mean()
    gaps = (draws @ clean - draws @ ablated)[:, None]
    mean = (values.mean(axis=1) - ablated.mean()) / gap
    with np.errstate(divide="ignore", invalid="ignore"):
        resampled = (draws @ values.T - (draws @ ablated)[:, None]) / gaps
    return mean, resampled if n > 1 else np.full_like(resampled, np.nan)


def _ends(resampled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low, high = np.quantile(resampled, [0.025, 0.975], axis=0)
    return low, high
