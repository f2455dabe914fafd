"""Gradients at sites: against finite differences, and against each other."""

from collections.abc import Callable

import pytest
import torch

from cutaway.errors import SiteError
from cutaway.model import Model, add, open_model
from cutaway.model.tiny import tiny
from tests.model.variants import ONE_OF_EACH_KIND

Open = Callable[[str], Model]


def metric(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, -1, 5] - logits[:, -1, 9]


@pytest.mark.parametrize(
    "family", ["gpt2", "llama", "gptj", "bloom", "gemma2", "cohere", "granite"]
)
def test_gradients_are_finite_differences(family: str, ids: torch.Tensor) -> None:
    # Families mask with float64's smallest number but take the softmax in float32, so padding is
    # broken there, and nothing here pads.
    with pytest.warns(UserWarning, match="opened without verification"):
        model = open_model(tiny(family, dtype=torch.float64), verify=False)
    sites = [site for site in model.sites if site.kind != "router"]
    run = model.run(ids, keep=sites, grad_of=metric)
    generator = torch.Generator().manual_seed(0)
    for site in sites:
        gradient = run.grad(site)
        step = torch.randn(gradient.shape[1:], generator=generator, dtype=torch.float64)
        size = 3e-4
        up = metric(model.run(ids, edits=[add(site, size * step)]).logits).sum()
        down = metric(model.run(ids, edits=[add(site, -size * step)]).logits).sum()
        measured, predicted = float(up - down) / (2 * size), float((gradient * step).sum())
        assert measured == pytest.approx(predicted, rel=1e-2, abs=2e-3), str(site)


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_gradients_need_no_trainable_weights_and_leave_none(
    opened: Open, name: str, ids: torch.Tensor
) -> None:
    model = opened(name)
    sites = [site for site in model.sites if site.kind in ("resid_pre", "z", "head_out", "mlp_out")]
    trainable = model.run(ids, keep=sites, grad_of=metric)
    for weight in model.hf.parameters():
        weight.requires_grad_(False)
    frozen = model.run(ids, keep=sites, grad_of=metric)
    for weight in model.hf.parameters():
        assert weight.grad is None
        weight.requires_grad_(True)
    for site in sites:
        torch.testing.assert_close(trainable.grad(site), frozen.grad(site), rtol=1e-4, atol=1e-6)


def test_a_heads_gradient_is_that_of_what_attention_adds(opened: Open, ids: torch.Tensor) -> None:
    run = opened("llama-grouped").run(ids, keep=["head_out.0", "attn_out.0"], grad_of=metric)
    for head in range(4):
        torch.testing.assert_close(run.grad(f"head_out.0.{head}"), run.grad("attn_out.0"))


def test_values_are_the_same_with_and_without_gradients(opened: Open, ids: torch.Tensor) -> None:
    model = opened("gpt2")
    kept = [site for site in model.sites if site.kind in ("resid_mid", "q", "head_out")]
    plain, traced = model.run(ids, keep=kept), model.run(ids, keep=kept, grad_of=metric)
    assert torch.equal(plain.logits, traced.logits)
    assert not traced.logits.requires_grad
    for site in kept:
        assert torch.equal(plain[site], traced[site])


def test_an_edit_can_be_trained(opened: Open, ids: torch.Tensor) -> None:
    vector = torch.zeros(32, requires_grad=True)
    run = opened("gpt2").run(ids, edits=[add("resid_post.0", vector)], graph=True)
    metric(run.logits).sum().backward()
    assert vector.grad is not None
    assert float(vector.grad.norm()) > 0


def test_what_cannot_be_differentiated_is_refused(opened: Open, ids: torch.Tensor) -> None:
    model = opened("gpt2")
    with pytest.raises(SiteError, match="needs keep="):
        model.run(ids, grad_of=metric)
    with pytest.raises(SiteError, match="does not depend on the logits"):
        model.run(ids, keep=["z.0"], grad_of=lambda logits: torch.ones(3))
    with pytest.raises(SiteError, match="has no gradients"):
        model.run(ids, keep=["z.0"]).grad("z.0")
