"""Graphs split by position and into neurons, held against unsplit ones and plain edits."""

from typing import Any

import numpy as np
import pytest
import torch
from tests.circuits.by_hand import by_hand, error, logits, some_edges, value
from tests.circuits.each_family import batch, masked, split
from tests.model.variants import ONE_OF_EACH_KIND, VARIANTS

from cutaway.behaviours import Behaviour
from cutaway.circuits import (
    Circuit,
    CircuitError,
    Graph,
    Masked,
    discover,
    evaluate,
    greedy,
    top_n,
)
from cutaway.circuits.attribution import Attribution, Slopes
from cutaway.model import Model, replace

LABELS = ("end", "there")
NEURONS = {0: [1, 5], 1: [3]}
DENSE = [name for name in ONE_OF_EACH_KIND if name not in ("mixtral", "deepseek_v3")]
ADDING = [name for name in DENSE if name != "gemma2"]  # there a post-norm spans the neurons
BOTH = ["gpt2", "gptj", "gemma2"]


def both(name: str) -> Masked:
    return split(name, positions=LABELS, neurons=NEURONS)


def unsplit_as(on: Masked, kept: np.ndarray) -> np.ndarray:
    """Masks of the unsplit graph for the split one: each edge's copies are all as it is."""
    whole = on.graph.whole
    row = [whole.at(f"input->{str(r).partition('@')[0]}")[0] for r in on.graph.readers]
    column = [whole.at(f"{w.part if w.kind == 'neuron' or w.rest else w}->logits")[1]
              for w in on.graph.writers]  # fmt: skip
    return kept[:, row][:, :, column]


def summed(on: Masked, split_scores: np.ndarray) -> np.ndarray:
    """A split graph's (reader, writer) scores added up over each unsplit edge's copies."""
    whole = on.graph.whole
    number = np.arange(whole.valid.size).reshape(1, *whole.valid.shape)
    each = unsplit_as(on, number)[0]
    return np.bincount(each.ravel(), split_scores.ravel(), whole.valid.size).reshape(
        number[0].shape
    )


@pytest.mark.parametrize("name", list(VARIANTS))
def test_all_copies_of_an_edge_together_are_the_edge(name: str, pairs: Behaviour) -> None:
    """Clean with all on, the replacement with all off, and the unsplit graph's result between."""
    whole = masked(name)
    on = split(name, positions=LABELS)
    kept = np.random.default_rng(0).random((3, *whole.graph.valid.shape))
    kept[0], kept[1] = 1, 0
    clean, corrupt = (
        pairs.end_logits(on.model.run(side).logits) for side in (pairs.clean, pairs.corrupt)
    )
    found = logits(on, pairs, unsplit_as(on, kept))
    assert error(found[0], clean) < 1e-5
    assert error(found[1], corrupt) < 1e-5
    assert error(found[2], logits(whole, pairs, kept)[2]) < 1e-5
    assert error(found[2], clean) > 1e-3


@pytest.mark.parametrize("name", DENSE)
def test_split_by_position_and_neuron_at_once(name: str, pairs: Behaviour) -> None:
    """Whole edges alone, where a post-norm spans the neurons."""
    whole, on = masked(name), both(name)
    kept = np.random.default_rng(1).random((3, *whole.graph.valid.shape))
    kept = kept.round() if name == "gemma2" else kept
    kept[0], kept[1] = 1, 0
    found = logits(on, pairs, unsplit_as(on, kept))
    assert error(found, logits(whole, pairs, kept)) < 1e-5


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_one_split_edge_off_is_path_patching_at_its_positions(name: str, pairs: Behaviour) -> None:
    on = both(name) if name in DENSE else split(name, positions=LABELS)
    edges = some_edges(on)
    off = logits(on, pairs, np.stack([~on.graph.mask([edge]) for edge in edges]))
    ends = logits(on, pairs, np.stack([on.graph.valid, ~on.graph.valid]))
    gap = max(float(np.abs(value(pairs, ends[0]) - value(pairs, ends[1])).max()), 1.0)
    moved = 0
    for row, edge in enumerate(edges):
        expected = by_hand(on, pairs, edge)
        assert np.abs(value(pairs, off[row]) - expected).max() < 1e-5 * gap, str(edge)
        moved += bool(np.abs(expected - value(pairs, ends[0])).max() > 1e-3)
    assert moved > len(edges) / 8


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_edge_attribution_adds_up_over_copies(name: str, pairs: Behaviour) -> None:
    whole = masked(name)
    on = both(name) if name in ADDING else split(name, positions=LABELS)
    at, apart = batch(whole, pairs), batch(on, pairs)
    expected = Attribution(whole).scores(at, Slopes(at)).sum(dim=0).numpy()
    for fast in (True, False):
        found = Attribution(on, fast=fast).scores(apart, Slopes(apart)).sum(dim=0).numpy()
        off = np.linalg.norm(summed(on, found) - expected) / np.linalg.norm(expected)
        assert off < 1e-5, fast


@pytest.mark.parametrize("name", DENSE)
def test_edge_attribution_is_the_slope_of_each_copy(name: str, pairs: Behaviour) -> None:
    on = both(name)
    at = batch(on, pairs)
    found = Attribution(on).scores(at, Slopes(at)).sum(dim=0)
    kept = torch.as_tensor(on.graph.valid).float().requires_grad_()
    end = on.end_logits(at.tokens, kept[None], at.replacement, at.end)
    (slope,) = torch.autograd.grad(at.measure(end[0]).sum(), [kept])
    assert error(found, slope) < 2e-5
    neurons = [writer.kind == "neuron" for writer in on.graph.writers]
    assert float(slope[:, neurons].abs().max()) > 1e-4


@pytest.mark.parametrize("name", BOTH)
def test_a_resumed_split_pass_is_the_whole_one(name: str, pairs: Behaviour) -> None:
    on = both(name)
    at = batch(on, pairs)
    assert at.start == 3
    later = np.array([reader.layer != 0 for reader in on.graph.readers])
    some = np.random.default_rng(2).random((3, *on.graph.valid.shape))
    kept = torch.as_tensor(np.where(later[:, None], some, 1.0)).float()
    whole = on.end_logits(at.tokens, kept, at.replacement, at.end)
    expected = np.stack([at.measure(one).numpy() for one in whole])
    np.testing.assert_allclose(at.values(kept, 1), expected, rtol=1e-4, atol=2e-5)
    assert np.abs(expected - at.ends[0]).max() > 1e-2


METHODS = ["eap", "eap-ig", "eap-ig-activations", "clean-corrupt", "mask-gradient", "magnitude",
           "acdc", "edge-pruning", "subnetwork"]  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_every_method_scores_a_split_graph(method: str, pairs: Behaviour) -> None:
    on, whole = both("gpt2"), masked("gpt2")
    options: dict[str, Any] = (
        {"steps": 2} if method not in ("eap", "clean-corrupt", "magnitude", "acdc") else {}
    )
    found = discover(on, pairs, method, **options)
    names = list(map(str, on.graph.edges))
    assert list(found.values["edge"].to_numpy()) == names
    assert found["m0.n5->a1.h2<v>@there"] == float(found.mean[names.index("m0.n5->a1.h2<v>@there")])
    assert np.isfinite(found.mean).all()
    if method in ("eap", "eap-ig", "eap-ig-activations", "clean-corrupt", "mask-gradient"):
        plain = discover(whole, pairs, method, **options)
        matrix, expected = np.nan_to_num(found.matrix), np.nan_to_num(plain.matrix)
        np.testing.assert_allclose(summed(on, matrix), expected, rtol=1e-3, atol=2e-6)
        nodes = found.units("nodes")
        assert nodes["m0.n5@there"] + nodes["m0.n1@there"] + nodes["m0.rest@there"] == (
            pytest.approx(found.units("layers")["m0@there"], abs=1e-6)
        )


def test_circuits_of_a_split_graph(pairs: Behaviour) -> None:
    """Selection, pruning, evaluation and saving are those of any graph."""
    on = both("gpt2")
    scores = discover(on, pairs, "eap")
    whole = Circuit(graph=on.graph, kept=on.graph.valid)
    found = evaluate(on.model, pairs, whole, controls=1, sets=2)
    assert found.faithfulness.mean == pytest.approx(1, abs=1e-4)
    assert "m0.n5" in set(found.minimality["part"])
    at = batch(on, pairs)
    for circuit in (top_n(scores, 60), greedy(scores, 60)):
        assert len(circuit) == 60
        pruned = circuit.pruned()
        both_ways = at.values(torch.stack([circuit.mask, pruned.mask]))
        np.testing.assert_allclose(both_ways[0], both_ways[1], rtol=1e-4, atol=1e-4)
        circuit.check(on.model)


def test_pruning_follows_positions() -> None:
    """A query and an MLP lead on where they read; a key or value may lead anywhere."""
    graph = Graph(n_layers=2, n_heads=2, n_kv_heads=1, parallel=False, positions=("S2", "end"))
    edges = ["input->a0.h0<q>@S2", "a0.h0->m0@S2", "m0->a1.kv0<v>@S2", "a1.h1->logits"]
    whole = Circuit.of(graph, edges)
    assert whole.pruned().edges == whole.edges
    elsewhere = Circuit.of(graph, [*edges[:2], "m0->a1.kv0<v>@end", edges[3]])
    assert not elsewhere.pruned().edges
    value = Circuit.of(graph, ["input->a0.kv0<v>@S2", "a0.h0->m0@end", "m0->logits"])
    assert value.pruned().edges == value.edges
    late = Circuit.of(graph, ["input->m0@S2", "m0->logits"])
    assert not late.pruned().edges


def test_names_and_units_of_a_split_graph() -> None:
    graph = Graph(
        n_layers=1, n_heads=1, n_kv_heads=1, parallel=False, positions=("S2",),
        neurons=((0, (2, 7)),),
    )  # fmt: skip
    assert list(map(str, graph.writers)) == ["input", "a0.h0", "m0.n2", "m0.n7", "m0.rest"]
    assert list(map(str, graph.readers)) == [
        "a0.h0<q>@S2", "a0.h0<q>@rest", "a0.h0<k>@S2", "a0.h0<k>@rest", "a0.h0<v>@S2",
        "a0.h0<v>@rest", "m0@S2", "m0@rest", "logits",
    ]  # fmt: skip
    assert len(graph) == 6 + 2 * 2 + 5
    for edge, (row, column) in zip(graph.edges, graph.ends, strict=True):
        assert graph.parse(str(edge)) == edge
        assert graph.at(str(edge)) == (row, column)
    assert graph.units("nodes")[0] == (
        "input@S2", "input@rest", "a0.h0@S2", "a0.h0@rest", "m0.n2@rest", "m0.n7@rest",
        "m0.rest@rest",
    )  # fmt: skip
    assert graph.units("layers")[0][-1] == "m0@rest"
    assert graph.whole.units("layers")[0] == ("input", "a0", "m0")


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "olmo2", "glm4"])
def test_where_edges_start_and_end_about_a_post_norm(name: str, pairs: Behaviour) -> None:
    """A head's and a neuron's edge start before the post-norm, a whole MLP's after it; and every
    edge ends before the reader's own norm, which is made afresh."""
    on, model = split(name, neurons={0: [1, 5]}), masked(name).model
    part = model.anatomy.layers[0]
    runs = [model.run(side, keep=["z.0", "mlp_post.0", "attn_out.0", "mlp_out.0", "resid_mid.1"])
            for side in (pairs.clean, pairs.corrupt)]  # fmt: skip
    clean, other = runs
    assert part.down is not None
    z, post = clean["z.0"].clone(), clean["mlp_post.0"].clone()
    z[:, :, 2] = other["z.0"][:, :, 2]
    post[:, :, 5] = other["mlp_post.0"][:, :, 5]
    with torch.no_grad():
        attention, neurons = part.o_proj(z.flatten(2)), part.down(post)
        if part.attn_post_norm is not None:
            attention = part.attn_post_norm(attention)
        if part.mlp_post_norm is not None:
            neurons = part.mlp_post_norm(neurons)
    stream = clean["resid_mid.1"] + attention - clean["attn_out.0"] + neurons - clean["mlp_out.0"]
    assert seen_by_the_mlp(on, pairs, ["a0.h2->m1", "m0.n5->m1"], stream) < 1e-5
    stream = clean["resid_mid.1"] + other["mlp_out.0"] - clean["mlp_out.0"]
    assert seen_by_the_mlp(masked(name), pairs, ["m0->m1"], stream) < 1e-5


def seen_by_the_mlp(
    on: Masked, pairs: Behaviour, off: list[str], stream: torch.Tensor
) -> float:  # fmt: skip
    """How far the second MLP's output is from what it makes of a stream, with edges off."""
    model: Model = on.model
    reading = next(r for r in on.readings.of(1) if r.kind == "mlp")
    with torch.no_grad():
        expected = stream if reading.norm is None else reading.norm(stream)
        whole = model.run(pairs.clean, edits=[replace("mlp_in.1", expected)])
    found = logits(on, pairs, ~on.graph.mask(off)[None])[0]
    plain = pairs.end_logits(model.run(pairs.clean).logits)
    wanted = pairs.end_logits(whole.logits)
    assert error(plain, wanted) > 1e-4
    return error(found, wanted)


BAD_GRAPHS: list[tuple[str, dict[str, Any], str]] = [
    ("gpt2", {"positions": ("end", "end")}, "labels that differ .* found 'end', 'end'"),
    ("gpt2", {"positions": ("rest",)}, "differ from one another and from 'rest'"),
    ("gpt2", {"neurons": {2: [0]}}, "no layer 2 to split into neurons; .* layers 0 to 1"),
    ("gpt2", {"neurons": {1: [3, 3]}}, r"chosen at least one and each once; found \[3, 3\]"),
    ("gpt2", {"neurons": {1: [9999]}}, r"has neurons 0 to \d+, .* found \[9999\]"),
    ("mixtral", {"neurons": {0: [1]}}, "split into neurons, since it is a mixture of experts"),
]


@pytest.mark.parametrize(("name", "options", "message"), BAD_GRAPHS)
def test_splits_that_a_model_has_not_are_refused(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(CircuitError, match=message):
        Graph.of(masked(name).model, **options)


def test_what_does_not_fit_is_refused_in_a_sentence(pairs: Behaviour) -> None:
    on = split("gpt2", positions=["IO"])
    with pytest.raises(CircuitError, match="no position label 'IO' to split edges by; they have"):
        discover(on, pairs, "eap")
    twice = Behaviour.from_tokens(
        [[3, 4, 5]], [[3, 6, 5]], answers=[1], wrong_answers=[2], labels={"S2": [2], "end": [2]}
    )
    on = split("gpt2", positions=["S2", "end"])
    with pytest.raises(CircuitError, match="'S2' and 'end' name the same token in some prompt"):
        discover(on, twice, "eap")
    with pytest.raises(CircuitError, match="of a model with 2 layers of 4 heads, and Llama.* open"):
        Masked(masked("llama-grouped").model, on.graph)
    with pytest.raises(CircuitError, match="no 'm0'; its nearest is 'm0.n5'"):
        both("gpt2").graph.at("m0->logits")
    with pytest.raises(CircuitError, match=r"'m0->m1@' is not an edge"):
        on.graph.at("m0->m1@")
