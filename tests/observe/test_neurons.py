"""Neurons of four kinds: planted ones are found, random models have none."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cutaway.model import Model, Site, open_model
from cutaway.model.tiny import tiny
from cutaway.model.weights import mlp_output
from cutaway.observe import (
    DeadNeurons,
    DuplicateNeurons,
    EntropyNeurons,
    FrequencyNeurons,
    WeightsError,
    dead_neurons,
    duplicate_neurons,
    entropy_neurons,
    frequency_neurons,
)
from cutaway.observe import weights as w
from cutaway.observe.entropy import entropy
from cutaway.observe.frequency import counted, unigram

torch.set_num_threads(1)
TOKENS = torch.randint(3, 96, (12, 9), generator=torch.Generator().manual_seed(0))
GATED = ("llama", "phi3")


def weights(model: Model, layer: int, name: str) -> torch.Tensor:
    """The weight matrix of a GPT-2's MLP, (in, out)."""
    return model.anatomy.layers[layer].block.get_parameter(f"mlp.{name}.weight")


# ── dead ─────────────────────────────────────────────────────────────────────────────────────


def test_a_neuron_that_never_fires_is_dead(tmp_path: Path) -> None:
    model = open_model(tiny("gpt2"))
    with torch.no_grad():
        weights(model, 1, "c_fc")[:, 5] = 0
        model.anatomy.layers[1].block.get_parameter("mlp.c_fc.bias")[5] = -1.0
    found = dead_neurons(model, TOKENS)
    assert found.dead.to_numpy().tolist() == [[1, 5, -1.0]]
    run = model.run(TOKENS, keep=["mlp_pre.0"])["mlp_pre.0"]
    np.testing.assert_allclose(found.active.sel(layer=0), (run > 0).float().mean((0, 1)))
    np.testing.assert_allclose(found.largest.sel(layer=0), run.amax((0, 1)), rtol=1e-5)
    assert found.tokens == TOKENS.numel()
    assert found.bound == pytest.approx(3 / found.tokens, rel=0.02)
    again = DeadNeurons.load(found.save(tmp_path / "dead.nc"))
    assert str(again) == str(found)
    assert "layer 1: 1 of 48" in str(found)


@pytest.mark.parametrize("family", ["gpt2", *GATED, "gpt_neox"])
def test_untrained_neurons_are_alive(opened: Callable[[str], Model], family: str) -> None:
    found = dead_neurons(opened(family), TOKENS)
    assert found.dead.empty
    assert float(found.chance.max()) == 0


def test_chance_is_that_of_random_directions_with_the_same_biases() -> None:
    model = open_model(tiny("gpt2"))
    with torch.no_grad():
        model.anatomy.layers[0].block.get_parameter("mlp.c_fc.bias").fill_(-100.0)
    found = dead_neurons(model, TOKENS)
    assert float(found.chance.sel(layer=0)) == 1.0
    assert len(found.dead) == 48


# ── duplicates ───────────────────────────────────────────────────────────────────────────────


def test_copies_and_mirror_images_are_found(tmp_path: Path) -> None:
    model = open_model(tiny("gpt2"))
    first, last = weights(model, 0, "c_fc"), weights(model, 0, "c_proj")
    with torch.no_grad():
        first[:, 7], last[7] = 3 * first[:, 2], 0.5 * last[2]
        first[:, 9], last[9] = -first[:, 4], -2 * last[4]
        first[:, 11] = first[:, 12]  # alike at the input alone
    found = duplicate_neurons(model)
    rows = found.pairs().to_dict("records")
    pairs = {(row["layer"], row["neuron"], row["partner"], row["signs"]) for row in rows}
    assert pairs == {(0, 2, 7, "++"), (0, 4, 9, "--")}
    assert len(rows) == 2
    again = DuplicateNeurons.load(found.save(tmp_path / "duplicates.nc"))
    assert str(again) == str(found)
    assert again.pairs().equals(found.pairs())
    with pytest.raises(WeightsError, match="Random neurons"):
        found.pairs(0.2)


def test_a_neuron_of_zeros_has_no_copy_and_hides_none() -> None:
    model = open_model(tiny("gpt2"))
    first, last = weights(model, 0, "c_fc"), weights(model, 0, "c_proj")
    with torch.no_grad():
        first[:, 7], last[7] = first[:, 2], last[2]
        first[:, 5], last[5] = 0, 0
    found = duplicate_neurons(model)
    assert found.pairs()[["neuron", "partner"]].to_numpy().tolist() == [[2, 7]]
    assert float(found.similarity.sel(layer=0, neuron=5)) == 0


@pytest.mark.parametrize("family", ["gpt2", *GATED])
def test_equals_all_pairs_by_brute_force(
    opened: Callable[[str], Model], family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cutaway.observe.neurons._CHUNK", 7)
    model = opened(family)
    sides = [w.reading(model, Site("mlp_pre", 1)), mlp_output(model, 1).float()]
    mlp = model.anatomy.layers[1].mlp
    if family == "llama":
        sides.append(mlp.get_parameter("up_proj.weight").detach())
    if family == "phi3":
        sides.append(mlp.get_parameter("gate_up_proj.weight").detach()[48:])
    cosines = torch.stack([(s / s.norm(dim=1, keepdim=True)) for s in sides])
    joint = (cosines @ cosines.mT).abs().amin(0).fill_diagonal_(-1)
    found = duplicate_neurons(model)
    np.testing.assert_allclose(found.similarity.sel(layer=1), joint.max(1).values, rtol=1e-4)
    np.testing.assert_array_equal(found.partner.sel(layer=1), joint.max(1).indices)


@pytest.mark.parametrize("family", ["gpt2", *GATED])
def test_no_pair_of_random_neurons_is_above_chance(
    opened: Callable[[str], Model], family: str
) -> None:
    found = duplicate_neurons(opened(family))
    assert bool((found.similarity.max("neuron") < found.chance).all())


# ── token frequency ──────────────────────────────────────────────────────────────────────────


def test_a_neuron_along_the_frequencies_is_found(tmp_path: Path) -> None:
    model = open_model(tiny("gpt2"))
    text = torch.cat([torch.arange(96), *(torch.arange(n) for n in range(10, 60, 5))])[None]
    frequencies = counted(model, text[:, :60])
    rows = w.unembedding(model)
    rows = rows - rows.mean(0)
    target = frequencies.log().float() - frequencies.log().float().mean()
    with torch.no_grad():
        weights(model, 1, "c_proj")[6] = torch.linalg.lstsq(rows, target).solution
    found = frequency_neurons(model, text[:, :60])
    assert found.found.iloc[0][["layer", "neuron"]].tolist() == [1, 6]
    assert found.found.iloc[0]["cosine"] > found.bound
    assert "text that was given" in str(found)
    again = FrequencyNeurons.load(found.save(tmp_path / "frequency.nc"))
    assert str(again) == str(found)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_cosines_are_those_over_the_vocabulary(opened: Callable[[str], Model], family: str) -> None:
    model = opened(family)
    found = frequency_neurons(model)
    wanted = unigram(model).log()
    logits = mlp_output(model, 1).float() @ w.unembedding(model).mT
    expected = [np.corrcoef(wanted, row)[0, 1] for row in logits.detach()]
    np.testing.assert_allclose(found.values.sel(layer=1), expected, rtol=1e-3, atol=1e-4)
    assert found.found.empty  # untrained neurons do not push along frequencies
    assert "own predictions" in found.source


def test_frequencies_are_counts() -> None:
    model = open_model(tiny("gpt2"))
    found = counted(model, torch.tensor([[5, 5, 5, 7]]))
    assert found[5] == pytest.approx(4 / 100)
    assert found[7] == pytest.approx(2 / 100)
    assert found[8] == pytest.approx(1 / 100)
    logits = model.run(torch.arange(96)[:, None]).logits[:, 0].double()
    torch.testing.assert_close(unigram(model), logits.softmax(-1).mean(0))


# ── entropy ──────────────────────────────────────────────────────────────────────────────────


def with_null_direction() -> Model:
    """An untrained model whose unembedding reads nothing of one direction, and whose neuron 3
    writes there."""
    model = open_model(tiny("gpt2", tie_word_embeddings=False))
    gain = model.frozen_norm.gain
    null = torch.randn(32, generator=torch.Generator().manual_seed(0))
    null = (null - null.mean()) / (null - null.mean()).norm()
    along = gain * null / (gain * null).norm()
    head = model.hf.lm_head.weight
    with torch.no_grad():
        head -= (head @ along)[:, None] * along
        weights(model, 1, "c_proj")[3] = 20 * null
    return model


def test_a_neuron_in_the_null_space_acts_through_the_scale(tmp_path: Path) -> None:
    found = entropy_neurons(with_null_direction(), TOKENS, candidates=4)
    table = found.table
    (row,) = table[table["entropy neuron"]].to_dict("records")
    assert row["neuron"] == 3
    assert row["null"] == pytest.approx(1, abs=1e-4)
    assert row["through scale"] == pytest.approx(1, abs=1e-3)
    assert row["norm"] == pytest.approx(20, rel=1e-4)
    again = EntropyNeurons.load(found.save(tmp_path / "entropy.nc"))
    assert again.table.equals(table)
    assert "1 of 4 candidates" in str(found)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_untrained_models_have_no_entropy_neurons(
    opened: Callable[[str], Model], family: str
) -> None:
    found = entropy_neurons(opened(family), TOKENS, candidates=4)
    assert not found.table["entropy neuron"].any()


def test_total_and_direct_effects_by_hand() -> None:
    """With the neuron's output taken off the final stream by hand, where nothing comes after."""
    model = open_model(tiny("gpt2"))
    found = entropy_neurons(model, TOKENS, candidates=2)
    neuron = int(found.total["tried"][0])
    run = model.run(TOKENS, keep=["mlp_post.1", "resid_final"])
    post, stream = run["mlp_post.1"][..., neuron], run["resid_final"]
    changed = stream + (post.mean() - post)[..., None] * mlp_output(model, 1)[neuron]
    norm = model.frozen_norm
    for name, scale in (("total", norm.scale(changed)), ("direct", norm.scale(stream))):
        logits = model.unembed(norm.gain * norm.centred(changed) / scale + norm.bias)
        expected = (entropy(logits) - entropy(run.logits)).mean(1).detach()
        np.testing.assert_allclose(getattr(found, name)[0], expected, rtol=1e-3, atol=1e-5)


# ── refusals ─────────────────────────────────────────────────────────────────────────────────


def test_mixtures_of_experts_are_refused(opened: Callable[[str], Model]) -> None:
    model = opened("mixtral")
    for look in (dead_neurons, entropy_neurons):
        with pytest.raises(WeightsError, match="mixture of experts"):
            look(model, TOKENS)
    for scored in (duplicate_neurons, frequency_neurons):
        with pytest.raises(WeightsError, match="choose another model"):
            scored(model)


def test_settings_are_checked(opened: Callable[[str], Model]) -> None:
    model = opened("gpt2")
    with pytest.raises(WeightsError, match="layers 0 to 1"):
        dead_neurons(model, TOKENS, layers=[2])
    with pytest.raises(WeightsError, match="between 0 and 1"):
        entropy_neurons(model, TOKENS, share=1.5)
