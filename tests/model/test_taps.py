"""Connecting leaves nothing behind, and changes nothing of the model."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from cutaway.model import Model, Site, ablate, apply, open_model, replace, scale
from cutaway.model.ports import Passing
from cutaway.model.tiny import tiny
from tests.model.variants import ONE_OF_EACH_KIND

Open = Callable[[str], Model]


def traces(hf: Any) -> list[Any]:
    """Everything about a model that connecting might have left changed."""
    hooks = [
        len(hooks)
        for module in hf.modules()
        for hooks in (module._forward_hooks, module._forward_pre_hooks)
    ]
    forwards = ["forward" in vars(module) for module in hf.modules()]
    weights = [
        (w.data_ptr(), w.requires_grad, w.dtype, float(w.detach().double().sum()))
        for w in hf.parameters()
    ]
    return [hooks, forwards, weights, hf.config._attn_implementation, hf.training]


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_nothing_stays_after_a_run_or_an_exception(
    opened: Open, name: str, ids: torch.Tensor
) -> None:
    model = opened(name)
    before = traces(model.hf)
    model.run(ids, keep=list(model.sites), edits=[ablate("z.0")])

    def interrupt(x: torch.Tensor) -> torch.Tensor:
        raise KeyboardInterrupt

    for site in ("attn_out.1", "pattern.0", "head_out.1"):
        with pytest.raises(KeyboardInterrupt):
            model.run(ids, keep=["scores"], edits=[apply(site, interrupt)])
    assert traces(model.hf) == before
    assert torch.equal(torch.ones(2) @ torch.ones(2), torch.tensor(2.0))
    run = model.run(ids)
    with torch.no_grad():
        assert torch.equal(run.logits, model.hf(ids, use_cache=False).logits)


def test_a_model_in_training_mode_runs_without_dropout_and_stays_in_training_mode(
    ids: torch.Tensor,
) -> None:
    hf = tiny("gpt2", resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5)
    expected = open_model(hf).run(ids).logits
    hf.train()
    model = open_model(hf)
    assert torch.equal(model.run(ids).logits, expected)
    assert hf.training
    assert all(module.training for module in hf.modules())


def test_a_tap_is_called_once_per_wanted_site(opened: Open, ids: torch.Tensor) -> None:
    seen: list[str] = []

    class Watch:
        def wants(self, site: Site) -> bool:
            return site.kind in ("q", "pattern", "resid_mid")

        def __call__(self, site: Site, x: torch.Tensor, now: Passing) -> torch.Tensor:
            seen.append(str(site))
            return x

    opened("gpt2").run(ids, taps=[Watch()])
    assert seen == ["q.0", "pattern.0", "resid_mid.0", "q.1", "pattern.1", "resid_mid.1"]


def test_kept_tensors_are_copies_and_edits_do_not_touch_their_sources(
    opened: Open, ids: torch.Tensor
) -> None:
    for name in ("falcon-multi-query", "opt", "llama-grouped"):
        model = opened(name)
        run = model.run(ids, keep=list(model.sites))
        before = {site: tensor.clone() for site, tensor in run.kept.items()}
        for site in model.sites:
            model.run(ids, edits=[replace(site, from_=run), scale(site, 2.0)])
        for site, tensor in before.items():
            assert torch.equal(run[site], tensor), f"{name} {site}"


def test_runs_of_several_threads_do_not_mix(opened: Open, ids: torch.Tensor) -> None:
    model = opened("llama-grouped")
    alone = {k: model.run(ids, edits=[scale("attn_out.0", float(k))]).logits for k in range(6)}
    found: dict[int, bool] = {}

    def work(k: int) -> None:
        same = [
            torch.equal(
                model.run(ids, edits=[scale("attn_out.0", float(k))], keep=["scores"]).tokens.ids,
                ids,
            )
            and torch.equal(model.run(ids, edits=[scale("attn_out.0", float(k))]).logits, alone[k])
            for _ in range(5)
        ]
        found[k] = all(same)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == dict.fromkeys(range(6), True)
