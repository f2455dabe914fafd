"""How often edges are selected, worked out by hand; sizes chosen on the prompts given."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from tests.circuits.each_family import masked

from cutaway.behaviours import Behaviour
from cutaway.circuits import (
    Circuit,
    CircuitError,
    EdgeScores,
    Stability,
    discover,
    greedy,
    rediscovery,
    smallest,
    stability,
    top_n,
)
from cutaway.circuits.faithfulness import measured
from cutaway.organisms import constructed


def scored(rows: dict[str, list[float]], examples: int = 2) -> EdgeScores:
    """Scores of a tiny GPT-2's graph: those given, and 0 elsewhere."""
    graph = masked("gpt2").graph
    names = [str(edge) for edge in graph.edges]
    values = np.zeros((len(graph), examples))
    for name, row in rows.items():
        values[names.index(name)] = row
    ends = xr.DataArray(np.zeros(examples), dims="example")
    return EdgeScores(
        values=xr.DataArray(values, {"edge": names}, ("edge", "example"), "score"),
        clean=ends, ablated=ends, graph=graph, method="by hand", metric="logit_diff",
        ablation="zero", provenance={},
    )  # fmt: skip


def best(n: int) -> Callable[[EdgeScores], Circuit]:
    return lambda scores: top_n(scores, n)


def test_inclusion_by_hand() -> None:
    # The second edge wins only in the quarter of draws that hold the second example twice.
    found = stability(
        scored({"input->m0": [3.0, 1.0], "input->m1": [0.0, 2.5]}), best(1), draws=1000
    )
    assert found["input->m0"] == pytest.approx(0.75, abs=0.05)
    assert found["input->m1"] == pytest.approx(0.25, abs=0.05)
    assert float(found.inclusion.sum()) == pytest.approx(1)
    assert [str(edge) for edge in found.circuit.edges] == ["input->m0"]
    assert len(found.stable()) == 0
    assert [str(edge) for edge in found.stable(0.7).edges] == ["input->m0"]
    assert (found.share(), found.share(0.7)) == (0, 1)


def test_edges_that_all_prompts_agree_on_are_stable(tmp_path: Path) -> None:
    found = stability(
        scored({"input->m0": [3, 2, 3], "m0->logits": [2, 2, 2], "m1->logits": [1, 1, 1]}, 3),
        best(2), draws=50,
    )  # fmt: skip
    assert found.share() == 1
    assert {str(edge) for edge in found.stable().edges} == {"input->m0", "m0->logits"}
    assert list(found.table()["inclusion"]) == [1, 1]
    assert "100% of 2 edges are in 90% of 50" in str(found)
    found.save(tmp_path / "stability.nc")
    loaded = Stability.load(tmp_path / "stability.nc")
    assert str(loaded) == str(found)
    assert (loaded.stable().kept == found.stable().kept).all()


def test_running_a_method_again_is_resampling_its_scores(pairs: Behaviour) -> None:
    on = masked("gpt2")

    def score(prompts: Behaviour) -> EdgeScores:
        return discover(on, prompts, "eap")

    again = rediscovery(pairs, score, best(20), draws=6, seed=2)
    from_scores = stability(score(pairs), best(20), draws=6, seed=2)
    np.testing.assert_allclose(again.inclusion, from_scores.inclusion)
    assert 0 < again.share() < 1


def test_the_smallest_circuit_of_a_known_one_is_it() -> None:
    organism = constructed("reverse", n=20)
    scores = discover(organism.model, organism.behaviour, "exact")
    found = smallest(organism.model, organism.behaviour, scores, span=(0.99, 1.01))
    assert {str(edge) for edge in found.edges} == set(organism.edges)
    assert found.provenance["selection"] == {
        "selection": "greedy", "n": len(organism.edges), "by": "magnitude", "pruned": False,
        "smallest": [0.99, 1.01],
    }  # fmt: skip
    assert stability(scores, lambda drawn: greedy(drawn, len(found)), draws=20).share() == 1


def test_the_smallest_keeps_the_behaviour_and_one_less_does_not(pairs: Behaviour) -> None:
    on = masked("llama-grouped")
    scores = discover(on, pairs, "exact")
    found = smallest(on, pairs, scores, span=(0.7, 1.3), grow=top_n)
    assert 1 < len(found) < len(on.graph)
    sizes = [len(found), len(found) - 1]
    values = measured(on, pairs, np.stack([top_n(scores, size).kept for size in sizes]))
    kept, lost = values.ratio(0), values.ratio(1)
    assert 0.7 <= kept.low <= kept.high <= 1.3
    assert lost.low < 0.7 or lost.high > 1.3


def test_bad_input_is_refused_in_a_sentence(pairs: Behaviour) -> None:
    on = masked("gpt2")
    together = discover(on, pairs, "random")
    with pytest.raises(CircuitError, match="'random' scores all examples together.*rediscovery"):
        stability(together, best(3))
    with pytest.raises(CircuitError, match="found 5 examples and 0 draws"):
        stability(discover(on, pairs, "magnitude"), best(3), draws=0)
    with pytest.raises(CircuitError, match=r"a low end below 1 .* found \(0.2, 0.8\)"):
        smallest(on, pairs, together, span=(0.2, 0.8))
