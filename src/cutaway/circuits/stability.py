"""Which edges of a circuit are there whatever prompts it was found on.

The bootstrap (Efron 1979) over the whole way from prompts to circuit:

1. draw as many prompts as there are, with replacement;
2. average the scores over the draw, and select the circuit again from these means;
3. an edge's *inclusion* is the share of draws whose circuit holds it. Edges of at least 0.9 are
   called stable.

`stability` does this from the scores of each prompt, which costs a selection per draw and no run of
the model. Methods that score all prompts together (ACDC, learned masks) are run again on every
draw by `rediscovery`, which costs as many discoveries as draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

import numpy as np
import pandas as pd
import xarray as xr

from cutaway.behaviours.behaviour import Behaviour
from cutaway.circuits.checks import whole_number
from cutaway.circuits.circuit import Circuit
from cutaway.circuits.graph import CircuitError, Graph
from cutaway.circuits.scores import EdgeScores
from cutaway.measure.batches import Progress, whole
from cutaway.measure.result import Result

Select = Callable[[EdgeScores], Circuit]
"""From scores to a circuit, such as `lambda scores: greedy(scores, 20)`."""

STABLE = 0.9
"""The inclusion from which an edge is called stable."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Stability(Result):
    """How often each edge was selected."""

    inclusion: xr.DataArray
    """(edge,): the share of draws whose circuit holds the edge."""
    circuit: Circuit
    """What was selected on the prompts as they are."""
    sizes: xr.DataArray
    """(draw,): how many edges each draw's circuit has."""
    provenance: Mapping[str, Any] = field(repr=False)
    """Versions, model, data and settings."""

    def __getitem__(self, edge: str) -> float:
        """One edge's inclusion."""
        return float(self._matrix()[self.circuit.graph.at(edge)])

    def stable(self, least: float = STABLE) -> Circuit:
        """The edges whose inclusion is at least so large, whether the circuit holds them or not."""
        settings = {**self.circuit.provenance, "selection": {"stable": least, **self._drawn}}
        kept = np.nan_to_num(self._matrix()) >= max(least, np.finfo(float).tiny)
        return replace(self.circuit, kept=kept, provenance=settings)

    def share(self, least: float = STABLE) -> float:
        """Which fraction of the circuit's edges is stable."""
        held = self._matrix()[self.circuit.kept]
        return float(np.mean(held >= least)) if len(held) else float("nan")

    def table(self) -> pd.DataFrame:
        """`edge`, `inclusion` and `in_circuit` of every edge that was ever selected."""
        names = self.inclusion["edge"].to_numpy()
        rows = pd.DataFrame({
            "edge": names, "inclusion": self.inclusion.to_numpy(),
            "in_circuit": self.circuit.kept[self.circuit.graph.valid],
        })  # fmt: skip
        seen = rows[(rows["inclusion"] > 0) | rows["in_circuit"]]
        return seen.sort_values("inclusion", ascending=False, kind="stable", ignore_index=True)

    @property
    def _drawn(self) -> dict[str, int]:
        return {"draws": self.sizes.sizes["draw"]}

    def _matrix(self) -> np.ndarray:
        found = np.full(self.circuit.graph.valid.shape, np.nan)
        found[self.circuit.graph.valid] = self.inclusion.to_numpy()
        return found

    def __str__(self) -> str:
        return (
            f"{self.share():.0%} of {len(self.circuit)} edges are in {STABLE:.0%} of "
            f"{self.sizes.sizes['draw']} resampled circuits"
        )

    def to_dataset(self) -> xr.Dataset:
        """Inclusions and sizes, with the circuit as an attribute."""
        circuit = {
            "graph": asdict(self.circuit.graph), "edges": [str(e) for e in self.circuit.edges],
            "provenance": dict(self.circuit.provenance),
        }  # fmt: skip
        attributes = {"circuit": circuit, "provenance": dict(self.provenance)}
        return xr.Dataset({"inclusion": self.inclusion, "sizes": self.sizes}, attrs=attributes)

    @classmethod
    def from_dataset(cls, data: xr.Dataset) -> Self:
        """What `to_dataset` gave this."""
        circuit: dict[str, Any] = data.attrs["circuit"]
        graph = Graph(**circuit["graph"])
        return cls(
            inclusion=data["inclusion"], sizes=data["sizes"], provenance=data.attrs["provenance"],
            circuit=Circuit(
                graph=graph, kept=graph.mask(circuit["edges"]), provenance=circuit["provenance"]
            ),
        )  # fmt: skip


def stability(
    scores: EdgeScores, select: Select, *, draws: int = 200, seed: int = 0
) -> Stability:  # fmt: skip
    """Select again from resampled scores (see the module).

    Raises `CircuitError` for scores of all examples together (see `rediscovery`), for a single
    example, and for fewer than one draw.
    """
    if not scores.per_example:
        raise CircuitError(
            f"The method {scores.method!r} scores all examples together, so they cannot be "
            "resampled afterwards; use rediscovery, which runs it again on every draw."
        )
    values = scores.values.transpose("edge", "example")
    circuits: list[Circuit] = []
    for counts in _counts(values.sizes["example"], draws, seed):
        mean = values[:, 0].drop_vars("example", errors="ignore")
        drawn = mean.copy(data=values.to_numpy() @ (counts / counts.sum()))
        circuits.append(select(replace(scores, values=drawn)))
    return _counted(select(scores), circuits, scores, seed)


def rediscovery(
    behaviour: Behaviour, score: Callable[[Behaviour], EdgeScores], select: Select, *,
    draws: int = 20, seed: int = 0, progress: Progress | None = None,
) -> Stability:  # fmt: skip
    """Score and select again on resampled prompts; `score` is called once more than `draws`.

    Raises `CircuitError` for a single example, and for fewer than one draw.
    """
    whole = score(behaviour)
    circuits: list[Circuit] = []
    for done, counts in enumerate(_counts(len(behaviour), draws, seed), start=1):
        rows = np.repeat(np.arange(len(counts)), counts).tolist()
        circuits.append(select(score(behaviour.rows(rows))))
        if progress is not None:
            progress(done, draws)
    return _counted(select(whole), circuits, whole, seed)


def _counts(n: int, draws: int, seed: int) -> np.ndarray:
    """(draw, example): how often each draw holds each example."""
    if n < 2 or (whole(draws) or 0) < 1:
        raise CircuitError(
            "Stability resamples two or more examples one or more times; found "
            f"{n} examples and {draws} draws."
        )
    generator = np.random.default_rng(whole_number("seed", seed, 0))
    return generator.multinomial(n, np.full(n, 1 / n), size=draws)


def _counted(circuit: Circuit, drawn: list[Circuit], scores: EdgeScores, seed: int) -> Stability:
    graph = circuit.graph
    held = np.mean([one.kept[graph.valid] for one in drawn], axis=0)
    names = scores.values["edge"].to_numpy()
    return Stability(
        inclusion=xr.DataArray(held, {"edge": names}, ("edge",), "inclusion"),
        sizes=xr.DataArray([len(one) for one in drawn], dims="draw", name="edges"),
        circuit=circuit,
        provenance={**circuit.provenance, "stability": {"draws": len(drawn), "seed": seed}},
    )
