"""Changes where they used to go wrong: rows, beams, padding, references, dependent directions."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from cutaway.errors import InputError, SiteError
from cutaway.model import Edit, Model, ablate, apply, project_out, replace, scale
from cutaway.model.resume import resume, run_base
from cutaway.model.sites import Site
from cutaway.model.tokens import Tokens, pad

Open = Callable[[str], Model]
UNEVEN = [[3, 4, 5], [6, 7, 8, 9, 10]]


def test_a_mean_over_chosen_rows_does_not_see_padding(opened: Open) -> None:
    model = opened("llama-grouped")
    for edit in (ablate("resid_pre.1", "mean", row=0), ablate("resid_pre.1", "mean")):
        left, right = (
            model.run(pad(UNEVEN, pad_id=0, padding=side), edits=[edit]).last_logits
            for side in ("left", "right")
        )
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (ablate("resid_pre.1", "mean", per_position=True), "This mean needs prompts of one length"),
        (ablate("pattern.1", "mean"), "choose another ablation"),
        (ablate("scores.1", "resample", position=-1), "choose another ablation"),
        (ablate("z.1", "resample", row=0), "single prompt would leave everything as it is"),
        (ablate("z.1", "mean", row=1, position=-1), "single prompt would leave everything"),
    ],
)
def test_what_padding_or_a_single_prompt_would_spoil_is_refused(
    opened: Open, edit: Edit, message: str
) -> None:
    with pytest.raises(SiteError, match=message):
        opened("llama-grouped").run(pad(UNEVEN, pad_id=0), edits=[edit])


def test_a_reference_may_have_another_number_of_prompts(opened: Open, ids: torch.Tensor) -> None:
    model = opened("llama-grouped")
    kept = ["z.1", "pattern.1"]
    reference = model.run(torch.cat([ids, ids + 1, ids.flip(1)]), keep=kept)
    resampled = model.run(ids, edits=[ablate("z.1", "resample", over=reference)], keep=kept)
    drawn = [bool((z == reference["z.1"]).flatten(1).all(1).any()) for z in resampled["z.1"]]
    assert all(drawn)
    edit = ablate("pattern.1", "mean", over=reference, position=-1)
    found = model.run(ids, edits=[edit], keep=kept)["pattern.1"]
    mean = reference["pattern.1"].mean(0)[:, -1]
    torch.testing.assert_close(found[:, :, -1], mean.expand_as(found[:, :, -1]))


def test_references_that_do_not_line_up_are_refused(opened: Open, ids: torch.Tensor) -> None:
    model = opened("llama-grouped")
    kept = ["pattern.1", "resid_pre.1"]
    longer = model.run(torch.cat([ids, ids[:, :2]], dim=1), keep=kept)
    bad: list[tuple[Any, str]] = [
        (ablate("pattern.1", "mean", over=longer), "line up with the reference's token by token"),
        (ablate("resid_pre.1", "mean", over=longer, per_position=True), "line up with"),
        (replace("pattern.1", from_=longer, position=-1), "do not line up"),
    ]
    for edit, message in bad:
        with pytest.raises(SiteError, match=message):
            model.run(ids, edits=[edit])


def test_beams_have_their_prompts_means(opened: Open) -> None:
    model = opened("llama-grouped")
    edits = [ablate("mlp_out.0", "mean", position=None)]
    found = model.generate(pad(UNEVEN, pad_id=0), edits=edits, num_beams=2, max_new_tokens=2)
    assert found.ids.shape[0] == 2


def test_dependent_directions_span_no_more_than_they_do(opened: Open, ids: torch.Tensor) -> None:
    model = opened("gpt2")
    v, w = torch.randn(2, model.d_model, generator=torch.Generator().manual_seed(0))
    for once, again in (
        (v, torch.stack([v, 2 * v])),
        (torch.stack([v, w]), torch.stack([v, w, v - w])),
    ):
        one, other = (
            model.run(ids, edits=[project_out("resid_pre.1", given)]).logits
            for given in (once, again)
        )
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    with pytest.raises(SiteError, match="have the width 3, and what passes there 32"):
        model.run(ids, edits=[project_out("resid_pre.1", torch.ones(3))])


@pytest.mark.parametrize("site", ["head_out.0", "q.1", "attn_out.0"])
def test_a_function_that_writes_in_place_counts(opened: Open, ids: torch.Tensor, site: str) -> None:
    model = opened("granite")
    found = model.run(ids, edits=[apply(site, lambda x: x.mul_(0.5))]).logits
    expected = model.run(ids, edits=scale(site, 0.5)).logits
    torch.testing.assert_close(found, expected)
    with pytest.raises(SiteError, match="returned None"):
        model.run(ids, edits=[apply(site, lambda x: None)])  # type: ignore[arg-type,return-value]


def test_heads_that_are_not_there_are_refused(opened: Open, ids: torch.Tensor) -> None:
    model = opened("llama-grouped")
    run = model.run(ids, keep=["z", "k"])
    for name in ("z.0.4", "k.1.2"):
        with pytest.raises(SiteError, match=f"no '{name}': there are . entries"):
            _ = run[name]
    with pytest.raises(SiteError, match="there are 4 entries along 'head'"):
        model.run(ids, edits=[ablate("z.0", head=-5)])


def test_the_graph_survives_the_gradients(opened: Open, ids: torch.Tensor) -> None:
    run = opened("gpt2").run(ids, keep=["z.0"], grad_of=lambda x: x[:, -1, 5], graph=True)
    again = torch.autograd.grad(run.logits[:, -1, 5].sum(), run.kept[Site("z", 0)])[0]
    torch.testing.assert_close(again, run.grad("z.0"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: m.tokens(torch.rand(1, 3)), "whole numbers; found a tensor of torch.float32"),
        (lambda m: m.tokens("a", mask=torch.ones(1, 1)), "A mask goes with token ids"),
        (
            lambda m: m.tokens(torch.ones(1, 3).long(), mask=torch.tensor([[1, 0, 1]])),
            "padding between real tokens",
        ),
        (lambda m: m.generate(torch.tensor([[96]]), max_new_tokens=1), "outside .* vocabulary"),
        (lambda m: m.generate(torch.ones(1, 1).long(), temperature=1.0, top_k=-1), "at least 1"),
    ],
)
def test_bad_tokens_are_refused(opened: Open, make: Callable[[Model], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(opened("llama-grouped"))


def test_a_mask_may_come_beside_a_single_prompt(opened: Open) -> None:
    tokens = opened("gpt2").tokens(torch.tensor([3, 4, 5]), mask=torch.tensor([1, 1, 0]))
    assert tokens.lengths.tolist() == [2]


def test_a_resumed_pass_waits_for_others_before_it_skips_layers(
    opened: Open, ids: torch.Tensor
) -> None:
    model = opened("llama-grouped")
    tokens = Tokens(ids=ids, mask=torch.ones_like(ids).bool())
    base = run_base(model, tokens, [Site("resid_pre", 1)])
    block = model.anatomy.layers[0].block
    assert isinstance(model.blocks_return_tuples, bool)
    arguments = (model, base, torch.arange(3), 1, 0, base.run["resid_pre.1"], Site("resid_final"))
    other = threading.Thread(target=resume, args=arguments)
    with model.connected([]):
        other.start()
        other.join(timeout=0.3)
        assert other.is_alive()
        assert "forward" not in vars(block)
    other.join()
