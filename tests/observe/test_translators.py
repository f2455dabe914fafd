"""Tuned and Jacobian lenses: exact where the map is known, better than the logit lens, saved."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import cutaway
from cutaway.behaviours import Behaviour
from cutaway.model import Model, Site
from cutaway.model.edits import add
from cutaway.observe import LensError, Translators, jacobian_lens, logit_lens, tuned_lens


def test_the_jacobian_is_what_small_changes_do(
    opened: Callable[[str], Model], pairs: Behaviour
) -> None:
    model = opened("gpt2")
    found = jacobian_lens(model, pairs, held_out=0.2, batch_size=2)
    train = pairs.rows(slice(0, len(pairs) - round(0.2 * len(pairs)) or 1))
    tokens, end = train.clean, train.clean.labels["end"]
    row = torch.arange(len(train))
    direction = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))
    step, final = 1e-3, Site("resid_final")
    for layer in range(model.n_layers):
        ends = [
            model.run(tokens, keep=[final], edits=[
                add(f"resid_pre.{layer}", sign * step * direction, position="end")
            ])[final][row, end]
            for sign in (1, -1)
        ]  # fmt: skip
        measured = ((ends[0] - ends[1]) / (2 * step)).mean(dim=0)
        torch.testing.assert_close(found.weights[layer] @ direction, measured, rtol=2e-2, atol=1e-3)
    runs = model.run(tokens, keep=["resid_pre", "resid_final"])
    carried = found(runs[Site("resid_pre", 1)][row, end], 1).mean(dim=0)
    torch.testing.assert_close(carried, runs[final][row, end].mean(dim=0), rtol=1e-4, atol=1e-4)


def test_a_tuned_lens_reads_better_than_the_logit_lens() -> None:
    model = cutaway.open("septet")
    pairs = cutaway.behaviour("induction", model, n=80, seed=0)
    found = tuned_lens(model, pairs, steps=30)
    kl = found.kl
    assert (kl.sel(lens="tuned") <= kl.sel(lens="logit") + 1e-3).all()
    assert kl.sel(lens="tuned")[1] < 0.5 * kl.sel(lens="logit")[1]
    own = logit_lens(model, pairs.rows([0, 1]))
    read = logit_lens(model, pairs.rows([0, 1]), through=found)
    np.testing.assert_array_equal(own.logit_diff[:, -1], read.logit_diff[:, -1])
    assert not np.allclose(own.logit_diff[:, 1], read.logit_diff[:, 1])


def test_the_best_map_is_found_when_layers_add_a_constant(
    opened: Callable[[str], Model], pairs: Behaviour
) -> None:
    """With both layers' outputs made constant, the last stream is the first plus a constant."""
    model = opened("gpt2")
    saved = {name: value.clone() for name, value in model.hf.state_dict().items()}
    try:
        with torch.no_grad():
            for layer in model.anatomy.layers:
                layer.o_proj.weight.zero_()  # type: ignore[operator]
                layer.down.weight.zero_()  # type: ignore[operator, union-attr]
                layer.down.bias.normal_()  # type: ignore[operator, union-attr]
        for lens in (tuned_lens(model, pairs, steps=0), jacobian_lens(model, pairs)):
            assert (lens.kl.sel(lens=lens.method) < 1e-4).all()
            assert (lens.kl.sel(lens="logit") > 1e-3).all()
    finally:
        model.hf.load_state_dict(saved)


def test_saturation_is_where_the_answer_stays() -> None:
    model = cutaway.open("septet")
    pairs = cutaway.behaviour("ioi", model, n=12, seed=0)
    lens = logit_lens(model, pairs, positions=["end"])
    for example in range(len(pairs)):
        tokens = lens.top_token[example, :, 0].to_numpy().tolist()
        expected = next(k for k in range(len(tokens)) if set(tokens[k:]) == {tokens[-1]})
        assert int(lens.saturation[example, 0]) == expected


def test_saved_and_refused(
    opened: Callable[[str], Model], pairs: Behaviour, tmp_path: Path
) -> None:
    model = opened("gpt2")
    found = tuned_lens(model, pairs, steps=2)
    again = Translators.load(found.save(tmp_path / "lens.safetensors"))
    assert torch.equal(again.weights, found.weights)
    np.testing.assert_allclose(again.kl, found.kl)
    logit_lens(model, pairs, through=again)
    with pytest.raises(LensError, match="another model"):
        logit_lens(opened("llama"), pairs, through=again)
    (tmp_path / "other").write_text("no")
    with pytest.raises(LensError, match="not a saved lens"):
        Translators.load(tmp_path / "other")
    with pytest.raises(LensError, match="two prompts or more"):
        tuned_lens(model, pairs.rows([0, 1]))
