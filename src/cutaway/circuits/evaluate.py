"""Evaluation of a circuit: what it keeps, what it misses, what it could do without.

All on examples that need not be those it was found on (give the held-out ones for a claim):

- **faithfulness** (see `faithfulness`), beside that of `controls` random circuits with as many
  edges between the same kinds of parts, of the same layers' readers (see `controls`);
- **elsewhere**: the same circuit under other metrics and ablations, and on other prompts;
- **the hypothesis tests** of Shi et al. 2024 (see `significance`), with as many random and inflated
  circuits; of circuits of more than 128 edges, 128 edges drawn with the seed are tested;
- **completeness** (Wang et al. 2022, IOI, section 4): for random sets K of the circuit's parts, the
  circuit without K should do what the model without K does; reported is
  |m(C∖K) − m(M∖K)| / |m(M) − m(∅)| per set, where C∖K and M∖K have all edges out of K off. A
  circuit that misses a backup keeps less than the model when K is gone;
- **minimality** (the same, with K empty): for each part, how far its removal moves the circuit,
  |m(C) − m(C∖part)| / |m(M) − m(∅)|. A part that moves nothing need not be there.

The circuit, its controls and all its sets run as masks of the same few passes. With `quick` only
what `Evaluation.passes` reads is run: the circuit and its random controls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float
from numpy import ndarray

from cutaway.behaviours.behaviour import Behaviour
from cutaway.behaviours.interval import bootstrap
from cutaway.behaviours.metrics import Metric
from cutaway.circuits.checks import check_prompts, whole_number
from cutaway.circuits.circuit import Circuit
from cutaway.circuits.controls import alike, inflated, outside
from cutaway.circuits.discovery.discover import checked_metric
from cutaway.circuits.evaluation import Evaluation
from cutaway.circuits.faithfulness import Measured, Ratio, check_gap, check_span, measured
from cutaway.circuits.graph import CircuitError, Edge, Graph
from cutaway.circuits.masked import Masked
from cutaway.circuits.significance import (
    STRICT,
    Test,
    answers,
    equivalence,
    idle_edges,
    independence,
    minimality,
    necessity,
    sufficiency,
)
from cutaway.circuits.stability import Stability
from cutaway.circuits.written import Constants, check_ablation, named
from cutaway.measure.batches import Progress
from cutaway.measure.result import provenance
from cutaway.measure.significance import sign_flips
from cutaway.model.model import Model

_MOST_EDGES = 128

Measure = tuple[str | Metric, str | Constants, Behaviour]
"""A metric, what an edge carries when it is off, and the prompts."""


def evaluate(
    model: Model | Masked,
    behaviour: Behaviour,
    circuit: Circuit,
    *,
    metric: str | Metric | None = None,
    ablation: str | Constants = "counterfactual",
    other_metrics: Sequence[str] = (),
    other_ablations: Sequence[str] = (),
    others: Mapping[str, Behaviour] | None = None,
    controls: int = 30,
    sets: int = 10,
    span: tuple[float, float] = (0.8, 1.2),
    resampled: Stability | None = None,
    quick: bool = False,
    batch_size: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Everything this module's docstring lists; `controls` random circuits, `sets` random sets.

    `others` are further prompts by name, such as other templates; `span` is where the interval of
    faithfulness has to lie for the circuit to pass; `resampled` says how stable its edges are (see
    `stability`); `quick` runs only what passing needs.

    Raises `CircuitError` for another model's circuit, and for a total effect of about zero; where
    only another measure or other prompts have none, `unmeasured` says so.
    """
    circuit.check(model.model if isinstance(model, Masked) else model)
    on = Masked.of(model, circuit.graph)
    check_span(span)
    inclusion = _inclusion(circuit, resampled)
    own, kind = checked_metric(behaviour, metric), named(ablation)
    measures = _measures((own, ablation), other_metrics, other_ablations)
    more = {
        **{name: (*measure, behaviour) for name, measure in measures.items()},
        **{name: (own, ablation, prompts) for name, prompts in (others or {}).items()},
    }
    _check_measures(on.model, more.values())
    seed = whole_number("seed", seed, 0)
    plan = _Plan(circuit, controls, sets, np.random.default_rng(seed), quick=quick)
    run = partial(measured, on, batch_size=batch_size, seed=seed)
    found = run(behaviour, np.stack(plan.masks), metric=metric, ablation=ablation,
                progress=progress)  # fmt: skip
    check_gap(found.clean, found.ablated, behaviour)
    ratios, unmeasured = _elsewhere(run, circuit, more)
    settings = {"edges": len(circuit), "ablation": kind, "controls": controls, "sets": sets,
                "metric": own.name, "quick": quick, "seed": seed}  # fmt: skip
    return Evaluation(
        circuit=circuit, metric=own.name, ablation=kind, span=span, inclusion=inclusion,
        values=plan.values(found), faithfulness=found.ratio(0),
        controls=tuple(found.ratio(at) for at in plan.at["random"]),
        others=ratios, unmeasured=unmeasured,
        preference=_preference(found), background=_background(found, behaviour, own, seed),
        tests=_tests(plan, found, seed), edges=_edges(plan, found),
        incompleteness=_incompleteness(circuit.graph, found, plan),
        minimality=_minimality(circuit.graph, found, plan),
        provenance=provenance(on.model, behaviour, settings),
    )  # fmt: skip


class _Plan:
    """Every mask that is to be run, and where each kind of them lies."""

    def __init__(
        self, circuit: Circuit, controls: int, sets: int, generator: np.random.Generator, *,
        quick: bool,
    ) -> None:  # fmt: skip
        controls, sets = whole_number("controls", controls, 0), whole_number("sets", sets, 0)
        self.masks: list[np.ndarray] = []
        self.at: dict[str, range] = {}
        kept, valid = circuit.kept, circuit.graph.valid
        like = [alike(circuit, generator) for _ in range(controls)]
        self._add("circuit", [kept])
        self._add("random", like)
        columns = range(0 if quick else len(circuit.graph.writers))
        self.parts = [column for column in columns if kept[:, column].any()]
        """The columns of its parts."""
        self.sets = [_drawn(self.parts, generator) for _ in range(sets)] if self.parts else []
        """The random sets of them."""
        self._add("circuit without set", (_without(kept, one) for one in self.sets))
        self._add("model without set", (_without(valid, one) for one in self.sets))
        self._add("without part", (_without(kept, [part]) for part in self.parts))
        self.edges: list[Edge] = []
        """The edges whose knock-out is tried."""
        if quick:
            return
        some = sorted(generator.permutation(len(circuit))[:_MOST_EDGES])
        self.edges = [circuit.edges[at] for at in some]
        self._add("complement", [valid & ~kept])
        self._add("model without others", (valid & ~outside(circuit, generator) for _ in like))
        self._add("without edge", (kept & ~circuit.graph.mask([edge]) for edge in self.edges))
        pairs = [one for _ in range(controls) if (one := inflated(circuit, generator)) is not None]
        self._add("inflated", (grown for grown, _ in pairs))
        self._add("knocked", (knocked for _, knocked in pairs))

    def _add(self, name: str, masks: Iterable[np.ndarray]) -> None:
        start = len(self.masks)
        self.masks.extend(masks)
        self.at[name] = range(start, len(self.masks))

    def of(self, found: Measured, name: str) -> Float[ndarray, "mask example"]:
        """The measured values of one kind of masks."""
        where = self.at[name]
        return found.values[where.start : where.stop]

    def values(self, found: Measured) -> xr.DataArray:
        """What an evaluation keeps example by example."""
        random = self.of(found, "random")
        names = ["circuit", "model", "nothing", *(f"random {one}" for one in range(len(random)))]
        stacked = np.stack([found.values[0], found.clean, found.ablated, *random])
        return xr.DataArray(stacked, {"mask": names}, ("mask", "example"), "metric")


def _inclusion(circuit: Circuit, resampled: Stability | None) -> dict[str, float]:
    """How often each of its edges was selected."""
    if resampled is None:
        return {}
    if resampled.circuit.graph != circuit.graph:
        raise CircuitError(
            "These resampled circuits are of another graph than the circuit; resample the scores "
            "that it was selected from."
        )
    return {str(edge): resampled[str(edge)] for edge in circuit.edges}


def _measures(
    own: tuple[Metric, str | Constants], metrics: Sequence[str], ablations: Sequence[str]
) -> dict[str, tuple[str | Metric, str | Constants]]:  # fmt: skip
    """Every other pair of a metric and an ablation, by name."""
    return {
        f"{metric}, {ablation}": (
            own[0] if metric == own[0].name else metric,
            own[1] if ablation == named(own[1]) else ablation,
        )
        for metric in dict.fromkeys([own[0].name, *metrics])
        for ablation in dict.fromkeys([named(own[1]), *ablations])
        if metric in metrics or ablation in ablations
    }


def _check_measures(model: Model, measures: Iterable[Measure]) -> None:
    """Refuse a measure that does not exist, before anything is run."""
    for metric, ablation, prompts in measures:
        checked_metric(prompts, metric)
        check_prompts(model, prompts)
        if isinstance(ablation, str):
            check_ablation(ablation, prompts)


def _elsewhere(
    run: Callable[..., Measured], circuit: Circuit, measures: Mapping[str, Measure]
) -> tuple[dict[str, Ratio], dict[str, str]]:
    """The circuit's faithfulness by each measure, or why it has none."""
    ratios: dict[str, Ratio] = {}
    unmeasured: dict[str, str] = {}
    for name, (metric, ablation, prompts) in measures.items():
        found = run(prompts, circuit.kept[None], metric=metric, ablation=ablation)
        try:
            check_gap(found.clean, found.ablated, prompts)
        except CircuitError as error:
            unmeasured[name] = str(error)
        else:
            ratios[name] = found.ratio(0)
    return ratios, unmeasured


def _preference(found: Measured) -> Ratio:
    interval = bootstrap(np.diag(found.preference))
    return Ratio(mean=float(interval.mean), low=float(interval.low), high=float(interval.high))


def _background(
    found: Measured, behaviour: Behaviour, metric: Metric, seed: int
) -> tuple[Test, ...]:
    """Whether there is a behaviour at all."""
    if len(behaviour) < 2:
        return ()
    # A metric that compares with the clean run counts what is lost.
    effect = (found.clean - found.ablated) * (-1 if metric.needs_reference else 1)
    p = float(sign_flips(effect[None], seed=seed).p[0])
    kinds = {(right, wrong) for right, wrong in _answers(behaviour)}
    tests = [answers(found.preference, seed=seed)] if len(kinds) > 1 else []
    positive = p / 2 if effect.mean() > 0 else 1 - p / 2
    effects = Test(
        name="effect", null="the replaced run is as good as the clean one",
        statistic=float(effect.mean()), p=positive, wanted="rejected", level=STRICT,
    )  # fmt: skip
    return (*tests, effects)


def _answers(behaviour: Behaviour) -> Iterable[tuple[tuple[int, ...], tuple[int, ...]]]:
    return zip(behaviour.answers, behaviour.wrong_answers, strict=True)


def _tests(plan: _Plan, found: Measured, seed: int) -> tuple[Test, ...]:
    """The tests of Shi et al. 2024."""
    if "complement" not in plan.at or found.clean.size < 2:
        return ()
    model, own = found.clean, found.values[0]
    without = plan.of(found, "complement")[0]

    def far(name: str) -> Float[ndarray, " mask"]:
        return np.abs(plan.of(found, name) - model).mean(axis=1)

    edges, random = _knocked(plan, found)
    return (
        equivalence(own, model), independence(without, model, seed=seed),
        minimality(edges, random), sufficiency(float(far("circuit")[0]), far("random")),
        necessity(float(far("complement")[0]), far("model without others")),
    )  # fmt: skip


def _knocked(
    plan: _Plan, found: Measured
) -> tuple[Float[ndarray, " edge"], Float[ndarray, " draw"]]:
    """How far knocking out each edge moves the circuit, and a random one an inflated circuit."""
    own = np.abs(plan.of(found, "without edge") - found.values[0]).mean(axis=1)
    grown, knocked = plan.of(found, "inflated"), plan.of(found, "knocked")
    return own, np.abs(grown - knocked).mean(axis=1)


def _edges(plan: _Plan, found: Measured) -> pd.DataFrame:
    rows: list[dict[str, object]] = []
    if plan.edges:
        own, random = _knocked(plan, found)
        gap = abs(float(found.clean.mean() - found.ablated.mean()))
        rows = [
            {"edge": str(edge), "change": float(change) / gap, "p": float(p)}
            for edge, change, p in zip(plan.edges, own, idle_edges(own, random), strict=True)
        ]
    table = pd.DataFrame(rows, columns=pd.Index(["edge", "change", "p"]))
    return table.sort_values("change", kind="stable", ignore_index=True)


def _drawn(parts: Sequence[int], generator: np.random.Generator) -> list[int]:
    """A random set of parts, each in it with probability one half."""
    return [part for part in parts if generator.random() < 0.5]


def _without(kept: np.ndarray, parts: Sequence[int]) -> np.ndarray:
    found = kept.copy()
    found[:, list(parts)] = False
    return found


def _distance(
    found: Measured, one: Float[ndarray, " example"], other: Float[ndarray, " example"]
) -> tuple[float, float, float]:
    """|mean difference| over the whole effect, and the interval's ends."""
    gap = abs(float(found.clean.mean() - found.ablated.mean()))
    interval = bootstrap(one - other)
    mean, low, high = (float(x) / gap for x in (interval.mean, interval.low, interval.high))
    if low <= 0 <= high:
        return abs(mean), 0.0, max(-low, high)
    return abs(mean), min(abs(low), abs(high)), max(abs(low), abs(high))


def _incompleteness(graph: Graph, found: Measured, plan: _Plan) -> pd.DataFrame:
    rows: list[dict[str, object]] = []
    circuits, models = (plan.of(found, f"{which} without set") for which in ("circuit", "model"))
    for parts, circuit, model in zip(plan.sets, circuits, models, strict=True):
        distance, low, high = _distance(found, circuit, model)
        rows.append({
            "parts": ", ".join(str(graph.writers[part]) for part in parts),
            "circuit": circuit.mean(), "model": model.mean(),
            "distance": distance, "low": low, "high": high,
        })  # fmt: skip
    columns = ["parts", "circuit", "model", "distance", "low", "high"]
    return pd.DataFrame(rows, columns=pd.Index(columns))


def _minimality(graph: Graph, found: Measured, plan: _Plan) -> pd.DataFrame:
    rows: list[dict[str, object]] = []
    for part, without in zip(plan.parts, plan.of(found, "without part"), strict=True):
        change, low, high = _distance(found, found.values[0], without)
        rows.append({"part": str(graph.writers[part]), "change": change, "low": low, "high": high})
    table = pd.DataFrame(rows, columns=pd.Index(["part", "change", "low", "high"]))
    return table.sort_values("change", kind="stable", ignore_index=True)
