"""Direct logit attribution: its sum, its parts by ablation, its constants by hand."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cutaway.behaviours import METRICS, Behaviour
from cutaway.errors import CutawayError
from cutaway.model import Model, Site
from cutaway.model.edits import add
from cutaway.observe import Attribution, AttributionError, attribute
from cutaway.observe.contributions import refuse_unless_sum

FAMILIES = (
    "gpt2", "llama", "gemma2", "cohere", "granite", "gptj", "bloom", "olmo2", "mpt", "opt", "phi",
    "qwen3_moe", "falcon", "glm4", "gemma3_text", "deepseek_v3",
)  # fmt: skip


def logit_diff(model: Model, pairs: Behaviour) -> np.ndarray:
    return METRICS["logit_diff"](pairs.end_logits(model.run(pairs.clean).logits), pairs).numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_parts_add_up_to_the_logit_difference(
    opened: Callable[[str], Model], pairs: Behaviour, family: str
) -> None:
    model = opened(family)
    found = attribute(model, pairs, batch_size=3)
    np.testing.assert_allclose(found.measured, logit_diff(model, pairs), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.total, found.target, rtol=1e-3, atol=1e-3)
    assert found.relative_error < 1e-4
    assert found.before_cap == (family == "gemma2")
    if not found.before_cap:
        np.testing.assert_allclose(found.target, found.measured)
    for by in ("component", "layer"):
        np.testing.assert_allclose(found.grouped(by).sum("component"), found.total, atol=1e-9)


@pytest.mark.parametrize("family", ["llama", "gemma2", "olmo2", "granite", "mpt"])
def test_an_attention_without_a_bias_is_the_sum_of_its_heads(
    opened: Callable[[str], Model], pairs: Behaviour, family: str
) -> None:
    values = attribute(opened(family), pairs).values
    rest = values[:, (values["kind"] == "attn_bias").to_numpy()]
    heads = values[:, (values["kind"] == "head_out").to_numpy()]
    assert float(np.abs(rest).max()) < 1e-5 * float(np.abs(heads).max()) + 1e-5


def test_the_bias_of_an_attention_is_its_projections(
    opened: Callable[[str], Model], pairs: Behaviour
) -> None:
    model = opened("gpt2")
    values = attribute(model, pairs).values
    final = model.run(pairs.clean, keep=["resid_final"])["resid_final"]
    at_end = final[torch.arange(5), pairs.clean.labels["end"]]
    u = METRICS["logit_diff"].coefficients(pairs).directions(model.hf.lm_head.weight.detach())
    norm = model.hf.transformer.ln_f
    g = norm.weight * u
    g = (g - g.mean(-1, keepdim=True)) / at_end.std(-1, unbiased=False, keepdim=True)
    expected = g @ model.hf.transformer.h[1].attn.c_proj.bias
    found = values.sel(component="attn_bias.1").to_numpy()
    np.testing.assert_allclose(found, expected.detach(), rtol=1e-3, atol=1e-5)
    expected = (u @ norm.bias).detach()
    np.testing.assert_allclose(values.sel(component="norm_bias"), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", ["gpt2", "llama", "cohere", "granite"])
def test_a_heads_share_is_what_removing_it_from_the_stream_changes(
    opened: Callable[[str], Model], pairs: Behaviour, family: str
) -> None:
    """Measured: the head's output taken from the final stream, under the norm's own scale."""
    model = opened(family)
    found = attribute(model, pairs).heads
    layer, head = 0, 2
    run = model.run(pairs.clean, keep=[f"head_out.{layer}", "resid_final", "final_norm"])
    final, norm = run["resid_final"], model.frozen_norm
    without = final - run[Site("head_out", layer, head)]
    normed = norm.gain * norm.centred(without) / norm.scale(final) + norm.bias
    changed = model.run(pairs.clean, edits=[add("final_norm", normed - run["final_norm"])])
    metric = METRICS["logit_diff"]
    difference = metric(pairs.end_logits(run.logits), pairs) - metric(
        pairs.end_logits(changed.logits), pairs
    )
    share = found.sel(layer=layer, head=head).to_numpy()
    np.testing.assert_allclose(share, difference, rtol=2e-3, atol=2e-4)


def test_a_head_before_a_post_norm_is_attributed_at_that_norms_scale(
    opened: Callable[[str], Model], pairs: Behaviour
) -> None:
    model = opened("olmo2")
    run = model.run(pairs.clean, keep=["head_out.1", "resid_final"])
    rows, end = torch.arange(5), pairs.clean.labels["end"]
    heads, final = run["head_out.1"][rows, end], run["resid_final"][rows, end]
    post, last = model.hf.model.layers[1].post_attention_layernorm, model.hf.model.norm

    def rms(x: torch.Tensor) -> torch.Tensor:
        return (x.pow(2).mean(-1, keepdim=True) + post.variance_epsilon).sqrt()

    through = post.weight * heads[:, 3] / rms(heads.sum(1)) * last.weight / rms(final)
    logits = through @ model.hf.lm_head.weight.T
    expected = METRICS["logit_diff"](logits.detach(), pairs)
    found = attribute(model, pairs).heads.sel(layer=1, head=3)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_which_embeddings_are_told_apart(opened: Callable[[str], Model], pairs: Behaviour) -> None:
    assert attribute(opened("gpt2"), pairs).embeddings == "embed + pos_embed"
    assert attribute(opened("bloom"), pairs).embeddings == "resid_pre.0"


def test_the_largest_parts_and_the_grid_of_heads(
    opened: Callable[[str], Model], pairs: Behaviour
) -> None:
    found = attribute(opened("gpt2"), pairs)
    top = found.top(3)
    assert list(top.columns) == ["component", "kind", "layer", "head", "mean", "low", "high"]
    assert abs(top["mean"][0]) == pytest.approx(float(np.abs(found.mean).max()))
    assert found.heads.sizes == {"example": 5, "layer": 2, "head": 4}
    one = found.values.sel(component="head_out.1.2").to_numpy()
    np.testing.assert_array_equal(found.heads.sel(layer=1, head=2), one)
    assert found.grouped("layer")["component"].to_numpy().tolist() == [
        "embed", "pos_embed", "layer.0", "layer.1", "constant",
    ]  # fmt: skip
    with pytest.raises(CutawayError, match="by must be 'component' or 'layer'; found 'head'"):
        found.grouped("head")  # type: ignore[arg-type]


def test_a_sum_that_is_off_is_refused(opened: Callable[[str], Model], pairs: Behaviour) -> None:
    found = attribute(opened("gpt2"), pairs)
    wrong = replace(found, target=found.target + 1.0)
    with pytest.raises(AttributionError, match=r"add up to .* where the model's logit difference"):
        refuse_unless_sum(wrong, bound=1e-4)


def test_an_attribution_survives_being_saved(
    opened: Callable[[str], Model], pairs: Behaviour, tmp_path: Path
) -> None:
    found = attribute(opened("gemma2"), pairs)
    again = Attribution.load(found.save(tmp_path / "attribution.nc"))
    assert again.to_dataset().identical(found.to_dataset())
    assert again.relative_error == found.relative_error
