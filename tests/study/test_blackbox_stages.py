"""The black box's stages in a study: their sections, and what prompts do not allow."""

from __future__ import annotations

from html import unescape
from pathlib import Path

import numpy as np
import pytest

import cutaway
from cutaway.behaviours import Behaviour
from cutaway.model import Model
from cutaway.study import PLAN, Plan, Settings, Skipped, Study, flips, insertions, run
from cutaway.study.blackbox_section import AROUND, BREAKS, COMMON, SURE
from cutaway.study.words import with_ends
from cutaway.views.text import number

STAGES = ("blackbox", "distractors", "flips", "frequency")


@pytest.fixture(scope="module")
def model() -> Model:
    """The shipped model, which knows the words of the neutral sentences."""
    return cutaway.open()


@pytest.fixture(scope="module")
def behaviour(model: Model) -> Behaviour:
    return cutaway.behaviour("ioi", model, n=12)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return PLAN.only(*STAGES, "report")


def page(study: Study) -> str:
    return unescape(study.report.read_text("utf-8"))


@pytest.fixture(scope="module")
def study(
    model: Model, behaviour: Behaviour, plan: Plan, quick: Settings,
    tmp_path_factory: pytest.TempPathFactory,
) -> Study:  # fmt: skip
    out = tmp_path_factory.mktemp("outside") / "study"
    return run(model, behaviour, out, plan=plan, settings=quick)


def test_a_study_measures_what_the_functions_do(
    study: Study, model: Model, behaviour: Behaviour, quick: Settings
) -> None:
    alone = insertions(model, behaviour, examples=quick.distractor_examples)
    assert study.distractors.values.equals(alone.values)
    found = flips(model, behaviour, examples=quick.flip_examples, passes=quick.flip_passes)
    assert study.flips.found == found.found
    assert study.flips.levels == found.levels


def test_the_page_says_what_was_found(study: Study) -> None:
    text = page(study)
    for heading in (SURE, AROUND, BREAKS, COMMON):
        assert heading in text
    error = study.blackbox.calibration().error
    assert f"apart by {number(float(error.mean), 3)} on average" in text
    first = study.distractors.names[1]
    assert with_ends(study.distractors.change("logit_diff", first)) in text
    for level in study.flips.levels:
        assert f"{level.tried:,}" in text
    for flip in study.flips.found:
        assert flip.before in text
        for slot, (_, after) in flip.edit.items():
            assert f"{slot}: " in text
            assert after in text or not after


def test_calibration_is_that_of_the_probabilities(
    study: Study, model: Model, behaviour: Behaviour
) -> None:
    box = study.blackbox
    probability = behaviour.end_logits(model.run(behaviour.clean).logits).double().softmax(-1)
    for row in range(len(behaviour)):
        right, wrong = behaviour.answers[row][0], behaviour.wrong_answers[row][0]
        assert float(box.answer_probability[row]) == pytest.approx(float(probability[row, right]))
        assert float(box.wrong_probability[row]) == pytest.approx(float(probability[row, wrong]))
        assert bool(box.top_right[row]) == (int(probability[row].argmax()) == right)
    right, wrong = box.answer_probability.to_numpy(), box.wrong_probability.to_numpy()
    found = box.calibration()
    # twelve prompts are one bin
    assert found.confidence == pytest.approx([(np.maximum(right, wrong) / (right + wrong)).mean()])
    # between one right and one wrong answer, the surer side is the larger logit's
    assert sum(float(each.mean) * int(each.n) for each in found.accuracy) == pytest.approx(
        box.each("accuracy").sum()
    )


def test_prompts_of_ones_own_are_studied_without_slots(
    model: Model, plan: Plan, quick: Settings, tmp_path: Path
) -> None:
    names = ["Mary", "John", "Tom", "Anna"]
    own = Behaviour.from_pairs(
        [f"When {name} went to the store, Paul gave a drink to" for name in names],
        [f"When Paul went to the store, {name} gave a drink to" for name in names],
        [f" {name}" for name in names], [" Paul"] * 4, model.tokenizer, name="own",
    )  # fmt: skip
    found = run(model, own, tmp_path / "study", plan=plan, settings=quick)
    assert isinstance(found.results["flips"], Skipped)
    assert "written by hand" in found.results["flips"].reason
    assert found.distractors.names[0] == "none"
    text = page(found)
    assert f"Not done: {found.results['flips'].reason}" in text
    assert AROUND in text


def test_prompts_of_tokens_say_what_they_do_not_allow(
    model: Model, plan: Plan, quick: Settings, tmp_path: Path
) -> None:
    clean, corrupt = ([[row + 5, 7 + side, 9] for row in range(5)] for side in (0, 1))
    tokens = Behaviour.from_tokens(clean, corrupt, answers=[11] * 5, wrong_answers=[12] * 5)
    found = run(model, tokens, tmp_path / "study", plan=plan, settings=quick)
    skipped = {name: one.reason for name, one in found.results.items() if isinstance(one, Skipped)}
    assert set(skipped) == {"distractors", "flips", "frequency"}
    assert "tokens that their texts do not give" in skipped["distractors"]
    assert "fewer than 8 different words" in skipped["frequency"]
    assert all(f"{reason}" in page(found) for reason in skipped.values())
    assert SURE in page(found)
