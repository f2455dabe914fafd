"""Every method against another derivation of the same number."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from tests.circuits.each_family import EVEN, batch, masked
from tests.model.variants import ONE_OF_EACH_KIND, VARIANTS

from cutaway.behaviours import METRICS, Behaviour
from cutaway.circuits import (
    METHODS,
    RANKED_BY,
    CircuitError,
    EdgeScores,
    Replacement,
    discover,
    top_n,
)
from cutaway.circuits.attribution import Attribution, Slopes
from cutaway.circuits.batch import Batch
from cutaway.circuits.discovery.eap_ig import middles
from cutaway.circuits.discovery.hard_concrete import BETA, GAMMA, ZETA
from cutaway.circuits.masked import Masked


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def largest_error(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest error, as a share of the largest number."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def slope(at: Batch, kept: torch.Tensor) -> torch.Tensor:
    """(reader, writer): the metric's summed slope in the mask, by autograd."""
    kept = kept.clone().requires_grad_()
    value = at.measure(at.on.end_logits(at.tokens, kept[None], at.replacement, at.end)[0])
    return torch.autograd.grad(value.sum(), [kept])[0]


@pytest.mark.parametrize("name", list(VARIANTS))
def test_eap_by_formula_is_the_gradient_in_the_mask(name: str, pairs: Behaviour) -> None:
    on = masked(name)
    at = batch(on, pairs)
    expected = slope(at, torch.as_tensor(on.graph.valid).float()).numpy()
    slopes = Slopes(at)
    np.testing.assert_allclose(slopes.values.numpy(), at.ends[0], rtol=1e-4, atol=1e-5)
    for fast in (True, False):
        found = Attribution(on, fast=fast).scores(at, slopes).sum(dim=0).numpy()
        assert relative(found, expected) < 2e-5, fast
    assert np.abs(expected).max() > 1e-3


def test_the_closed_form_is_used_where_it_can_be() -> None:
    """Else the test above would hold autograd against itself."""
    plain = {
        name: all(
            Attribution(masked(name))._plain(reading) is not None  # pyright: ignore[reportPrivateUsage]
            for reading in masked(name).readings.by_site.values()
        )
        for name in ("gpt2", "llama-grouped", "gemma2", "bloom", "cohere", "deepseek_v3", "olmo")
    }
    assert plain == {
        "gpt2": True, "llama-grouped": True, "gemma2": True, "bloom": True, "cohere": True,
        "deepseek_v3": False, "olmo": False,
    }  # fmt: skip


@pytest.mark.parametrize("name", list(VARIANTS))
def test_exact_effects_are_one_whole_masked_forward_per_edge(name: str, pairs: Behaviour) -> None:
    on = masked(name)
    found = discover(on, pairs, "exact", batch_size=3)
    at, valid = batch(on, pairs), torch.as_tensor(on.graph.valid).float()
    kept = valid.repeat(len(on.graph), 1, 1)
    for edge, (row, column) in enumerate(on.graph.ends):
        kept[edge, row, column] = 0
    expected = at.ends[0] - at.values(kept)
    assert largest_error(found.values.to_numpy(), expected) < 1e-5
    assert np.abs(expected).max() > 1e-2


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_ends_need_no_pass_of_their_own(name: str, pairs: Behaviour) -> None:
    on = masked(name)
    for ablation in ("counterfactual", "mean"):
        at = batch(on, pairs, ablation)
        kept = torch.stack([torch.ones(on.graph.valid.shape), torch.zeros(on.graph.valid.shape)])
        np.testing.assert_allclose(np.stack(at.ends), at.values(kept), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", list(VARIANTS))
def test_integrated_input_edges_are_the_mask_path_integral(name: str, pairs: Behaviour) -> None:
    """Moving the input along is moving the mask of its edges: the same gradients, two ways."""
    on, steps = masked(name), 4
    found = discover(on, pairs, "eap-ig", steps=steps)
    at = batch(on, pairs)
    expected = torch.zeros(on.graph.valid.shape)
    for point in middles(steps):
        kept = torch.ones(on.graph.valid.shape)
        kept[:, 0] = point
        expected += slope(at, kept) / steps
    expected_edges = expected[:, 0].numpy()
    assert largest_error(found.matrix[:, 0] * len(pairs), expected_edges) < 1e-5


@pytest.mark.parametrize("name", ["gpt2", "gptj", "gemma2"])
def test_activation_edges_add_up_to_each_part_s_own_effect(name: str) -> None:
    on = masked(name)
    found = discover(on, EVEN, "eap-ig-activations", ablation="mean", steps=64)
    at = batch(on, EVEN, "mean")
    names, index = on.graph.units("layers")
    for unit in range(len(names)):
        kept = torch.ones(1, *on.graph.valid.shape)
        kept[0][torch.as_tensor(index == unit)] = 0
        effect = float((at.ends[0] - at.values(kept)).mean())
        total = float(found.units("layers").iloc[unit])
        assert abs(total - effect) < 0.01 * abs(effect) + 1e-3, names[unit]


@pytest.mark.parametrize("name", ["gpt2", "gptj", "gemma2"])
def test_the_mask_s_gradients_add_up_to_the_total_effect(name: str) -> None:
    on = masked(name)
    found = discover(on, EVEN, "mask-gradient", steps=64)
    assert abs(float(found.mean.sum()) - found.gap) < 0.01 * abs(found.gap)
    at_clean = discover(on, EVEN, "mask-gradient", steps=0)
    assert relative(discover(on, EVEN, "eap").values.to_numpy(), at_clean.values.to_numpy()) < 2e-5


def test_clean_corrupt_is_the_mean_of_two_gradients(pairs: Behaviour) -> None:
    """At the corrupt end the edges out of the input have the mask's gradient with them off."""
    on = masked("llama-grouped")
    found = discover(on, pairs, "clean-corrupt")
    at, kept = batch(on, pairs), torch.ones(on.graph.valid.shape)
    off = kept.clone()
    off[:, 0] = 0
    expected = (slope(at, kept) + slope(at, off))[:, 0].numpy() / 2
    assert relative(found.matrix[:, 0] * len(pairs), expected) < 1e-4


@pytest.mark.parametrize("metric", ["kl", "logit_diff"])
def test_edge_pruning_meets_its_target_and_beats_chance(metric: str) -> None:
    """At the learned size, the learned edges stay closer to the model than random ones do."""
    on = masked("gpt2")
    found = discover(on, EVEN, "edge-pruning", metric=metric, target=0.6, steps=100, rate=0.5)
    alpha = torch.as_tensor(found.mean.to_numpy())
    share = torch.sigmoid(alpha - BETA * np.log(-GAMMA / ZETA)).mean()
    assert float(share) == pytest.approx(0.4, abs=0.15)
    at = Batch(on, EVEN, slice(0, 3), METRICS["kl"], Replacement(on.model, EVEN))
    many = int((alpha > 0).sum())
    chosen = top_n(found, many, by="score")
    loss = float(at.values(chosen.mask[None]).mean())
    chance = [
        float(at.values(top_n(discover(on, EVEN, "random", seed=i), many).mask[None]).mean())
        for i in range(10)
    ]
    assert loss < 0.7 * np.mean(chance)


def test_subnetwork_probing_keeps_what_exact_patching_says_matters() -> None:
    on = masked("gpt2")
    found = discover(on, EVEN, "subnetwork", penalty=0.5, steps=60, rate=0.3)
    again = discover(on, EVEN, "subnetwork", penalty=0.5, steps=60, rate=0.3)
    np.testing.assert_array_equal(found.values, again.values)
    alpha = {name: found[f"{name}->logits"] for name in on.graph.units("nodes")[0]}
    at = Batch(on, EVEN, slice(0, 3), METRICS["kl"], Replacement(on.model, EVEN))
    index = on.graph.units("nodes")[1]
    kept = np.stack([on.graph.valid & (index != unit) for unit in range(len(alpha))])
    loss = at.values(torch.as_tensor(kept).float()).mean(axis=1)
    assert stats.spearmanr(list(alpha.values()), loss).statistic > 0.5
    free = discover(on, EVEN, "subnetwork", penalty=0.0, steps=60, rate=0.3)
    assert float(free.mean.mean()) > float(found.mean.mean())


def test_baselines(pairs: Behaviour) -> None:
    on = masked("gpt2")
    one, again = (discover(on, pairs, "random", seed=seed) for seed in (1, 1))
    np.testing.assert_array_equal(one.values, again.values)
    assert not one.per_example
    assert not np.array_equal(one.values, discover(on, pairs, "random", seed=2).values)
    size = discover(on, pairs, "magnitude")
    runs = [on.model.run(side, keep=["mlp_out.0"])["mlp_out.0"] for side in (
        pairs.clean, pairs.corrupt)]  # fmt: skip
    change = (runs[1] - runs[0]) * pairs.clean.mask[:, :, None]
    expected = float(change.flatten(1).norm(dim=1).mean())
    assert size["m0->logits"] == pytest.approx(expected, rel=1e-4)
    assert size["m0->a1.h2<k>"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("method", list(METHODS))
def test_batches_padding_and_saving_change_nothing(
    method: str, pairs: Behaviour, tmp_path: Path
) -> None:
    on = masked("llama-grouped")
    learned: dict[str, Any] = {"steps": 3} if method in ("edge-pruning", "subnetwork") else {}
    reported: list[tuple[int, int]] = []
    found = discover(
        on, pairs, method, progress=lambda done, total: reported.append((done, total)), **learned
    )
    assert reported[-1][0] == reported[-1][1] > 0
    if not learned:  # there, a step is a batch
        small = discover(on, pairs, method, batch_size=2)
        np.testing.assert_allclose(found.mean, small.mean, rtol=1e-3, atol=2e-5)
    tight = Masked(on.model, memory=2 * on.bytes_per_row(4))
    again = discover(tight, pairs, method, **learned)
    np.testing.assert_allclose(found.mean, again.mean, rtol=1e-3, atol=2e-5)
    found.save(tmp_path / "scores.nc")
    loaded = EdgeScores.load(tmp_path / "scores.nc")
    np.testing.assert_array_equal(loaded.values, found.values)
    assert (loaded.graph, loaded.method, loaded.gap) == (found.graph, method, found.gap)
    assert loaded.provenance["configuration"]["method"] == method
    assert list(loaded.top(3)["edge"]) == list(found.top(3)["edge"])


def test_scores_know_their_edges(pairs: Behaviour) -> None:
    on = masked("gpt2")
    found = discover(on, pairs, "eap")
    matrix = found.matrix
    assert found["m0->logits"] == matrix[on.graph.at("m0->logits")]
    assert np.isnan(matrix[~on.graph.valid]).all()
    assert found.units("nodes")["m0"] == pytest.approx(
        np.nansum(matrix[:, 1 + on.graph.n_heads]), rel=1e-5
    )
    assert found.units("nodes").sum() == pytest.approx(float(found.mean.sum()), rel=1e-4)
    low, high = (found.interval()[end].to_numpy() for end in ("low", "high"))
    assert (low <= found.mean.to_numpy() + 1e-6).all()
    assert (high >= found.mean.to_numpy() - 1e-6).all()
    table = found.top(4)
    assert list(np.abs(table["score"])) == sorted(np.abs(found.mean.to_numpy()))[:-5:-1]
    clean = METRICS["logit_diff"](pairs.end_logits(on.model.run(pairs.clean).logits), pairs)
    np.testing.assert_allclose(found.clean, clean.numpy(), rtol=1e-4, atol=1e-5)


def test_every_method_says_how_its_scores_order_edges(pairs: Behaviour) -> None:
    """Without its first edges the model loses more than without its last."""
    assert list(RANKED_BY) == list(METHODS)
    on = masked("gpt2")
    at = Batch(on, pairs, slice(0, 5), METRICS["kl"], Replacement(on.model, pairs))
    for method in ("exact", "eap-ig", "acdc", "edge-pruning", "magnitude"):
        found = discover(on, pairs, method)
        first = top_n(found, 11, by=RANKED_BY[method]).kept
        last = on.graph.valid & ~top_n(found, len(on.graph) - 11, by=RANKED_BY[method]).kept
        without = torch.as_tensor(on.graph.valid & ~np.stack([first, last])).float()
        damage = at.values(without).mean(axis=1)
        assert damage[0] > 2 * damage[1], method


BAD: list[tuple[dict[str, Any], str]] = [
    ({"method": "eap2"}, "no method 'eap2'; choose one of exact, eap"),
    ({"method": "eap", "steps": 3}, "'eap' does not take 'steps'; it has no options"),
    ({"method": "eap-ig", "threshold": 3}, "does not take 'threshold'; its options are steps"),
    ({"method": "acdc", "threshold": 0}, "threshold must be above 0; found 0"),
    ({"method": "edge-pruning", "target": 1.0}, "target is the share of edges .* found 1.0 and"),
    ({"method": "subnetwork", "rate": 0.0}, "rate must be above 0; found 0.0"),
    (
        {"method": "edge-pruning", "steps": 2.5},
        "a whole number of 1 or more; found 2.5",
    ),
    (
        {"method": "mask-gradient", "steps": -1},
        "a whole number of 0 or more; found -1",
    ),
    ({"method": "eap-ig-activations", "steps": True}, "number of 1 or more; found True"),
    ({"method": "eap-ig", "steps": 2.5}, "a whole number of 1 or more; found 2.5"),
    ({"method": "eap", "memory": 0}, "memory must be a whole number of 1 or more; found 0"),
    ({"method": "eap", "memory": -5}, "memory must be a whole number of 1 or more; found -5"),
    ({"method": "eap-ig", "steps": 0}, "steps must be a whole number of 1 or more; found 0"),
    ({"method": "eap-ig", "ablation": "mean"}, "so there is no path from it; use counterfactual"),
    ({"method": "clean-corrupt", "ablation": "zero"}, "'counterfactual' alone; found 'zero'"),
    ({"method": "eap", "metric": "kl"}, "compares with the clean run, where its gradient is zero"),
    ({"method": "eap", "metric": "accuracy"}, "'accuracy' counts and has no gradient"),
    ({"method": "eap", "metric": "loss"}, "no metric 'loss'"),
    ({"method": "eap", "ablation": "resample"}, "different lengths"),
    *(
        ({"method": method, "seed": -1}, "seed must be a whole number of 0 or more; found -1")
        for method in ("exact", "acdc", "random", "edge-pruning")
    ),
]


@pytest.mark.parametrize(("settings", "message"), BAD)
def test_bad_input_is_refused_in_a_sentence(
    pairs: Behaviour, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(CircuitError, match=message):
        discover(masked("gpt2"), pairs, **settings)
