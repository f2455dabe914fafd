"""Heads and MLPs, or a layer's parts, scored together by every method."""

from typing import Any

import numpy as np
import pytest
import torch
from tests.circuits.each_family import EVEN, batch, masked

from cutaway.behaviours import METRICS, Behaviour
from cutaway.circuits import METHODS, CircuitError, Granularity, Masked, Replacement, discover
from cutaway.circuits.batch import Batch

FEW: dict[str, dict[str, Any]] = {"edge-pruning": {"steps": 3}, "subnetwork": {"steps": 3}}
TOGETHER: list[tuple[str, Granularity]] = [
    (method, granularity)
    for method in METHODS
    for granularity in ("nodes", "layers")
    if (method, granularity) != ("atp-star", "layers")
]


def of_units(found: np.ndarray, unit: np.ndarray) -> list[float]:
    """The one score of each unit."""
    each = [np.unique(found[unit == number]) for number in range(unit.max() + 1)]
    assert all(len(one) == 1 for one in each)
    return [float(one[0]) for one in each]


@pytest.mark.parametrize(("method", "granularity"), TOGETHER)
def test_every_edge_carries_its_unit_s_score(method: str, granularity: Granularity) -> None:
    on = masked("llama-grouped")
    options = FEW.get(method, {})
    found = discover(on, EVEN, method, granularity=granularity, **options)
    names, unit = on.graph.units(granularity)
    scores = of_units(found.mean.to_numpy(), unit[on.graph.valid])
    assert found.granularity == granularity
    units = found.units(granularity)
    np.testing.assert_allclose(units, scores, rtol=1e-5, atol=1e-7)
    assert list(units.index) == list(names)
    if method in ("eap", "eap-ig", "eap-ig-activations", "clean-corrupt", "mask-gradient"):
        alone = discover(on, EVEN, method, **options)
        np.testing.assert_allclose(units, alone.units(granularity), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.units("layers").sum(), units.sum(), rtol=1e-4)


def without(on: Masked, pairs: Behaviour, granularity: Granularity, metric: str) -> np.ndarray:
    """(unit,): the metric's mean with a unit off, by a whole masked forward each."""
    at = Batch(on, pairs, slice(0, len(pairs)), METRICS[metric], Replacement(on.model, pairs))
    names, unit = on.graph.units(granularity)
    off = [on.graph.valid & (unit != number) for number in range(len(names))]
    return at.values(torch.as_tensor(np.stack(off)).float()).mean(axis=1)


@pytest.mark.parametrize("name", ["gpt2", "gptj", "gemma2"])
@pytest.mark.parametrize("granularity", ["nodes", "layers"])
def test_exact_effects_are_of_all_edges_together(
    name: str, granularity: Granularity, pairs: Behaviour
) -> None:
    on = masked(name)
    found = discover(on, pairs, "exact", granularity=granularity, batch_size=3)
    expected = float(batch(on, pairs).ends[0].mean()) - without(
        on, pairs, granularity, "logit_diff"
    )
    np.testing.assert_allclose(found.units(granularity), expected, atol=1e-4)


@pytest.mark.parametrize("least", [0.04, 0.06])
def test_acdc_decides_over_nodes_one_by_one(least: float, pairs: Behaviour) -> None:
    on = masked("gpt2")
    found = discover(on, pairs, "acdc", granularity="nodes", threshold=least).units("nodes")
    at = Batch(on, pairs, slice(0, 5), METRICS["kl"], Replacement(on.model, pairs))
    names, unit = on.graph.units("nodes")
    kept, loss, expected = on.graph.valid.copy(), 0.0, np.zeros(len(names))
    for number in reversed(range(len(names))):
        trial = kept & (unit != number)
        new = float(at.values(torch.as_tensor(trial[None]).float()).mean())
        expected[number] = new - loss
        if new - loss < least:
            kept, loss = trial, new
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert 0 < (expected >= least).sum() < len(names)


def test_bad_input_is_refused_in_a_sentence() -> None:
    on = masked("gpt2")
    with pytest.raises(CircuitError, match="'subnetwork' has no granularity 'edges'; choose nodes"):
        discover(on, EVEN, "subnetwork", granularity="edges")
    with pytest.raises(CircuitError, match="'atp-star' has no granularity 'layers'; choose nodes"):
        discover(on, EVEN, "atp-star", granularity="layers")
    with pytest.raises(CircuitError, match="'eap' has no granularity 'heads'; choose edges or"):
        discover(on, EVEN, "eap", granularity="heads")  # type: ignore[arg-type]
