"""Which circuits pass: true ones do; wrong ones, padded ones and circuits of nothing do not."""

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.circuits.each_family import masked
from transformers import GPT2LMHeadModel

import cutaway
from cutaway.behaviours import Behaviour
from cutaway.circuits import (
    Circuit,
    CircuitError,
    Evaluation,
    Masked,
    NoEffectError,
    discover,
    evaluate,
    greedy,
    smallest,
    stability,
    top_n,
)
from cutaway.circuits.controls import inflated, outside
from cutaway.model import open_model
from cutaway.organisms import Organism, constructed


@cache
def organism(name: str = "reverse") -> Organism:
    return constructed(name, n=30)


def true_circuit(of: Organism) -> Circuit:
    return Circuit.of(of.model, of.edges)


def passed(found: Evaluation) -> dict[str, bool]:
    return {test.name: test.passed for test in found.tests}


@pytest.fixture(scope="module")
def of_the_truth() -> Evaluation:
    it = organism()
    scores = discover(it.model, it.behaviour, "eap-ig")
    again = stability(scores, lambda drawn: greedy(drawn, len(it.edges)), draws=20)
    return evaluate(
        it.model, it.behaviour, true_circuit(it), others={"more": it.behaviour}, resampled=again
    )


def test_a_true_circuit_passes(of_the_truth: Evaluation) -> None:
    assert of_the_truth.passes, of_the_truth
    assert all(passed(of_the_truth).values()), of_the_truth
    assert list(of_the_truth.checks) == ["prefers", "answers", "effect", "faithful", "random"]
    assert set(of_the_truth.edges["edge"]) == set(organism().edges)
    assert (of_the_truth.edges["change"] > 0.1).all()
    assert of_the_truth.others["more"] == of_the_truth.faithfulness
    assert of_the_truth.inclusion == dict.fromkeys(organism().edges, 1.0)
    assert re.search(r"stable edges +5 of 5\n", str(of_the_truth))
    assert "passes: yes" in str(of_the_truth)


def test_quick_says_the_same_of_what_it_runs(of_the_truth: Evaluation) -> None:
    it = organism()
    quick = evaluate(it.model, it.behaviour, true_circuit(it), quick=True)
    assert quick.checks == of_the_truth.checks
    assert (quick.tests, len(quick.edges), len(quick.minimality)) == ((), 0, 0)
    assert quick.values.sizes == {"mask": 33, "example": 30}


def test_a_loss_is_a_metric_too() -> None:
    it = organism()
    found = evaluate(it.model, it.behaviour, true_circuit(it), metric="kl", quick=True)
    assert found.passes, found
    wrong = Circuit.of(it.model, it.edges[1:])
    assert not evaluate(it.model, it.behaviour, wrong, metric="kl", quick=True).passes


def test_it_is_saved_whole(of_the_truth: Evaluation, tmp_path: Path) -> None:
    of_the_truth.save(tmp_path / "evaluation.nc")
    loaded = Evaluation.load(tmp_path / "evaluation.nc")
    assert str(loaded) == str(of_the_truth)
    assert loaded.checks == of_the_truth.checks
    assert loaded.edges.equals(of_the_truth.edges)
    assert loaded.circuit.edges == of_the_truth.circuit.edges
    assert loaded.values.equals(of_the_truth.values)
    assert loaded.inclusion == of_the_truth.inclusion
    assert loaded.provenance == of_the_truth.provenance


def test_a_circuit_that_lacks_an_edge_fails() -> None:
    it = organism()
    found = evaluate(it.model, it.behaviour, Circuit.of(it.model, it.edges[:-1]), sets=0)
    assert not found.checks["faithful"].passed
    assert not found.passes
    assert not passed(found)["equivalence"]
    assert "passes: no: faithful" in str(found)


def test_a_padded_circuit_has_idle_edges() -> None:
    it = organism()
    true = true_circuit(it)
    spare = outside(true, np.random.default_rng(0))
    found = evaluate(it.model, it.behaviour, replace(true, kept=true.kept | spare), sets=0)
    assert found.checks["faithful"].passed
    tests = {test.name: test for test in found.tests}
    assert not tests["minimality"].passed
    idle = set(found.edges[found.edges["p"] * len(found.edges) < 0.05]["edge"])
    assert idle == {str(edge) for edge in found.circuit.edges} - set(it.edges)


def test_a_circuit_of_other_edges_is_no_better_than_random_ones() -> None:
    it = organism("histogram")
    wrong = replace(true_circuit(it), kept=outside(true_circuit(it), np.random.default_rng(1)))
    found = evaluate(it.model, it.behaviour, wrong, sets=0)
    assert not found.passes
    assert not passed(found)["sufficiency"]
    assert not passed(found)["necessity"]


def test_a_model_without_a_few_edges_still_says_much_of_it(pairs: Behaviour) -> None:
    on = masked("gpt2")
    found = evaluate(on, pairs, Circuit.of(on.model, ["m1->logits"]), sets=0, controls=5)
    tests = {test.name: test for test in found.tests}
    assert not tests["independence"].passed


def shuffled(behaviour: Behaviour, seed: int) -> Behaviour:
    order = np.random.default_rng(1000 + seed).permutation(len(behaviour))
    return replace(
        behaviour,
        answers=tuple(behaviour.answers[at] for at in order),
        wrong_answers=tuple(behaviour.wrong_answers[at] for at in order),
    )


def verdict(model: Masked, behaviour: Behaviour, size: int) -> bool:
    """Whether EAP's best edges pass, on the very prompts that they were found on."""
    try:
        circuit = top_n(discover(model, behaviour, "eap"), size, by="score")
        return evaluate(model, behaviour, circuit, quick=True, controls=20).passes
    except NoEffectError:
        return False


def test_shuffled_answers_have_no_circuit() -> None:
    it = organism()
    on = Masked(it.model)
    assert verdict(on, it.behaviour, len(it.edges))
    found = [verdict(on, shuffled(it.behaviour, seed), len(it.edges)) for seed in range(15)]
    assert sum(found) <= 1


def test_untrained_models_have_no_circuit() -> None:
    it = organism()
    found: list[bool] = []
    for seed in range(6):
        torch.manual_seed(seed)
        config = it.model.config
        with pytest.warns(UserWarning, match="opened without verification"):
            model = open_model(GPT2LMHeadModel(config).eval(), verify=False)
        found.append(verdict(Masked(model), it.behaviour, 10))
    assert sum(found) == 0


def test_inflated_circuits_gain_a_path_and_lose_one_of_its_edges() -> None:
    it = organism()
    true = true_circuit(it)
    generator = np.random.default_rng(0)
    for _ in range(20):
        pair = inflated(true, generator)
        assert pair is not None
        grown, knocked = pair
        added = Circuit(graph=true.graph, kept=grown & ~true.kept)
        assert (grown & true.kept == true.kept).all()
        assert len(added) >= 1
        lost = np.argwhere(grown & ~knocked)
        assert len(lost) == 1
        assert added.kept[tuple(lost[0])]
        # Every edge of the path leads on to the logits.
        assert len(Circuit(graph=true.graph, kept=grown).pruned()) == int(grown.sum())
    assert inflated(Circuit(graph=true.graph, kept=true.graph.valid), generator) is None


def test_the_shipped_models_circuit_for_ioi() -> None:
    """The size is chosen on the training prompts, everything else measured on those held out."""
    model = cutaway.open()
    behaviour = cutaway.behaviour("ioi", model, n=60)
    train, held_out = behaviour.split("train"), behaviour.split("held-out")
    on = Masked(model)
    scores = discover(on, train, "eap-ig")
    circuit = smallest(on, train, scores)
    assert circuit.share <= 0.1
    again = stability(scores, lambda drawn: greedy(drawn, len(circuit)), draws=100)
    assert again.share() >= 2 / 3
    found = evaluate(on, held_out, circuit, quick=True, controls=10, resampled=again)
    assert np.mean([share >= 0.9 for share in found.inclusion.values()]) == again.share()
    assert 0.9 <= found.faithfulness.mean <= 1.1
    assert max(ratio.mean for ratio in found.controls) <= 0.2
    assert found.passes, found


def test_bad_input_is_refused_in_a_sentence() -> None:
    it = organism()
    stranger = replace(
        true_circuit(it), provenance={"model": {"name": "other", "fingerprint": "0123"}}
    )
    with pytest.raises(CircuitError, match="belongs to another model .*0123"):
        evaluate(it.model, it.behaviour, stranger)
    still = replace(
        it.behaviour, corrupt=it.behaviour.clean, corrupt_texts=it.behaviour.clean_texts
    )
    with pytest.raises(NoEffectError, match="total effect of about zero"):
        evaluate(it.model, still, true_circuit(it))
    scores = discover(masked("llama-grouped"), it.behaviour, "magnitude")
    elsewhere = stability(scores, lambda drawn: top_n(drawn, 3), draws=2)
    with pytest.raises(CircuitError, match="of another graph than the circuit"):
        evaluate(it.model, it.behaviour, true_circuit(it), resampled=elsewhere)
    with pytest.raises(CircuitError, match=r"span .* found \(1.1, 1.2\)"):
        evaluate(it.model, it.behaviour, true_circuit(it), span=(1.1, 1.2))
