"""Edits as values: what they touch, what they leave, and what they refuse."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cutaway.errors import SiteError
from cutaway.model import (
    Model,
    Site,
    ablate,
    add,
    apply,
    freeze,
    open_model,
    project_out,
    replace,
    scale,
)
from cutaway.model.tiny import tiny
from cutaway.model.tokens import pad

Open = Callable[[str], Model]


def test_every_kind_of_change_does_what_it_says(opened: Open, ids: torch.Tensor) -> None:
    model = opened("llama-grouped")
    site = "mlp_out.0"
    before = model.run(ids, keep=[site])[site]
    vector = torch.randn(32)
    others = model.run(ids.flip(0), keep=[site])
    expected = {
        replace(site, vector): vector.expand_as(before),
        add(site, vector): before + vector,
        scale(site, 0.5): before * 0.5,
        ablate(site): torch.zeros_like(before),
        ablate(site, "mean"): before.mean(dim=(0, 1)).expand_as(before),
        ablate(site, "mean", per_position=True): before.mean(dim=0).expand_as(before),
        ablate(site, "mean", over=others): before.mean(dim=(0, 1)).expand_as(before),
        project_out(site, vector): before
        - (before @ vector)[..., None] * vector / (vector @ vector),
        replace(site, from_=others): others[site],
        apply(site, torch.relu): before.relu(),
    }
    for edit, value in expected.items():
        after = model.run(ids, edits=[edit], keep=[site])[site]
        torch.testing.assert_close(after, value, rtol=1e-5, atol=1e-5, msg=str(edit))


def test_resampling_takes_other_prompts_and_is_seeded(opened: Open, ids: torch.Tensor) -> None:
    model = opened("gpt2")
    base = model.run(ids, keep=["z.1"])["z.1"]
    edits = [ablate("z.1", "resample", seed=seed) for seed in (0, 0, 1, 2, 3)]
    drawn = [model.run(ids, edits=[edit], keep=["z.1"])["z.1"] for edit in edits]
    assert torch.equal(drawn[0], drawn[1])
    assert any(not torch.equal(drawn[0], other) for other in drawn[2:])
    for values in drawn:
        for row in range(3):
            sources = [other for other in range(3) if torch.equal(values[row], base[other])]
            assert sources
            assert row not in sources


def test_parts_are_addressed_by_head_position_and_row(opened: Open, ids: torch.Tensor) -> None:
    model = opened("gpt2")
    base = model.run(ids, keep=["z.0"])["z.0"]
    edit = ablate("z.0.2", position=[1, -1], row=[0, 2])
    after = model.run(ids, edits=[edit], keep=["z.0"])["z.0"]
    expected = base.clone()
    for row in (0, 2):
        expected[row, [1, 8], 2] = 0
    assert torch.equal(after, expected)


def test_key_positions_of_a_pattern(opened: Open, ids: torch.Tensor) -> None:
    model = opened("llama-grouped")
    base = model.run(ids, keep=["pattern.1"])["pattern.1"]
    edit = ablate("pattern.1", head=3, position=5, key_position=[0, 2])
    after = model.run(ids, edits=[edit], keep=["pattern.1"])["pattern.1"]
    expected = base.clone()
    expected[:, 3, 5, [0, 2]] = 0
    assert torch.equal(after, expected)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_drawn_selection_is_set_and_nothing_else(data: Any) -> None:
    model = _gpt2()
    kind = data.draw(st.sampled_from(["resid_pre", "z", "head_out", "mlp_post", "pattern", "k"]))
    site = Site(kind, data.draw(st.integers(0, 1)))
    rows = [[5] * 4, [6] * 7, [7] * 5]
    side = data.draw(st.sampled_from(["left", "right"]))
    tokens = pad(rows, pad_id=0, padding=side)
    position = data.draw(st.none() | st.integers(-4, 3))
    row = data.draw(st.none() | st.integers(0, 2))
    indexed = kind in ("z", "head_out", "mlp_post", "pattern", "k")
    index = data.draw(st.none() | st.integers(0, 3)) if indexed else None
    where = {"position": position, "row": row, "head": index}
    base = model.run(tokens, keep=[site])[site]
    after = model.run(tokens, edits=[replace(site, 7.5, **where)], keep=[site])[site]  # type: ignore[arg-type]
    expected = base.clone()
    for r in range(3) if row is None else [row]:
        own = tokens.mask[r].nonzero().flatten()
        places = slice(None) if position is None else own[position]
        heads = slice(None) if index is None else index
        if kind == "pattern":
            expected[r, heads, places] = 7.5
        elif indexed:
            expected[r, places, heads] = 7.5
        else:
            expected[r, places] = 7.5
    assert torch.equal(after, expected)


_CACHE: dict[str, Model] = {}


def _gpt2() -> Model:
    if "gpt2" not in _CACHE:
        _CACHE["gpt2"] = open_model(tiny("gpt2"))
    return _CACHE["gpt2"]


def test_a_run_lends_one_position_to_another(opened: Open, ids: torch.Tensor) -> None:
    model = opened("gpt2")
    source = model.run(ids, keep=["resid_pre.1"])
    edit = replace("resid_pre.1", from_=source, position=4, from_position=2)
    after = model.run(ids, edits=[edit], keep=["resid_pre.1"])["resid_pre.1"]
    assert torch.equal(after[:, 4], source["resid_pre.1"][:, 2])


def test_freezing_holds_every_kept_site_of_a_kind(opened: Open, ids: torch.Tensor) -> None:
    model = opened("llama-grouped")
    clean = model.run(ids, keep=["pattern"])
    frozen = freeze("pattern", from_=clean)
    run = model.run(ids.flip(1), edits=[frozen], keep=["pattern"])
    assert len(frozen) == 2
    for layer in range(2):
        assert torch.equal(run[f"pattern.{layer}"], clean[f"pattern.{layer}"])


def test_edits_compose_in_order(opened: Open, ids: torch.Tensor) -> None:
    model = opened("gpt2")
    run = model.run(
        ids, edits=[replace("attn_out.0", 2.0), scale("attn_out.0", 3.0)], keep=["attn_out.0"]
    )
    assert bool((run["attn_out.0"] == 6).all())


def test_edits_print_as_one_would_write_them() -> None:
    assert str(ablate("head_out.9.6")) == 'ablate("head_out.9", "zero", index=[6])'
    assert str(add("resid_post.6", torch.ones(4), position="S2")) == (
        "add(\"resid_post.6\", value, position=['S2'])"
    )


BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: ablate("resid_past.3"), "There is no site 'resid_past.3'; did you mean 'resid_post'"),
    (lambda: ablate("resid_post"), "needs a layer, for example 'resid_post.0'"),
    (lambda: ablate("logits.3"), "exists once per model"),
    (lambda: ablate("z.a"), "is not a site"),
    (lambda: ablate("resid_pre.0.3"), "has no parts to index"),
    (lambda: ablate("resid_pre.0", head=1), "has no heads or neurons"),
    (lambda: ablate("z.0.1", head=2), "name the head or neuron once"),
    (lambda: ablate("z.0", head=[]), "selects nothing"),
    (lambda: ablate("z.0", "median"), "There is no ablation 'median'"),  # type: ignore[arg-type]
    (lambda: replace("z.0"), "either a value or a run"),
    (lambda: project_out("z.0", torch.zeros(8)), "finite and not zero"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_impossible_edits_are_refused_when_made(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(SiteError, match=message):
        make()


def test_edits_that_match_nothing_are_refused_before_running(
    opened: Open, ids: torch.Tensor
) -> None:
    model = opened("llama-grouped")
    run = model.run(ids, keep=["z.0"])
    shorter = model.run(ids[:, :5], keep=["z.0"])
    bad = [
        (ablate("z.7"), "layers 0 to 1; the nearest is 'z.1'"),
        (ablate("z.0.4"), "4 entries along 'head'; the last is 'z.0.3'"),
        (ablate("k.0.2"), "2 entries along 'kv_head'"),
        (ablate("mlp_post.0.48"), "48 entries along 'neuron'; the last is 'mlp_post.0.47'"),
        (ablate("router.0"), "has no mixture of experts"),
        (ablate("pos_embed"), "positions are not an embedding"),
        (ablate("z.0", position="S2"), "no position labelled 'S2' .known labels: none"),
        (ablate("z.0", position=9), "the shortest has 9 tokens, so positions run from -9 to 8"),
        (ablate("z.0", row=3), "Row 3 does not exist: the batch has 3 prompts"),
        (ablate("z.0", key_position=1), "has no key positions"),
        (replace("z.1", from_=run), "did not keep 'z.1' .it kept z.0.; run it with keep="),
        (replace("z.0", from_=shorter), "do not line up"),
        (add("z.0", torch.ones(5)), r"has the shape \(5,\), which does not broadcast"),
        (apply("z.0", lambda x: x[0]), "return one of the same shape"),
    ]
    for edit, message in bad:
        with pytest.raises(SiteError, match=message):
            model.run(ids, edits=[edit])
    with pytest.raises(SiteError, match="did you mean 'S2'"):
        labelled = pad(ids.tolist(), pad_id=0, labels={"S2": [1, 1, 1]})
        model.run(labelled, edits=[ablate("z.0", position="S3")])
    with pytest.raises(SiteError, match="matches no site"):
        model.run(ids, keep=[lambda site: site.kind == "nowhere"])
    with pytest.raises(SiteError, match="did not keep 'q.0'"):
        run["q.0"]


def test_a_parallel_layer_says_why_it_has_no_middle(opened: Open, ids: torch.Tensor) -> None:
    with pytest.raises(SiteError, match="read the same stream side by side"):
        opened("gptj").run(ids, keep=["resid_mid.0"])


def test_an_edit_that_gives_weight_to_too_many_experts_is_refused(
    opened: Open, ids: torch.Tensor
) -> None:
    model = opened("mixtral")
    with pytest.raises(
        SiteError, match="gives weight to 4 experts of one token, but the layer mixes 2"
    ):
        model.run(ids, edits=[replace("router.0", 0.25)])
    only = torch.zeros(4)
    only[3] = 1.0
    run = model.run(ids, edits=[replace("router.0", only)], keep=["router.0"])
    assert torch.equal(run["router.0"], only.expand(3, 9, 4))
