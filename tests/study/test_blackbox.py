"""The black box against a calculation prompt by prompt, and against figures measured by others."""

from pathlib import Path

import numpy as np
import pytest
from small_model import SHARED

import cutaway
from cutaway.behaviours import Behaviour
from cutaway.model import Model
from cutaway.study import BlackBox, Settings, run


@pytest.fixture(scope="module")
def box(
    model: Model, behaviour: Behaviour, quick: Settings, tmp_path_factory: pytest.TempPathFactory
) -> BlackBox:
    out = tmp_path_factory.mktemp("blackbox") / "study"
    return run(model, behaviour, out, stages=["blackbox"], settings=quick).blackbox


def test_each_prompt_alone_gives_the_same(
    box: BlackBox, model: Model, behaviour: Behaviour
) -> None:
    for row in range(len(behaviour)):
        ids = behaviour.clean.row_ids(row)
        logits = model.run(behaviour.clean.rows([row])).logits[0, len(ids) - 1]
        right, wrong = behaviour.answers[row][0], behaviour.wrong_answers[row][0]
        gap = float(logits[right] - logits[wrong])
        assert box.each("logit_diff")[row] == pytest.approx(gap, abs=1e-4)
        assert box.each("accuracy")[row] == float(gap > 0)
        assert int(box.top_id[row]) == int(logits.argmax())
        probability = logits.softmax(-1)
        expected = float(probability[right] - probability[wrong])
        assert box.each("prob_diff")[row] == pytest.approx(expected, abs=1e-5)


def test_corrupt_prompts_are_measured_with_the_clean_answers(
    box: BlackBox, model: Model, behaviour: Behaviour
) -> None:
    logits = behaviour.end_logits(model.run(behaviour.corrupt).logits)
    right, wrong = behaviour.answers[0][0], behaviour.wrong_answers[0][0]
    expected = float(logits[0, right] - logits[0, wrong])
    assert box.each("logit_diff", "corrupt")[0] == pytest.approx(expected, abs=1e-4)


def test_intervals_hold_the_mean_and_split_by_held_out(box: BlackBox, behaviour: Behaviour) -> None:
    found = box.interval("logit_diff")
    assert found.low < found.mean < found.high
    kept = np.array(behaviour.held_out)
    assert box.n_held_out == kept.sum()
    if kept.any():
        expected = box.each("logit_diff")[kept].mean()
        assert box.interval("logit_diff", held_out=True).mean == pytest.approx(expected)


@pytest.mark.skipif(not SHARED.exists(), reason="the shared model and data are not here")
def test_accuracy_on_stories260k_is_the_figure_measured_by_others(tmp_path: Path) -> None:
    model = cutaway.open(SHARED / "models/stories260k")
    pairs = Behaviour.from_csv(SHARED / "data/pronouns_stories260k.csv", model.tokenizer)
    box = run(model, pairs, tmp_path / "study", stages=["blackbox"]).blackbox
    assert box.each("accuracy").sum() == 95
    assert box.each("logit_diff").mean() == pytest.approx(2.44, abs=0.005)
    assert (box.each("accuracy", "corrupt") == 0).sum() == 95
    assert box.each("logit_diff", "corrupt").mean() == pytest.approx(-2.42, abs=0.005)
