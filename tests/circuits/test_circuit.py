"""From scores to circuits, and what dangles."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.circuits.each_family import batch, masked

from cutaway.behaviours import Behaviour
from cutaway.circuits import (
    Circuit,
    CircuitError,
    EdgeScores,
    Graph,
    curve,
    discover,
    greedy,
    threshold,
    top_n,
)
from cutaway.model import open_model
from cutaway.model.tiny import tiny

SMALL = Graph(n_layers=1, n_heads=2, n_kv_heads=2, parallel=False)
GROUPED = Graph(n_layers=2, n_heads=4, n_kv_heads=2, parallel=False)


def scores(graph: Graph, values: np.ndarray) -> EdgeScores:
    names = [str(edge) for edge in graph.edges]
    return EdgeScores(
        values=xr.DataArray(values, {"edge": names}, ("edge",)),
        clean=xr.DataArray(np.ones(2), dims="example"),
        ablated=xr.DataArray(np.zeros(2), dims="example"),
        graph=graph, method="by hand", metric="logit_diff", ablation="counterfactual",
        provenance={},
    )  # fmt: skip


def names(circuit: Circuit) -> set[str]:
    return set(map(str, circuit.edges))


def by_name(**values: float) -> EdgeScores:
    found = np.zeros(len(SMALL))
    for name, value in values.items():
        edge = {"v0": "input->a0.h0<v>", "v1": "input->a0.h1<v>", "h0m": "a0.h0->m0",
                "h1l": "a0.h1->logits", "ml": "m0->logits"}[name]  # fmt: skip
        found[[str(each) for each in SMALL.edges].index(edge)] = value
    return scores(SMALL, found)


CHAIN = by_name(v0=3.0, h0m=-2.0, v1=5.0, ml=1.0, h1l=0.5)


def test_selections_by_hand() -> None:
    assert names(top_n(CHAIN, 2)) == {"input->a0.h0<v>", "input->a0.h1<v>"}
    assert names(top_n(CHAIN, 3, by="score")) == {
        "input->a0.h0<v>", "input->a0.h1<v>", "m0->logits"
    }  # fmt: skip
    assert names(threshold(CHAIN, 2.0)) == {
        "input->a0.h0<v>", "input->a0.h1<v>", "a0.h0->m0"
    }  # fmt: skip
    assert not names(top_n(CHAIN, 2, prune=True))
    assert names(greedy(CHAIN, 3)) == {"m0->logits", "a0.h0->m0", "input->a0.h0<v>"}
    assert names(greedy(CHAIN, 5)) == names(threshold(CHAIN, 0.5))
    assert len(greedy(CHAIN, len(SMALL))) == len(top_n(CHAIN, len(SMALL))) == len(SMALL)


def test_what_dangles_is_taken_out() -> None:
    whole = Circuit.of(SMALL, ["input->a0.h0<v>", "a0.h0->m0", "m0->logits"])
    assert names(whole.pruned()) == names(whole)
    for missing in whole.edges:
        rest = [edge for edge in whole.edges if edge != missing]
        assert not names(Circuit.of(SMALL, rest).pruned())
    shared = Circuit.of(GROUPED, ["input->a0.kv1<k>", "a0.h2->logits", "a0.h1->logits"])
    assert names(shared.pruned()) == {"input->a0.kv1<k>", "a0.h2->logits"}
    assert whole.parts == ("input", "a0.h0", "m0")
    assert "a0.h0->m0" in whole
    assert "a0.h1->m0" not in whole
    assert whole.share == pytest.approx(3 / 13)


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.6))
def test_pruning_once_is_enough_and_greedy_edges_lead_to_the_logits(
    seed: int, share: float
) -> None:
    generator = np.random.default_rng(seed)
    kept = (generator.random(GROUPED.valid.shape) < share) & GROUPED.valid
    once = Circuit(graph=GROUPED, kept=kept).pruned()
    np.testing.assert_array_equal(once.pruned().kept, once.kept)
    assert not (once.kept & ~kept).any()
    found = greedy(scores(GROUPED, generator.normal(size=len(GROUPED))), 12)
    # Every edge leads to the logits: with the input's edge into every reader, nothing dangles.
    fed = Circuit(graph=GROUPED, kept=found.kept | (GROUPED.valid & (np.arange(11) == 0)))
    assert len(found) == 12
    assert not (found.kept & ~fed.pruned().kept).any()


@pytest.mark.parametrize("name", ["gpt2", "llama-grouped", "deepseek_v3"])
def test_pruning_does_not_change_what_the_circuit_does(name: str, pairs: Behaviour) -> None:
    on = masked(name)
    at = batch(on, pairs)
    generator = np.random.default_rng(0)
    changed = 0
    for share in (0.05, 0.1, 0.3):
        kept = (generator.random(on.graph.valid.shape) < share) & on.graph.valid
        circuit = Circuit(graph=on.graph, kept=kept)
        pruned = circuit.pruned()
        changed += len(circuit) - len(pruned)
        both = at.values(torch.stack([circuit.mask, pruned.mask]))
        np.testing.assert_allclose(both[0], both[1], rtol=1e-4, atol=1e-4)
    assert changed > 0


def test_saving_and_the_model_it_belongs_to(tmp_path: Path) -> None:
    model, other = open_model(tiny("gpt2")), open_model(tiny("gpt2", seed=1))
    circuit = Circuit.of(model, ["input->m0", "m0->logits"])
    loaded = Circuit.load(circuit.save(tmp_path / "deep" / "circuit.json"))
    assert names(loaded) == names(circuit)
    loaded.check(model)
    with pytest.raises(CircuitError, match="belongs to another model"):
        loaded.check(other)
    with pytest.raises(CircuitError, match="2 layers of 4 heads, and LlamaForCausalLM is built"):
        loaded.check(open_model(tiny("llama")))
    (tmp_path / "broken.json").write_text('{"edges": []}')
    with pytest.raises(CircuitError, match="not a saved circuit"):
        Circuit.load(tmp_path / "broken.json")


def test_bad_input_is_refused_in_a_sentence() -> None:
    with pytest.raises(CircuitError, match="0 to 13 edges; found 14"):
        top_n(CHAIN, 14)
    with pytest.raises(CircuitError, match="by 'magnitude' or 'score'; found 'size'"):
        greedy(CHAIN, 1, by="size")  # type: ignore[arg-type]
    with pytest.raises(CircuitError, match=r"the shape \(8, 4\); found \(2, 2\)"):
        Circuit(graph=SMALL, kept=np.ones((2, 2), dtype=bool))
    with pytest.raises(CircuitError, match="no edge 'a0.h0->a0.h0<q>', but the circuit holds it"):
        Circuit(graph=SMALL, kept=np.ones((8, 4), dtype=bool))
    with pytest.raises(CircuitError, match="There is no edge 'm0->m0'"):
        Circuit.of(SMALL, ["m0->m0"])


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda: Circuit(graph=SMALL, kept=np.zeros((8, 4))), "found 'ndarray' of float64"),
        (lambda: Circuit(graph=SMALL, kept=torch.zeros(8, 4) > 0), "found 'Tensor' of torch.bool"),
        (lambda: Circuit(graph=SMALL, kept=[[True]]), "found 'list'"),
        (lambda: Circuit.of(SMALL, [3]), "3 is not an edge"),
        (lambda: top_n(CHAIN, 2.5), "0 to 13 edges; found 2.5"),
        (lambda: top_n(CHAIN, "2"), "0 to 13 edges; found '2'"),
        (lambda: greedy(CHAIN, 2.5), "0 to 13 edges; found 2.5"),
        (lambda: greedy(CHAIN, True), "0 to 13 edges; found True"),
        (lambda: threshold(CHAIN, float("nan")), "must have is a number; found nan"),
        (lambda: threshold(CHAIN, "1"), "must have is a number; found '1'"),
        (lambda: top_n(by_name(v0=np.nan, ml=1.0), 2), "1 of 13 edges have a score that is not"),
        (lambda: greedy(by_name(v0=np.nan), 2, by="score"), "1 of 13 edges have a score that"),
        (lambda: threshold(by_name(v0=np.nan), 0.5, granularity="nodes"), "1 of 4 nodes have"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_values_of_another_kind_are_refused_in_a_sentence(
    wrong: Callable[[], object], sentence: str
) -> None:
    with pytest.raises(CircuitError, match=sentence):
        wrong()


def test_whole_numbers_of_numpy_are_sizes() -> None:
    assert names(top_n(CHAIN, np.int64(2))) == names(top_n(CHAIN, 2))
    assert names(threshold(CHAIN, np.float32(2.0))) == names(threshold(CHAIN, 2))


def test_an_edge_that_supports_the_behaviour_lowers_a_loss() -> None:
    effects = replace(CHAIN, method="exact")
    loss = replace(effects, metric="kl")
    turned = replace(loss, values=-CHAIN.values)
    assert names(top_n(turned, 3, by="score")) == names(top_n(effects, 3, by="score"))
    assert names(greedy(turned, 3, by="score")) == names(greedy(effects, 3, by="score"))
    assert names(threshold(turned, 1, by="score")) == names(threshold(effects, 1, by="score"))
    best = top_n(effects, 2, by="score", granularity="nodes")
    assert names(top_n(turned, 2, by="score", granularity="nodes")) == names(best)
    assert names(top_n(loss, 1, by="score")) == {"a0.h0->m0"}
    # The damage that ACDC measures has a sign of its own, and a metric of one's own has its ends.
    learned = replace(CHAIN, method="acdc", metric="kl")
    assert names(top_n(learned, 1, by="score")) == {"input->a0.h1<v>"}
    own = replace(effects, metric="mine")
    falls = replace(own, clean=own.ablated, ablated=own.clean)
    assert (own.loss, falls.loss, learned.loss, loss.loss) == (False, True, False, True)


def test_circuits_by_kl_keep_what_the_model_does(pairs: Behaviour) -> None:
    """The edges that support it most come first, so that few of them keep more than the others."""
    on = masked("gpt2")
    found = discover(on, pairs, "exact", metric="kl")
    sizes = curve(on, pairs, found, sizes=(0.3, 1.0), by="score")
    worst = curve(on, pairs, replace(found, values=-found.values), sizes=(0.3, 1.0), by="score")
    kept, lost = (float(one.faithfulness["mean"][0]) for one in (sizes, worst))
    assert kept > 0.3 > lost
    lowest = int(np.argmin(found.mean.to_numpy()))
    assert top_n(found, 1, by="score").edges == (found.graph.edges[lowest],)


def test_circuits_of_whole_parts(pairs: Behaviour) -> None:
    """All edges out of the best heads and MLPs, and of no others."""
    on = masked("gpt2")
    found = discover(on, pairs, "eap")
    for granularity in ("nodes", "layers"):
        units, index = found.units(granularity), on.graph.units(granularity)[1]
        best = np.argsort(-np.abs(units.to_numpy()), kind="stable")[:3]
        circuit = top_n(found, 3, granularity=granularity)
        np.testing.assert_array_equal(circuit.kept, np.isin(index, best))
        least = float(np.abs(units.to_numpy())[best[-1]])
        again = threshold(found, least, granularity=granularity)
        np.testing.assert_array_equal(again.kept, circuit.kept)
        signed = top_n(found, 1, by="score", granularity=granularity)
        np.testing.assert_array_equal(signed.kept, index == int(np.argmax(units.to_numpy())))
    with pytest.raises(CircuitError, match="0 to 11 nodes; found 12"):
        top_n(found, 12, granularity="nodes")
