"""Roles in a behaviour: planted heads found, their numbers by hand, none in untrained models."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.observe import planted

import cutaway
from cutaway.behaviours import Behaviour
from cutaway.errors import InputError
from cutaway.model import Model, open_model
from cutaway.model.edits import replace
from cutaway.model.tiny import tiny
from cutaway.observe import Detected, attribute_sources, confirm, detect, detect_roles
from cutaway.observe.detectors import repeated
from cutaway.observe.roles import ROLES, occurrences, predicted_before
from cutaway.organisms import Organism, constructed, trained

Found = set[tuple[str, str]]
made = cache(lambda name: getattr(planted, name)())


def named(found: Detected) -> Found:
    return {(str(row.relation), f"{row.layer}.{row.head}") for row in found.heads().itertuples()}


# ── planted heads ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("by_value", {("S-inhibition", "0.0"), ("name mover", "1.1")}),
        ("by_place", {("S-inhibition", "1.0"), ("name mover", "2.1")}),
        ("by_both", {("S-inhibition", "1.0"), ("name mover", "2.1")}),
    ],
)
def test_the_planted_roles_are_found_and_no_others(name: str, expected: Found) -> None:
    found = detect_roles(made(name), planted.objects(made(name)))
    assert named(found) == expected
    assert not found.left_out
    assert (found.heads()["p"] < 0.01).all()


def test_a_head_that_takes_back_what_is_predicted() -> None:
    model = made("suppressing")
    rows = planted.last_name(model)
    found = detect_roles(model, rows)
    assert named(found) == {
        ("name mover", "0.0"), ("negative name mover", "1.1"), ("copy suppression", "1.1"),
    }  # fmt: skip
    assert found.left_out == (
        "S-inhibition: no prompt of 'last name' has a wrong answer that is said twice before its "
        "end.",
    )
    suppressed = confirm(model, rows, "1.1", "copy suppression")
    logits = rows.end_logits(model.run(rows.clean).logits)
    right = torch.tensor([answer[0] for answer in rows.answers])[:, None]
    # Without that head the answer's logit is twice as large, and nothing else changes.
    doubled = logits.scatter_add(1, right, logits.gather(1, right) - logits.min())
    known = [x.log_softmax(1).gather(1, right).mean() for x in (logits, doubled)]
    assert suppressed.change == pytest.approx(float(known[0] - known[1]), abs=2e-3)
    assert suppressed.expected == -1
    assert suppressed.as_expected


def test_an_induction_head_moves_the_answer_whatever_its_name() -> None:
    organism = constructed("induction", n=24)
    found = detect_roles(organism.model, organism.behaviour, roles=["name mover"])
    assert named(found) == {("name mover", "1.0")}


@pytest.mark.parametrize("make", [constructed, trained])
def test_an_induction_circuit_is_found_whole_in_built_and_in_trained_weights(
    make: Callable[..., Organism],
) -> None:
    assert named(detect(make("induction", n=4).model)) == {
        ("previous token", "0.1"), ("induction", "1.0"),
    }  # fmt: skip


@pytest.mark.parametrize(
    "relation",
    ["previous token", "current token", "first token", "duplicate token", "same letter"],
)
def test_every_relation_is_found_where_it_was_planted(relation: str) -> None:
    model = planted.looking(relation)
    assert named(detect(model)) == {(relation, "0.1")}


def test_each_role_is_confirmed_in_its_direction() -> None:
    model = made("by_value")
    pairs = planted.objects(model)
    for head, role in (("1.1", "name mover"), ("0.0", "S-inhibition")):
        lost = confirm(model, pairs, head, role)
        assert lost.as_expected
        assert lost.change == pytest.approx(lost.clean, rel=0.4)
    # The same cut, expected to do the opposite.
    assert not confirm(model, pairs, "1.1", "negative name mover").as_expected
    idle = confirm(model, pairs, "0.2", "name mover")
    assert idle.change == pytest.approx(0, abs=1e-3)


# ── the numbers by hand ──────────────────────────────────────────────────────────────────────


def test_score_and_effect_are_those_of_patterns_and_shares(
    opened: Callable[[str], Model],
) -> None:
    model = opened("llama")
    rows = repeated(model, n=9, seed=3)
    found = detect_roles(model, rows, roles=["name mover"], batch_size=4)
    width = rows.clean.ids.shape[1]
    pattern = model.run(rows.clean, keep=["pattern.1"])["pattern.1"]
    shares = attribute_sources(model, rows, positions=list(range(width))).values
    for row in range(len(rows)):
        ids = rows.clean.ids[row].tolist()
        said = [at for at in range(width - 1) if ids[at] in rows.answers[row]]
        wrong = [at for at in range(width - 1) if ids[at] in rows.wrong_answers[row]]
        assert said
        score = pattern[row, :, -1, said].sum(dim=1)
        effect = shares.isel(example=row, position=[*said, *wrong]).sum("position")
        at = {"example": row, "relation": 0}
        np.testing.assert_allclose(found.values.isel(at).sel(layer=1), score, rtol=1e-4)
        np.testing.assert_allclose(found.effect.isel(at), effect, rtol=1e-3, atol=1e-6)


def test_inhibition_is_what_the_movers_lose() -> None:
    model = made("by_value")
    pairs = planted.objects(model)
    found = detect_roles(model, pairs, roles=["S-inhibition"])
    cut = replace("pattern.0", 0.0, head=0, position="end", key_position="S2")
    before, after = (
        model.run(pairs.clean, keep=["pattern.1"], edits=edits)["pattern.1.1"]
        for edits in ((), (cut,))
    )
    row, at = torch.arange(len(pairs)), pairs.clean.labels
    moved = (before - after)[row, at["end"]]
    known = moved[row, at["IO"]] - moved[row, at["S1"]] - moved[row, at["S2"]]
    effect = found.effect.sel(relation="S-inhibition", layer=0, head=0)
    np.testing.assert_allclose(effect, known, atol=1e-5)
    # Measured only where a head attends enough, and before the mover.
    assert np.isnan(found.effect.sel(layer=1)).all()


def test_what_is_predicted_is_the_likeliest_token_of_the_prompt(
    opened: Callable[[str], Model], pairs: Behaviour
) -> None:
    model = opened("gpt2")
    logits = predicted_before(model, pairs, 1)
    assert logits is not None
    assert predicted_before(model, pairs, 0) is None
    looked = ROLES["copy suppression"].look(pairs, logits)
    for row in range(len(pairs)):
        first, last = int(pairs.clean.first[row]), int(pairs.clean.last[row])
        ids = pairs.clean.ids[row].tolist()
        inside = [ids[at] for at in range(first, last) if ids[at] != ids[last]]
        best = max(inside, key=lambda token: float(logits[row, token]))
        rank = int((logits[row] > logits[row, best]).sum())
        expected = [at for at in range(first, last) if ids[at] == best] if rank < 9 else []
        assert looked.keys[row].nonzero()[:, 0].tolist() == expected


def test_occurrences_come_before_the_end_and_never_in_padding() -> None:
    rows = Behaviour.from_tokens(
        [[7, 5, 7], [7, 8, 9, 7, 7]], [[7, 5, 7], [7, 8, 9, 7, 7]],
        answers=[7, 7], wrong_answers=[5, 8], padding="left",
    )  # fmt: skip
    found = occurrences(rows, rows.answers)
    assert found.tolist() == [
        [False, False, True, False, False], [True, False, False, True, False]
    ]  # fmt: skip


# ── where there is nothing ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("family", ["gpt2", "llama", "gptj", "bloom", "gemma2", "gpt_oss"])
def test_untrained_models_have_no_such_heads(family: str) -> None:
    for seed in range(4):
        model = open_model(tiny(family, seed=seed))
        assert detect(model, seed=seed).heads().empty
        assert detect_roles(model, repeated(model, seed=seed), seed=seed).heads().empty


def test_the_shipped_model_copies_no_name_from_where_it_stood() -> None:
    model = cutaway.open()
    found = detect_roles(model, cutaway.behaviour("ioi", model, n=32))
    assert not {each for each, _ in named(found)} & {"name mover", "S-inhibition"}
    assert "no name mover was found" in " ".join(found.left_out)


def test_chance_of_places_is_what_a_family_does_by_itself(opened: Callable[[str], Model]) -> None:
    model = opened("bloom")
    rows = repeated(model, n=3)
    found = detect(model, rows, relations=["current token"])
    width = rows.clean.ids.shape[1]
    for head in range(4):
        slope = 2.0 ** (-2.0 * (head + 1))  # ALiBi's slopes for four heads
        own = [1 / sum(np.exp(-slope * back) for back in range(q + 1)) for q in range(width)]
        np.testing.assert_allclose(found.chance.sel(head=head), np.mean(own), rtol=1e-4)


def test_saved_and_refused(
    opened: Callable[[str], Model], pairs: Behaviour, tmp_path: Path
) -> None:
    model = opened("gpt2")
    found = detect_roles(model, repeated(model, n=12))
    again = Detected.load(found.save(tmp_path / "roles.nc"))
    assert again.to_dataset().identical(found.to_dataset())
    assert again.left_out == found.left_out
    assert any("S-inhibition" in sentence for sentence in found.left_out)
    with pytest.raises(InputError, match="no role 'mover'; choose one of name mover"):
        detect_roles(model, pairs, roles=["mover"])
    with pytest.raises(InputError, match="No role was named"):
        detect_roles(model, pairs, roles=[])
    with pytest.raises(InputError, match="no prompt of 'tokens' has its answer before its end"):
        detect_roles(model, pairs, roles=["name mover"])
    with pytest.raises(InputError, match="no prompt of 'tokens' has its answer"):
        confirm(model, pairs, "0.1", "name mover")
    with pytest.raises(InputError, match="no relation or role 'mover'"):
        confirm(model, pairs, "0.1", "mover")
    with pytest.raises(InputError, match="No prompt has what 'copy suppression' looks at"):
        confirm(model, pairs, "0.1", "copy suppression")
