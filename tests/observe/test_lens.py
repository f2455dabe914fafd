"""The logit lens against the model's own output, and against the lens written out by hand."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cutaway.behaviours import METRICS, Behaviour
from cutaway.errors import CutawayError, SiteError
from cutaway.model import Model
from cutaway.observe import Lens, LensError, logit_lens, tuned_lens

FAMILIES = ("gpt2", "llama", "gemma2", "cohere", "opt", "olmo2")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_layer_is_the_models_own_output(
    opened: Callable[[str], Model], pairs: Behaviour, family: str
) -> None:
    model = opened(family)
    lens = logit_lens(model, pairs, positions="end")
    logits = pairs.end_logits(model.run(pairs.clean).logits)
    last = lens.logit_diff.isel(layer=-1, position=0).to_numpy()
    np.testing.assert_allclose(last, METRICS["logit_diff"](logits, pairs), rtol=1e-4, atol=1e-5)
    assert (lens.top_token[:, -1, 0].to_numpy() == logits.argmax(-1).numpy()).all()
    probabilities = logits.softmax(-1)
    own = [probabilities[row, list(ids)].sum().item() for row, ids in enumerate(pairs.answers)]
    np.testing.assert_allclose(lens.probability[:, -1, 0], own, rtol=1e-4)
    ranks = [int((logits[row] > logits[row, list(ids)].max()).sum())
             for row, ids in enumerate(pairs.answers)]  # fmt: skip
    assert lens.rank[:, -1, 0].to_numpy().tolist() == ranks


def test_an_inner_layer_is_norm_and_unembedding_of_its_stream(
    opened: Callable[[str], Model], pairs: Behaviour
) -> None:
    model = opened("gpt2")
    lens = logit_lens(model, pairs, batch_size=2)
    assert lens.logit_diff.dims == ("example", "layer", "position")
    assert lens.logit_diff["layer"].to_numpy().tolist() == [
        "resid_pre.0", "resid_post.0", "resid_post.1",
    ]  # fmt: skip
    assert lens.logit_diff["position"].to_numpy().tolist() == ["there", "end"]
    with torch.no_grad():
        stream = model.hf(
            pairs.clean.ids, attention_mask=pairs.clean.mask.long(),
            position_ids=pairs.clean.position_ids, output_hidden_states=True,
        ).hidden_states[1]  # fmt: skip
        logits = model.hf.lm_head(model.hf.transformer.ln_f(stream[torch.arange(5), 3]))
    found = lens.logit_diff.sel(layer="resid_post.0", position="there")
    np.testing.assert_allclose(found, METRICS["logit_diff"](logits, pairs), rtol=1e-4, atol=1e-5)


def test_batches_and_numbers_for_positions_change_nothing(
    opened: Callable[[str], Model], pairs: Behaviour
) -> None:
    model = opened("llama")
    named = logit_lens(model, pairs, prompts="corrupt")
    numbered = logit_lens(model, pairs, prompts="corrupt", positions=[3, -1], batch_size=1)
    assert numbered.logit_diff["position"].to_numpy().tolist() == [3, -1]
    np.testing.assert_allclose(named.logit_diff, numbered.logit_diff, rtol=1e-4, atol=1e-5)
    assert named.mean.dims == ("layer", "position")
    found = named.interval()
    assert (found["low"] <= found["mean"]).all()
    assert (found["mean"] <= found["high"]).all()


def test_a_lens_survives_being_saved(
    opened: Callable[[str], Model], pairs: Behaviour, tmp_path: Path
) -> None:
    lens = logit_lens(opened("gpt2"), pairs)
    again = Lens.load(lens.save(tmp_path / "deep" / "lens.nc"))
    assert again.to_dataset().identical(lens.to_dataset())
    assert again.provenance["model"]["fingerprint"] == opened("gpt2").fingerprint
    assert not list(tmp_path.rglob("*.part"))


def test_bad_input_is_refused_in_a_sentence(
    opened: Callable[[str], Model], pairs: Behaviour, tmp_path: Path
) -> None:
    model = opened("gpt2")
    with pytest.raises(CutawayError, match="no position labelled 'ther'; did you mean 'there'"):
        logit_lens(model, pairs, positions=["ther"])
    with pytest.raises(CutawayError, match="the shortest has 6"):
        logit_lens(model, pairs, positions=[6])
    with pytest.raises(CutawayError, match="positions is empty"):
        logit_lens(model, pairs, positions=[])
    with pytest.raises(CutawayError, match="'clean' or 'corrupt'; found 'both'"):
        logit_lens(model, pairs, prompts="both")  # type: ignore[arg-type]
    with pytest.raises(CutawayError, match="batch_size must be a whole number of 1 or more"):
        logit_lens(model, pairs, batch_size=0)
    (tmp_path / "a.nc").write_text("not netCDF")
    with pytest.raises(CutawayError, match=r"a\.nc is not a saved result"):
        Lens.load(tmp_path / "a.nc")
    with pytest.raises(CutawayError, match="There is no result at"):
        Lens.load(tmp_path / "b.nc")
    with pytest.raises(CutawayError, match="is not a saved result"):
        logit_lens(model, pairs).save(tmp_path / "a.nc")


def test_activations_that_are_not_finite_are_named(pairs: Behaviour) -> None:
    from cutaway.model import open_model
    from cutaway.model.tiny import tiny

    hf = tiny("gpt2")
    model = open_model(hf)
    with torch.no_grad():
        hf.transformer.wte.weight[pairs.clean.ids[2, 4]] = torch.nan
    with pytest.raises(CutawayError, match=r"'embed' of the clean prompt \d is not finite"):
        logit_lens(model, pairs)


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_any_site_of_the_streams_width_is_read_as_if_it_were_the_last(
    opened: Callable[[str], Model], pairs: Behaviour, family: str
) -> None:
    model = opened(family)
    found = logit_lens(model, pairs, sites=["resid_mid", "head_out", "mlp_out.0"], batch_size=2)
    names = found.logit_diff["layer"].to_numpy().tolist()
    heads = [f"head_out.{layer}.{head}" for layer in range(2) for head in range(model.n_heads)]
    assert names == ["resid_mid.0", "resid_mid.1", *heads, "mlp_out.0", "resid_post.1"]
    run = model.run(pairs.clean, keep=["resid_mid", "head_out", "mlp_out"])
    for name in ("resid_mid.1", "head_out.1.2", "mlp_out.0"):
        with torch.no_grad():
            logits = model.unembed(model.anatomy.final_norm(run[name][torch.arange(5), 3]))
        np.testing.assert_allclose(
            found.logit_diff.sel(layer=name, position="there"),
            METRICS["logit_diff"](logits, pairs), rtol=1e-4, atol=1e-5,
        )  # fmt: skip
    plain = logit_lens(model, pairs)
    np.testing.assert_allclose(
        found.logit_diff.sel(layer="resid_post.1"), plain.logit_diff.sel(layer="resid_post.1"),
        rtol=1e-4, atol=1e-5,
    )  # fmt: skip
    lens = tuned_lens(model, pairs, steps=0)
    carried = logit_lens(model, pairs, sites=["resid_pre.1"], through=lens)
    whole = logit_lens(model, pairs, through=lens)
    np.testing.assert_allclose(
        carried.logit_diff.sel(layer="resid_pre.1"), whole.logit_diff.sel(layer="resid_post.0"),
        rtol=1e-4, atol=1e-5,
    )  # fmt: skip
    with pytest.raises(LensError, match="cannot read 'resid_mid.0'"):
        logit_lens(model, pairs, sites="resid_mid", through=lens)
    with pytest.raises(SiteError, match="The lens reads the stream and what is added to it"):
        logit_lens(model, pairs, sites="mlp_in")
    with pytest.raises(SiteError, match="No site was given"):
        logit_lens(model, pairs, sites=[])
