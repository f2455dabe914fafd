"""ACDC, tried in batches, decides what the sequential algorithm decides."""

from typing import Any

import numpy as np
import pytest
import torch
from tests.circuits.each_family import masked

from cutaway.behaviours import METRICS, Behaviour
from cutaway.circuits import Masked, Replacement, discover, threshold
from cutaway.circuits.batch import Batch
from cutaway.circuits.graph import led_to
from cutaway.organisms import constructed


def one_by_one(
    on: Masked, pairs: Behaviour, metric: str, least: float
) -> tuple[np.ndarray, np.ndarray]:
    """(reader, writer) twice: what is kept and the damage, by a whole masked forward per edge."""
    graph, n = on.graph, len(pairs)
    at = Batch(on, pairs, slice(0, n), METRICS[metric], Replacement(on.model, pairs))
    sign = 1 if metric == "kl" else -1
    kept, loss = graph.valid.copy(), sign * float(at.ends[0].mean())
    damage = np.zeros(kept.shape)
    for row in reversed(range(len(graph.readers))):
        reader = graph.readers[row]
        if reader.layer is not None and not kept[:, led_to(graph, reader)].any():
            kept[row] = False
        for column in reversed(np.flatnonzero(kept[row])):
            trial = kept.copy()
            trial[row, column] = False
            new = sign * float(at.values(torch.as_tensor(trial[None]).float()).mean())
            damage[row, column] = new - loss
            if new - loss < least:
                kept, loss = trial, new
    return kept, damage


@pytest.mark.parametrize("name", ["gpt2", "llama-grouped", "gptj"])
@pytest.mark.parametrize(("metric", "least"), [("kl", 0.002), ("kl", 0.02), ("logit_diff", 0.01)])
def test_acdc_decides_as_the_sequential_algorithm(
    name: str, metric: str, least: float, pairs: Behaviour
) -> None:
    on = masked(name)
    given: dict[str, Any] = {} if metric == "kl" else {"metric": metric}
    found = discover(on, pairs, "acdc", threshold=least, batch_size=3, **given)
    kept, damage = one_by_one(on, pairs, metric, least)
    chosen = threshold(found, least, by="score")
    np.testing.assert_array_equal(chosen.kept, kept)
    np.testing.assert_allclose(np.nan_to_num(found.matrix), damage, rtol=1e-3, atol=1e-4)
    assert found.metric == metric
    assert 0 < len(chosen) < len(on.graph)


def test_edges_that_do_nothing_are_tried_in_long_chains(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nearly all edges do nothing and tie at 0: the same decisions, in few batches."""
    organism = constructed("reverse", n=8)
    on = Masked(organism.model)
    plain, batches = Batch.values, list[int]()

    def counted(self: Batch, kept: torch.Tensor, layer: int | None = 0) -> np.ndarray:
        batches.append(len(kept))
        return plain(self, kept, layer)

    with monkeypatch.context() as patched:
        patched.setattr(Batch, "values", counted)
        found = discover(on, organism.behaviour, "acdc", threshold=0.01)
    kept, damage = one_by_one(on, organism.behaviour, "kl", 0.01)
    chosen = threshold(found, 0.01, by="score")
    np.testing.assert_array_equal(chosen.kept, kept)
    assert {str(edge) for edge in chosen.edges} == set(organism.edges)
    assert (np.abs(damage[on.graph.valid]) < 1e-4).mean() > 0.9
    assert len(batches) < 0.6 * (damage != 0).sum()


def test_damage_of_just_the_threshold_keeps_an_edge(pairs: Behaviour) -> None:
    """Less than the threshold goes; a tie stays. The first edge tried has nothing before it."""
    on = masked("gpt2")
    tried = discover(on, pairs, "acdc", threshold=100.0)
    column = int(on.graph.reach[-1]) - 1
    damage = float(tried.matrix[-1, column])
    assert damage > 0
    for least, stays in ((damage, True), (float(np.nextafter(damage, 1)), False)):
        again = discover(on, pairs, "acdc", threshold=least)
        assert float(again.matrix[-1, column]) == damage
        assert threshold(again, least, by="score").kept[-1, column] == stays
