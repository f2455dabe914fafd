"""From a model and a behaviour to a score for every edge: one function, many methods.

| method | what it measures | passes per batch (F forward, B backward) |
|---|---|---|
| `exact` | each edge off by itself | a part of a forward per edge |
| `eap` | the same to first order | 3 F, 1 B |
| `eap-ig` | gradients along a path of inputs | 2 F, steps × (F + B) |
| `eap-ig-activations` | gradients along each writer's own path | (2 layers + 1) steps × (F + B) |
| `clean-corrupt` | gradients at both ends | 4 F, 2 B |
| `mask-gradient` | gradients along a path of masks | steps × (F + B), masked |
| `acdc` | damage when edges are removed one after another | a part of a forward per edge |
| `edge-pruning` | a mask over edges, learned | steps × (F + B), masked |
| `subnetwork` | a mask over heads and MLPs, learned | the same |
| `atp-star` | each head and MLP off by itself, by slopes that cannot cancel | 2 F, (1 + layers) B |
| `information-flow` | what each stream that is read is made of, without contrast | 1 F |
| `magnitude` | how much a writer's output changes | 2 F |
| `random` | nothing | 2 F |

Each is one file of this package, and its module docstring is its algorithm.

Whole heads and MLPs, or a layer's whole attention and MLP, are scored together by `granularity`:
switched off together (`exact`, `acdc`), masked together (learned masks), as the sum of their edges'
slopes, which is the slope of switching them together (the gradient methods), or as the mean of
their edges' scores (`information-flow`, `magnitude`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType

import numpy as np
import xarray as xr

from cutaway.behaviours.behaviour import Behaviour
from cutaway.behaviours.metrics import METRICS, Metric
from cutaway.circuits.checks import check_prompts, whole_number
from cutaway.circuits.discovery.acdc import acdc
from cutaway.circuits.discovery.activations import eap_ig_activations
from cutaway.circuits.discovery.atp_star import atp_star
from cutaway.circuits.discovery.baselines import magnitude, random
from cutaway.circuits.discovery.clean_corrupt import clean_corrupt
from cutaway.circuits.discovery.eap import eap
from cutaway.circuits.discovery.eap_ig import eap_ig
from cutaway.circuits.discovery.edge_pruning import edge_pruning
from cutaway.circuits.discovery.exact import exact
from cutaway.circuits.discovery.information_flow import information_flow
from cutaway.circuits.discovery.mask_gradient import mask_gradient
from cutaway.circuits.discovery.setting import Setting
from cutaway.circuits.discovery.subnetwork import subnetwork
from cutaway.circuits.graph import CircuitError, Granularity, Graph
from cutaway.circuits.masked import Masked
from cutaway.circuits.scores import EdgeScores
from cutaway.circuits.written import Replacement
from cutaway.measure.batches import Progress, batch_size_for
from cutaway.measure.result import provenance
from cutaway.model.model import Model
from cutaway.patch.journal import Journal

METHODS: MappingProxyType[str, Callable[..., np.ndarray]] = MappingProxyType(
    {
        "exact": exact,
        "eap": eap,
        "eap-ig": eap_ig,
        "eap-ig-activations": eap_ig_activations,
        "clean-corrupt": clean_corrupt,
        "mask-gradient": mask_gradient,
        "acdc": acdc,
        "edge-pruning": edge_pruning,
        "subnetwork": subnetwork,
        "atp-star": atp_star,
        "information-flow": information_flow,
        "magnitude": magnitude,
        "random": random,
    }
)
"""Every discovery method by name."""

_AT_CLEAN = ("eap", "atp-star")
_WITHOUT_GRADIENT = ("exact", "acdc", "information-flow", "random", "magnitude")
_UNSPLIT = ("atp-star", "information-flow")
_SUMMED = ("eap", "eap-ig", "eap-ig-activations", "clean-corrupt", "mask-gradient")
_AVERAGED = ("information-flow", "magnitude")
_OWN_GRANULARITY: dict[str, Granularity] = {"subnetwork": "nodes", "atp-star": "nodes"}
_OWN_METRIC = {"acdc": "kl", "edge-pruning": "kl", "subnetwork": "kl"}


def discover(
    model: Model | Masked,
    behaviour: Behaviour,
    method: str = "eap-ig",
    *,
    metric: str | Metric | None = None,
    ablation: str = "counterfactual",
    graph: Graph | None = None,
    granularity: Granularity | None = None,
    batch_size: int | None = None,
    memory: int | None = None,
    seed: int = 0,
    journal: str | Path | None = None,
    progress: Progress | None = None,
    **options: object,
) -> EdgeScores:
    """Score every edge of a model for a behaviour.

    `method` and `ablation` are explained in this module's table and in `written`'s; `metric` is the
    behaviour's own when not given (for ACDC and learned masks it is `kl`). `graph` is
    `Graph.of(model)` when not given, or one that is split by position or into neurons. With
    `granularity` "nodes" or "layers" everything out of a head or MLP, or of a layer's attention or
    MLP, is scored together, and each of its edges carries that score ("edges" when not given; for
    `subnetwork` and `atp-star`, which score no single edges, "nodes"). `memory` bounds, in bytes,
    what is held above the model and its plain passes. `options` are the method's own, such as
    `steps`. A `Masked` model can be given, to be prepared once for several calls. What is finished
    is kept in the file `journal`, and the same call later goes on from there, to the same numbers;
    delete it once the scores are saved. `progress` is called with the steps done and their total.

    Raises `CircuitError` for what does not exist or does not fit together, and `JournalError` for
    a journal of other work, or one that another process is at work on.
    """
    found = _method(method, options)
    chosen = checked_metric(behaviour, _OWN_METRIC.get(method) if metric is None else metric)
    _check_metric(chosen, method)
    on = Masked.of(model, graph, memory=memory)
    check_prompts(on.model, behaviour)
    size, seed = batch_size_for(on.model, behaviour, batch_size), whole_number("seed", seed, 0)
    together = _granularity(on.graph, method, granularity)
    settings = {"method": method, "ablation": ablation, "metric": chosen.name, "seed": seed,
                "granularity": together, **on.graph.split}  # fmt: skip
    origin = provenance(on.model, behaviour, settings | options)
    with nullcontext() if journal is None else _opened(journal, origin, on, chosen) as kept:
        if kept is not None:
            on, size = _as_begun(kept, on, size)
        setting = Setting(
            on=on, behaviour=behaviour, metric=chosen, batch_size=size, seed=seed,
            granularity=together, progress=progress, journal=kept,
            replacement=Replacement(on.model, behaviour, ablation, seed=seed, batch_size=size,
                                    split=on.graph.alone),
            ends=(np.empty(len(behaviour)), np.empty(len(behaviour))),
        )  # fmt: skip
        values = _lifted(found(setting, **options), setting, method)
    names, dims = [str(edge) for edge in on.graph.edges], ("edge", "example")[: values.ndim]
    return EdgeScores(
        values=xr.DataArray(values, {"edge": names}, dims, "score"),
        clean=xr.DataArray(setting.ends[0], dims="example", name=chosen.name),
        ablated=xr.DataArray(setting.ends[1], dims="example", name=chosen.name),
        graph=on.graph, method=method, metric=chosen.name, ablation=ablation, provenance=origin,
    )  # fmt: skip


def _check_metric(metric: Metric, method: str) -> None:
    if metric.needs_reference and method in _AT_CLEAN:
        raise CircuitError(
            f"The metric {metric.name!r} compares with the clean run, where its gradient is zero; "
            "use another metric, or the method 'eap-ig'."
        )
    if metric.name == "accuracy" and method not in _WITHOUT_GRADIENT:
        raise CircuitError(
            "The metric 'accuracy' counts and has no gradient; use another metric, or 'exact'."
        )


def _granularity(graph: Graph, method: str, asked: Granularity | None) -> Granularity:
    """What a method scores together, on a graph that it serves."""
    if graph.split and method in _UNSPLIT:
        raise CircuitError(
            f"The method {method!r} scores whole heads and MLPs at all positions, and this graph "
            "is split; leave the split out, or use the method 'eap-ig'."
        )
    own = _OWN_GRANULARITY.get(method, "edges")
    known = {"edges": ("edges", "nodes", "layers"), "nodes": ("nodes", "layers")}[own]
    if method == "atp-star":
        known = ("nodes",)
    if asked is not None and asked not in known:
        raise CircuitError(
            f"The method {method!r} has no granularity {asked!r}; choose {' or '.join(known)}."
        )
    return own if asked is None else asked


def _lifted(values: np.ndarray, setting: Setting, method: str) -> np.ndarray:
    """(edge, …): at every edge the sum or the mean over what it is scored together with."""
    if setting.granularity == "edges" or method not in (*_SUMMED, *_AVERAGED):
        return values
    unit = setting.unit[setting.graph.valid]
    sums = np.zeros((int(unit.max()) + 1, *values.shape[1:]), values.dtype)
    np.add.at(sums, unit, values)
    if method in _AVERAGED:
        sums /= np.bincount(unit)[:, None]
    return sums[unit]


def _opened(path: str | Path, origin: Mapping[str, object], on: Masked, metric: Metric) -> Journal:
    """The journal of this very work."""
    if METRICS.get(metric.name) is not metric:
        raise CircuitError(
            f"A journal cannot tell one metric {metric.name!r} of your own from another, so it "
            "could go on from other numbers; leave the journal out, or use a built-in metric."
        )
    return Journal(path, {**origin, "graph": asdict(on.graph)})


def _as_begun(journal: Journal, on: Masked, size: int) -> tuple[Masked, int]:
    """The limits under which the work was begun: they decide what is computed together."""
    memory = int(journal.settle("memory", on.memory))
    begun = on if memory == on.memory else Masked.of(on, memory=memory)
    return begun, int(journal.settle("batch_size", size))


def checked_metric(behaviour: Behaviour, metric: str | Metric | None) -> Metric:
    """The metric asked for, or the behaviour's own."""
    chosen = behaviour.metric if metric is None else metric
    if isinstance(chosen, Metric):
        return chosen
    if chosen not in METRICS:
        raise CircuitError(f"There is no metric {chosen!r}; choose one of {', '.join(METRICS)}.")
    return METRICS[chosen]


def _method(name: str, options: dict[str, object]) -> Callable[..., np.ndarray]:
    if name not in METHODS:
        raise CircuitError(f"There is no method {name!r}; choose one of {', '.join(METHODS)}.")
    known = [each for each in inspect.signature(METHODS[name]).parameters if each != "setting"]
    for option in options:
        if option not in known:
            has = f"its options are {', '.join(known)}" if known else "it has no options"
            raise CircuitError(f"The method {name!r} does not take {option!r}; {has}.")
    return METHODS[name]
