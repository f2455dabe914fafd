"""Edge scores: how much each edge matters, by some method.

A score is an effect: for the exact method it is the metric with every edge on, less the metric with
that edge alone off; the gradient methods estimate the same number. A positive score says that the
edge supports the behaviour, or works against it where the metric is a loss, such as `kl`; in
`EdgeScores.supporting` it is always the former. Methods that learn or decide (masks, greedy
removal) give scores of their own kind, and say which in their module.

netCDF keeps everything. The other formats (see `exports`), for programs that draw or compute on
graphs, keep the scores' means over examples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import networkx as nx
import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float
from numpy import ndarray

from cutaway.behaviours.metrics import METRICS
from cutaway.circuits.effects import RANKED_BY, check_gap
from cutaway.circuits.exports import Record, format_of, from_networkx, read, to_networkx, write
from cutaway.circuits.graph import CircuitError, Granularity, Graph
from cutaway.measure.result import Result, interval
from cutaway.model.model import Model

_SINGLE, _ENDS = ("method", "metric", "ablation"), ("clean", "ablated")


@dataclass(frozen=True, kw_only=True, eq=False)
class EdgeScores(Result):
    """Every edge's score."""

    values: xr.DataArray
    """(edge, example), or (edge,) from methods that score all examples together. The coordinate
    `edge` holds names, in the order of `graph.edges`."""
    clean: xr.DataArray
    """(example,): the metric with every edge on."""
    ablated: xr.DataArray
    """(example,): the metric with every edge off."""
    graph: Graph
    """The edges that there are."""
    method: str
    """How they were scored."""
    metric: str
    """The metric's name."""
    ablation: str
    """What an edge carries when it is off."""
    provenance: Mapping[str, Any] = field(repr=False)
    """Versions, model, data and settings."""

    def __post_init__(self) -> None:
        if self.values.sizes["edge"] != len(self.graph):
            raise CircuitError(
                f"There are {self.values.sizes['edge']} scores for {len(self.graph)} edges; give "
                "one for each."
            )

    @property
    def per_example(self) -> bool:
        """Whether each example has its own scores."""
        return "example" in self.values.dims

    @cached_property
    def mean(self) -> xr.DataArray:
        """(edge,): the score averaged over examples."""
        return self.values.mean("example") if self.per_example else self.values

    @property
    def loss(self) -> bool:
        """Whether these are effects on a metric of which less is better.

        Of a built-in metric that is `kl`; one of your own counts as a loss where it is lower with
        every edge on than with every edge off.
        """
        if RANKED_BY.get(self.method) != "magnitude":
            return False
        known = METRICS.get(self.metric)
        return self.gap < 0 if known is None else known.needs_reference

    @property
    def supporting(self) -> xr.DataArray:
        """(edge,): the mean score, with its sign turned round where it is the effect on a loss."""
        return -self.mean if self.loss else self.mean

    @property
    def gap(self) -> float:
        """The total effect: the mean metric with every edge on, less that with every edge off."""
        return float(self.clean.mean() - self.ablated.mean())

    @property
    def granularity(self) -> Granularity:
        """What was scored together; each of its edges carries its score."""
        return self.provenance.get("configuration", {}).get("granularity", "edges")

    @property
    def completeness(self) -> float:
        """How much of the total effect the scores add up to, for methods that share it out.

        It is 1 when that is all of it: over the edges out of the input for `eap-ig`, over all edges
        for `mask-gradient`. What is missing is an error that shrinks with more steps, or jumps of
        the metric, which no gradient sees: a mixture of experts changes its choice along the path.
        NaN for the other methods. Raises `NoEffectError` for a total effect of about zero.
        """
        if self.method not in ("eap-ig", "mask-gradient"):
            return float("nan")
        name = self.provenance.get("behaviour", {}).get("name", "unnamed")
        check_gap(self.clean.to_numpy(), self.ablated.to_numpy(), name)
        units = self.units("nodes")
        shared = units[[name.partition("@")[0] == "input" for name in units.index]]
        total = float((shared if self.method == "eap-ig" else units).sum())
        return total / self.gap

    @property
    def matrix(self) -> Float[ndarray, "reader writer"]:
        """The mean scores as a matrix, NaN where there is no edge."""
        found = np.full(self.graph.valid.shape, np.nan)
        found[self.graph.valid] = self.mean.to_numpy()
        return found

    def __getitem__(self, edge: str) -> float:
        """One edge's mean score."""
        return float(self.matrix[self.graph.at(edge)])

    def units(self, granularity: Granularity) -> pd.Series[float]:
        """The mean score of each head and MLP ("nodes"), or of each whole part of a layer.

        It is the sum over the edges that start there: the first-order effect of switching them off
        together, for the gradient methods. What was scored together counts once.
        """
        names, index = self.graph.units(granularity)
        there = index >= 0
        together = self.graph.units(self.granularity)[1][there]
        once = self.matrix[there] / np.bincount(together)[together]
        sums = np.bincount(index[there], weights=once, minlength=len(names))
        return pd.Series(sums, index=pd.Index(names, name="unit"), name="score")

    def interval(self, level: float = 0.95) -> xr.Dataset:
        """`mean`, `low`, `high` of each edge's score over examples (bootstrap).

        Raises `CircuitError` for methods that score all examples together.
        """
        if not self.per_example:
            raise CircuitError(
                f"The method {self.method!r} scores all examples together, so its scores have no "
                "interval; resample the examples and discover again."
            )
        return interval(self.values, level)

    def top(self, k: int = 10) -> pd.DataFrame:
        """The `k` edges with the largest mean score by magnitude: `edge` and `score`."""
        mean = self.mean.to_numpy()
        order = np.argsort(-np.abs(mean), kind="stable")[:k]
        names = self.mean["edge"].to_numpy()[order]
        return pd.DataFrame({"edge": names, "score": mean[order]})

    def check(self, model: Model) -> None:
        """Refuse a model that these are not the scores of."""
        check_model(self.graph, self.provenance, model, "These scores")

    @property
    def record(self) -> Record:
        """What a file of a graph says of them: their means."""
        about = {name: getattr(self, name) for name in _SINGLE}
        about |= {name: getattr(self, name).to_numpy().tolist() for name in _ENDS}
        about["provenance"] = dict(self.provenance)
        names, means = self.mean["edge"].to_numpy().tolist(), self.mean.to_numpy().tolist()
        edges = dict(zip(names, means, strict=True))
        return Record(kind="scores", graph=self.graph, edges=edges, about=about)

    @classmethod
    def of_record(cls, record: Record) -> Self:
        """The scores of a record. Raises `CircuitError` where an edge has none."""
        missing = [str(edge) for edge in record.graph.edges if record.edges.get(str(edge)) is None]
        if missing:
            raise CircuitError(
                f"{len(missing)} of {len(record.graph)} edges have no score, {missing[0]} among "
                "them; every edge needs one."
            )
        values = np.array(list(record.edges.values()), dtype=float)
        ends = {name: xr.DataArray(record.about[name], dims="example", name=record.about["metric"])
                for name in _ENDS}  # fmt: skip
        return cls(
            values=xr.DataArray(values, {"edge": list(record.edges)}, ("edge",), "score"),
            graph=record.graph, provenance=record.provenance, **ends,
            **{name: record.about[name] for name in _SINGLE},
        )  # fmt: skip

    def save(self, path: str | Path) -> Path:
        """Write netCDF, or the means in the format of a graph that the file's name ends in."""
        return write(self.record, path) if format_of(path) else super().save(path)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote. Raises `CircuitError` or `ResultError` for anything else."""
        return cls.of_record(read(path, "scores")) if format_of(path) else super().load(path)

    def to_networkx(self) -> nx.DiGraph[str]:
        """A directed graph of all edges with their mean scores (see `exports.network`)."""
        return to_networkx(self.record)

    @classmethod
    def from_networkx(cls, network: nx.DiGraph[str]) -> Self:
        """The scores of a directed graph that `to_networkx` gave."""
        return cls.of_record(from_networkx(network, "scores"))

    def to_dataset(self) -> xr.Dataset:
        """The scores and both ends, with the graph and the provenance as attributes."""
        arrays = {"values": self.values, "clean": self.clean, "ablated": self.ablated}
        attributes = {
            "graph": asdict(self.graph), "method": self.method, "metric": self.metric,
            "ablation": self.ablation, "provenance": dict(self.provenance),
        }  # fmt: skip
        return xr.Dataset(arrays, attrs=attributes)

    @classmethod
    def from_dataset(cls, data: xr.Dataset) -> Self:
        """The scores that `to_dataset` gave this."""
        graph: dict[str, Any] = data.attrs["graph"]
        return cls(
            values=data["values"], clean=data["clean"], ablated=data["ablated"],
            graph=Graph(**graph), method=data.attrs["method"], metric=data.attrs["metric"],
            ablation=data.attrs["ablation"], provenance=data.attrs["provenance"],
        )  # fmt: skip


def check_model(graph: Graph, provenance: Mapping[str, Any], model: Model, what: str) -> None:
    """Refuse a model that something with this graph and provenance is not of."""
    verb = "belong" if what.startswith("These") else "belongs"
    if Graph.of(model) != graph.whole:
        raise CircuitError(
            f"{what} {verb} to a model with {graph.n_layers} layers of {graph.n_heads} heads, and "
            f"{model.name} is built otherwise; open the model that was used."
        )
    known = provenance.get("model", {}).get("fingerprint")
    if known is not None and known != model.fingerprint:
        raise CircuitError(
            f"{what} {verb} to another model (fingerprint {known}; {model.name} has "
            f"{model.fingerprint}); open the model that was used."
        )
