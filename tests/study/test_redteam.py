"""Attacks whose answer is known: margins by hand, planted biases, models with nothing in them."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest

import cutaway
from cutaway.behaviours import Behaviour
from cutaway.behaviours.shuffle import other_answers
from cutaway.circuits import Circuit, Masked
from cutaway.circuits.faithfulness import Measured
from cutaway.errors import BehaviourError
from cutaway.model import Model
from cutaway.study import Settings, Study, run
from cutaway.study.attacks import Target, attacks, keeps
from cutaway.study.boring import frequency, groups, position, preferences
from cutaway.study.nothing import search, twin
from cutaway.study.redteam_section import verdict
from cutaway.study.verdict import Attack, RedTeam, holm, settled


def attack(margins: list[float], **fields: str) -> Attack:
    return Attack(kind="", name=fields.get("name", ""), found="", margins=np.array(margins))


def test_holm_is_its_definition() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_an_attack_is_decided_by_its_margins_and_all_attacks_together() -> None:
    up, down, noise = [1.0] * 12, [-1.0] * 12, [1.0, -1.0] * 6
    found = settled([attack(up), attack(down), attack(noise), attack([])])
    outcomes = [one.outcome for one in found]
    assert outcomes == ["survives", "fails", "undecided", "not applicable"]
    assert found[0].p == pytest.approx(2 / 2**12)
    assert found[0].p_corrected == pytest.approx(3 * 2 / 2**12)
    barely = [1.0] * 6
    assert settled([attack(barely)])[0].outcome == "survives"
    assert settled([attack(barely), attack(barely)])[0].outcome == "undecided"


def test_a_verdict_is_saved_whole(tmp_path: Path) -> None:
    first = settled([attack([0.5] * 8, name="a"), attack([1.0, 2.0], name="b")])
    found = RedTeam(attacks=first, provenance={"seed": 0})
    again = RedTeam.load(found.save(tmp_path / "redteam.nc"))
    assert [one.name for one in again.attacks] == ["a", "b"]
    assert again.attacks[1].margins.tolist() == [1.0, 2.0]
    assert again.attacks[0].p_corrected == first[0].p_corrected
    assert verdict(again) == "Of 2 attacks the finding survives 1; it leaves open 1 (“b”)."


@pytest.fixture(scope="module")
def target(model: Model, behaviour: Behaviour) -> Target:
    on = Masked(model)
    return Target(
        on=on, circuit=Circuit(graph=on.graph, kept=on.graph.valid), held_out=behaviour,
        metric="logit_diff", n=6, seed=0,
    )  # fmt: skip


def test_the_whole_model_keeps_everything_and_nothing_keeps_nothing(target: Target) -> None:
    whole = keeps(target, target.held_out)
    assert whole.effect == pytest.approx(1, abs=1e-4)
    assert whole.margins.mean() > 0
    none = replace(target.circuit, kept=np.zeros_like(target.circuit.kept))
    empty = keeps(target, target.held_out, circuit=none)
    assert empty.effect == pytest.approx(0, abs=1e-4)
    assert empty.margins.mean() < 0


@pytest.mark.parametrize(("kept", "survives"), [(0.5, False), (1.0, True), (1.5, False)])
@pytest.mark.parametrize("sign", [1, -1])
def test_too_much_is_no_more_faithful_than_too_little(
    target: Target, monkeypatch: pytest.MonkeyPatch, kept: float, survives: bool, sign: int
) -> None:
    noise = np.random.default_rng(0).normal(scale=0.1, size=10)
    ablated, clean = noise - sign, noise + sign
    found = Measured(
        values=(ablated + kept * (clean - ablated))[None], clean=clean, ablated=ablated,
        preference=np.zeros((10, 10)),
    )  # fmt: skip
    monkeypatch.setattr("cutaway.study.attacks.measured", lambda *_, **__: found)
    one = keeps(target, target.held_out)
    assert one.effect == pytest.approx(kept)
    assert settled([one])[0].outcome == ("survives" if survives else "fails")


def test_every_variation_of_the_generator_is_tried(target: Target) -> None:
    names = [name for _, name, _ in attacks(target)]
    assert {"order: ABBA", "corruption: ABC", "distractor: name", "names: mixed"} <= set(names)
    assert "the circuit of gendered-pronouns must not do it" in names
    assert not any("circuit of ioi" in name for name in names)
    make = next(make for _, name, make in attacks(target) if name == "order: BABA")
    assert "6 prompts" in make().found


def test_preferences_are_the_metric_on_their_diagonal(
    whole: Study, model: Model, behaviour: Behaviour
) -> None:
    found = preferences(model, behaviour)
    np.testing.assert_allclose(np.diag(found), whole.blackbox.each("logit_diff"), atol=1e-4)


def test_a_preference_for_frequent_answers_is_no_behaviour() -> None:
    liked = np.tile(np.array([3.0, 3, 3, 1, 1, 1]), (6, 1))
    assert frequency(liked).effect == pytest.approx(0)
    assert frequency(liked + np.eye(6)).effect == pytest.approx(1)


def test_a_preference_for_what_is_named_first_fails_where_it_is_named_last(
    model: Model,
) -> None:
    pairs = cutaway.behaviour("ioi", model, n=40, seed=0)
    order = np.array([1.0 if each == "ABBA" else -1.0 for each in pairs.variations["order"]])
    assert position(pairs, order, first=True).margins.mean() == 1
    assert position(pairs, order, first=False).margins.mean() == -1
    with pytest.raises(BehaviourError, match="Only 0 prompts name both"):
        position(replace(pairs, answers=((0,),) * 40), order, first=True)


def test_groups_count_once_however_many_prompts_they_have() -> None:
    names = ["common"] * 90 + list("abcdef")
    each = np.array([5.0] * 90 + [-1.0] * 6)
    found = groups(each, names, "answer")
    assert found.effect == pytest.approx((5 - 6) / 7)
    assert "above zero for 1 of 7" in found.found
    with pytest.raises(BehaviourError, match="1 different values of template"):
        groups(each, ["one"] * 96, "template")


def test_a_twin_has_the_same_shape_and_other_weights(model: Model) -> None:
    before = model.fingerprint
    one, again, other = twin(model, 0), twin(model, 0), twin(model, 1)
    assert one.fingerprint == again.fingerprint != other.fingerprint
    assert one.fingerprint != before == model.fingerprint
    assert (one.n_layers, one.n_heads, one.d_vocab) == (
        model.n_layers, model.n_heads, model.d_vocab,
    )  # fmt: skip


def test_shuffled_answers_are_those_of_others(behaviour: Behaviour) -> None:
    found = other_answers(behaviour, random.Random(0))
    pairs = list(zip(behaviour.answers, behaviour.wrong_answers, strict=True))
    assert sorted(zip(found.answers, found.wrong_answers, strict=True)) == sorted(pairs)
    assert found.clean_texts == behaviour.clean_texts
    assert found.answers != behaviour.answers


def test_nothing_is_found_in_random_weights(model: Model, behaviour: Behaviour) -> None:
    train, check = behaviour.split("train"), behaviour.split("held-out")
    found = search(model, train, check, metric="logit_diff", kept=0.9, seed=0)
    assert found.outcome == "survives"
    assert "fail" in found.found or "nothing" in found.found


def test_the_page_has_every_attack(whole: Study) -> None:
    # parts that a sentence names are marked in it
    page = unescape(re.sub("</?span[^>]*>", "", whole.report.read_text("utf-8")))
    assert verdict(whole.redteam) in page
    for one in whole.redteam.attacks:
        assert one.found in page
    assert {one.kind for one in whole.redteam.attacks} == {
        "prompts", "ablation", "metric", "seed", "other behaviour", "backups",
        "boring explanation", "control",
    }  # fmt: skip


def test_prompts_of_ones_own_are_attacked_without_a_generator(
    model: Model, behaviour: Behaviour, quick: Settings, tmp_path: Path
) -> None:
    own = replace(behaviour, provenance={"source": "pairs"}, name="mine")
    found = run(model, own, tmp_path / "study", settings=quick, stages=["redteam"]).redteam
    kinds = {one.kind for one in found.attacks}
    assert not {"prompts", "seed"} & kinds
    assert {"ablation", "control", "boring explanation"} <= kinds
