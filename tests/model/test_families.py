"""Bar 1 of the foundation: what holds for every family, on tiny random models in float32."""

import pytest
import torch

from cutaway.errors import SiteError
from cutaway.model import KINDS, Model, Site, ablate, replace
from cutaway.model.taps import eager_attention
from cutaway.model.tokens import Tokens, pad
from tests.model import by_hand


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    by_norm = (found - expected).norm() / expected.norm()
    by_magnitude = (found - expected).abs().max() / expected.abs().max()
    return float(max(by_norm, by_magnitude))


def test_opening_proves_every_identity(model: Model) -> None:
    assert model.verification is not None
    assert model.verification.holds
    exact = next(c for c in model.verification.checks if "adapters" in c.identity)
    assert exact.by_norm == exact.by_magnitude == 0.0
    for check in model.verification.checks:
        assert max(check.by_norm, check.by_magnitude) <= 1e-5, check


def test_logits_with_every_site_tapped_are_the_bare_models_bit_for_bit(
    model: Model, ids: torch.Tensor
) -> None:
    run = model.run(ids, keep=list(model.sites))
    with torch.no_grad():
        plain = model.hf(ids, use_cache=False).logits
    if model.anatomy.own_kernel:
        assert relative(run.logits, plain) < 1e-5
    else:
        with torch.no_grad(), eager_attention(model.hf):
            assert torch.equal(run.logits, model.hf(ids, use_cache=False).logits)
    assert torch.equal(model.run(ids, keep=["resid_post", "z", "head_out"]).logits, plain)


def test_padding_and_batching_are_invisible(model: Model) -> None:
    generator = torch.Generator().manual_seed(5)
    rows = [torch.randint(3, 96, (n,), generator=generator).tolist() for n in (4, 9, 6)]
    alone = [model.run(torch.tensor([row])).logits[0] for row in rows]
    for side in ("left", "right"):
        batch = pad(rows, pad_id=0, padding=side)
        logits = model.run(batch).logits
        for row, expected in enumerate(alone):
            assert relative(logits[row][batch.mask[row]], expected) < 1e-5


def test_patching_a_run_with_its_own_activations_changes_nothing(
    model: Model, ids: torch.Tensor
) -> None:
    for inside in (False, True):
        sites = [site for site in model.sites if KINDS[site.kind].interior == inside]
        base = model.run(ids, keep=sites)  # with the kernel that these sites run with
        for site in sites:
            again = model.run(ids, edits=[replace(site, from_=base)])
            assert relative(again.logits, base.logits) <= 1e-6, str(site)


def test_zeroing_a_site_equals_the_same_change_made_by_hand(
    model: Model, ids: torch.Tensor
) -> None:
    checked: set[str] = set()
    for site in model.sites:
        for part in (site, *by_hand.one_part(model, site)):
            with by_hand.zeroed(model, part) as possible:
                if not possible:
                    continue
                with torch.no_grad():
                    expected = model.hf(ids, use_cache=False).logits
            found = model.run(ids, edits=[ablate(part)]).logits
            assert torch.isfinite(expected).all(), str(part)
            if float(expected.abs().max()) == 0:
                assert float(found.abs().max()) == 0, str(part)
            else:
                assert relative(found, expected) < 1e-5, (str(part), relative(found, expected))
            checked.add(site.kind)
    # Everything that this model has, but for keys and scores where a bias or norm follows them.
    assert {site.kind for site in model.sites} - checked <= by_hand.UNREACHED


def test_absent_sites_say_why(model: Model, ids: torch.Tensor) -> None:
    present = {site.kind for site in model.sites}
    for kind in set(KINDS) - present:
        wanted = Site(kind, 0 if KINDS[kind].per_layer else None)
        with pytest.raises(SiteError, match="does not exist here: .{20}"):
            model.run(ids, keep=[wanted])


def test_an_edit_of_one_row_leaves_the_others_alone(model: Model, ids: torch.Tensor) -> None:
    base = model.run(ids).logits
    edited = model.run(ids, edits=[ablate("mlp_out.1", row=1)]).logits
    assert relative(edited[1], base[1]) > 1e-4
    assert relative(edited[[0, 2]], base[[0, 2]]) < 1e-6


def test_positions_are_counted_in_each_prompts_own_tokens(model: Model) -> None:
    rows = [[5, 9, 40, 7], [11, 12, 13, 14, 15, 16, 17]]
    results = []
    for side in ("left", "right"):
        batch = pad(rows, pad_id=0, padding=side, labels={"here": [2, 4]})
        for position in (-2, 1, "here"):
            edit = ablate("attn_out.0", position=position)
            results.append(model.run(batch, edits=[edit]).last_logits)
    for left, right in zip(results[:3], results[3:], strict=True):
        assert relative(left, right) < 1e-5
    assert relative(results[0], results[1]) > 1e-6


def test_tokens_with_a_mask_run_as_text_would(model: Model, ids: torch.Tensor) -> None:
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    run = model.run(Tokens(ids=ids, mask=mask.bool()))
    alone = model.run(ids[:1, 3:])
    assert relative(run.logits[0, 3:], alone.logits[0]) < 1e-5
