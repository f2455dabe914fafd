"""Two studies held together: the same is the same, chance is chance, and what differs is named."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_model import save_model

import cutaway
from cutaway.behaviours import Behaviour
from cutaway.errors import StudyError
from cutaway.model import Model
from cutaway.study import Settings, Study, compare, read_study, run
from cutaway.study.comparison import Heads, Measure, StudyComparison, Verdicts
from cutaway.study.comparison_page import save_comparison
from cutaway.study.contrast import contrast, correlation

STAGES = ["blackbox", "attribution", "patching", "discovery"]


@pytest.fixture(scope="module")
def other(quick: Settings, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The same behaviour in a model with other weights."""
    directory = tmp_path_factory.mktemp("other")
    model = cutaway.open(save_model(directory / "other", seed=1))
    pairs = cutaway.behaviour("ioi", model, n=10, seed=0)
    return run(model, pairs, directory / "study", settings=quick, stages=STAGES)


def test_a_study_beside_itself_differs_in_nothing(whole: Study, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(whole.directory, tmp_path / "copy"))
    found = compare(whole, copy)
    assert found.names == ("study", "copy")
    assert found.differs == ()
    assert all(each.p == 1 or np.isnan(each.p) for each in found.measures)
    assert [each.name for each in found.measures] == [
        "accuracy", "logit difference", "probability difference", "kept by the circuit, held out",
    ]  # fmt: skip
    assert all(each.one == each.other for each in found.measures)
    assert found.circuits is not None
    assert found.circuits["similarity"].tolist() == [1.0, 1.0]
    assert all(each.one == each.other for each in (*found.roles, *found.attacks))
    assert "came out the same" in str(found)


def test_two_models_are_held_together_head_by_head(whole: Study, other: Study) -> None:
    found = compare(whole.directory, other.directory)
    assert found.names == ("ioi in small", "ioi in other")
    assert any(each.startswith("its model is small") for each in found.differs)
    first = found.measures[1]
    assert first.difference[0] == pytest.approx(first.one[0] - first.other[0])
    assert first.difference[1] <= first.difference[0] <= first.difference[2]
    # the same prompts, so examples are compared with themselves
    own, others = (study.blackbox.each("logit_diff") for study in (whole, other))
    apart = contrast(own[None], others[None], paired=True)
    assert first.difference[1:] == pytest.approx((apart.low[0], apart.high[0]))
    assert found.left_out["attacks"] == (
        "ioi in other has no result of the stage 'redteam': it was not run."
    )
    back = compare(other, whole)
    assert back.measures[1].difference[0] == pytest.approx(-first.difference[0])


def test_behaviours_are_held_together_head_by_head(tmp_path: Path) -> None:
    model, settings = cutaway.open(), Settings(lens_examples=12, patch_examples=12)
    one, other = (
        run(model, cutaway.behaviour(name, model, n=12), tmp_path / name, settings=settings,
            stages=["attribution", "patching"])
        for name in ("ioi", "gendered-pronouns")
    )  # fmt: skip
    found = {each.name: each for each in compare(one, other).heads}
    moved = found["heads corrupted"]
    shares = [-(each.mean / each.gap).transpose("layer", "head").to_numpy().ravel()
              for each in (study.patching.heads_noise for study in (one, other))]  # fmt: skip
    np.testing.assert_allclose(moved.table["one"], shares[0])
    np.testing.assert_allclose(moved.table["difference"], shares[0] - shares[1], atol=1e-12)
    written = found["what heads write"]
    each = [study.attribution.heads.mean("example") / float(study.attribution.target.mean())
            for study in (one, other)]  # fmt: skip
    np.testing.assert_allclose(written.table["other"], each[1].to_numpy().ravel())
    # one writes the other name and no pronoun, one the pronoun and no name
    assert {"1.3", "4.0"} <= set(written.differing)
    assert abs(written.correlation[0]) < 0.5
    alone = compare(one, one)
    assert [each.correlation[0] for each in alone.heads] == pytest.approx([1, 1, 1])
    assert all(not each.differing for each in alone.heads)
    page = save_comparison(compare(one, other), tmp_path / "page.html").read_text("utf-8")
    assert "What heads write" in page
    assert "Heads corrupted" in page


def test_where_there_is_no_effect_there_are_no_shares(whole: Study, other: Study) -> None:
    found = compare(whole, other)  # three examples cannot show that corrupting does anything
    assert "not shown to change anything" in found.left_out["heads corrupted"]


def test_models_of_other_shapes_leave_heads_out(whole: Study, other: Study, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(other.directory, tmp_path / "wide"))
    record = json.loads((copy / "study.json").read_text("utf-8"))
    record["model"]["n_heads"] += 1
    (copy / "study.json").write_text(json.dumps(record), "utf-8")
    found = compare(whole, copy)
    assert found.heads == ()
    assert re.search(r"one model has 2 layers of \d heads and the other", found.left_out["heads"])


def test_studies_without_a_common_stage_are_refused_in_a_sentence(
    whole: Study, model: Model, behaviour: Behaviour, quick: Settings, tmp_path: Path
) -> None:
    lens = run(model, behaviour, tmp_path / "lens", settings=quick, stages=["lens"])
    with pytest.raises(StudyError, match=r"no stage in common .* the second nothing finished"):
        compare(whole, lens)
    with pytest.raises(StudyError, match="holds no study"):
        compare(whole, tmp_path / "nowhere")


def test_the_page_needs_nothing_else_and_names_are_inert(whole: Study, tmp_path: Path) -> None:
    found = compare(whole, Path(shutil.copytree(whole.directory, tmp_path / "a<b>")))
    page = save_comparison(found, tmp_path / "deep" / "page.html").read_text("utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert "a&lt;b&gt;" in page
    assert "a<b>" not in page
    assert not re.search(r"(src|href)=[\"']https?:", page)
    for heading in ("In numbers", "Circuits", "Attacks"):
        assert heading in page


# ── statistics ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("paired", [True, False])
def test_chance_is_found_as_often_as_it_should_be(paired: bool) -> None:
    draw, wrong = np.random.default_rng(0), 0
    for _ in range(200):
        one, other = draw.standard_normal((2, 5, 12))
        wrong += bool((contrast(one, other, paired=paired).p_corrected < 0.05).any())
    assert 0 < wrong <= 20  # of 200, at 5 % for all five cells together


@pytest.mark.parametrize("paired", [True, False])
def test_what_differs_is_found_and_its_interval_holds_it(paired: bool) -> None:
    draw = np.random.default_rng(1)
    one, other = draw.standard_normal((2, 4, 30))
    one[2] += 2
    apart = float(one[2].mean() - other[2].mean())
    found = contrast(one, other, paired=paired)
    assert found.p_corrected[2] < 0.01
    assert (np.delete(found.p_corrected, 2) > 0.05).all()
    assert found.difference[2] == pytest.approx(apart)
    assert found.low[2] < apart < found.high[2]
    assert found.low[2] > 0.5
    assert contrast(one, other[:, :20], paired=False).p_corrected[2] < 0.01


def test_sides_that_are_constant_and_apart_differ() -> None:
    """One study always right and the other never: nothing varies, and nothing is more apart."""
    one, other = np.array([[1.0] * 10, [3.7] * 10]), np.array([[0.0] * 12, [3.7] * 12])
    assert contrast(one, other, paired=False).p_corrected == pytest.approx([1 / 2000, 1])
    assert contrast(other, one, paired=False).p_corrected == pytest.approx([1 / 2000, 1])


def test_an_interval_that_holds_zero_is_written_so() -> None:
    def said(difference: tuple[float, float, float]) -> str:
        each = Measure(name="accuracy", one=(0.5, 0.4, 0.6), other=(0.7, 0.6, 0.8),
                       difference=difference, p=0.04)  # fmt: skip
        return str(
            StudyComparison(
                names=("before", "after"), differs=(), measures=(each,), heads=(), circuits=None,
                roles=(), attacks=(), left_out={},
            )
        )  # fmt: skip

    assert "more in after, by 0.20 (−0.10 to 0.50)." in said((-0.2, -0.5, 0.1))
    assert "more in before, by 0.20 (−0.10 to 0.50)." in said((0.2, -0.1, 0.5))


def test_a_single_example_says_nothing_of_chance() -> None:
    found = contrast(np.ones((3, 1)), np.zeros((3, 1)), paired=False)
    assert found.difference.tolist() == [1, 1, 1]
    assert np.isnan(found.p_corrected).all()
    assert np.isnan(found.low).all()


def test_the_correlation_is_pearsons_with_an_interval_around_it() -> None:
    draw = np.random.default_rng(2)
    truth = draw.standard_normal(25)
    one, other = (truth[:, None] + 0.5 * draw.standard_normal((25, 40)) for _ in range(2))
    whole, low, high = correlation(one, other, paired=False)
    assert whole == pytest.approx(np.corrcoef(one.mean(axis=1), other.mean(axis=1))[0, 1])
    assert 0.9 < low < high < 1
    assert np.isnan(correlation(np.ones((5, 3)), np.ones((5, 3)), paired=True)[0])
    assert np.isnan(correlation(one[:2], other[:2], paired=True)[0])


# ── what is printed ──────────────────────────────────────────────────────────────────────────


def test_what_differs_is_said_in_sentences() -> None:
    table = pd.DataFrame(
        {
            "head": ["0.0", "0.1", "0.2"], "one": [0.0, 0.5, 0.1], "other": [0.0, 0.1, 0.9],
            "difference": [0.0, 0.4, -0.8], "low": [0.0] * 3, "high": [0.0] * 3,
            "p": [1.0, 0.01, 0.001],
        }
    )  # fmt: skip
    found = StudyComparison(
        names=("before", "after"), differs=("its seed is 0 and not 1",),
        measures=(
            Measure(
                name="accuracy", one=(0.5, 0.4, 0.6), other=(0.9, 0.8, 1.0),
                difference=(-0.4, -0.5, -0.3), p=0.001,
            ),
        ),
        heads=(Heads(name="what heads write", correlation=(0.5, 0.4, 0.6), table=table),),
        circuits=None,
        roles=(Verdicts(about="x", one="supported", other="refuted"),
               Verdicts(about="y", one="supported", other="–")),
        attacks=(), left_out={"circuits": "there are none."},
    )  # fmt: skip
    text = str(found)
    assert "accuracy: more in after, by 0.40 (0.30 to 0.50)." in text
    assert "2 of 3 heads differ (most 0.2, 0.1)." in text
    assert "Of 1 roles that both tested, 0 came out the same." in text
    assert "Left out, circuits: there are none." in text
    assert found.rows()[0][-1] == "different"


def test_a_damaged_stage_is_left_out_with_its_reason(whole: Study, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(whole.directory, tmp_path / "copy"))
    (copy / "discovery.circuit.json").write_text("{}", "utf-8")
    found = compare(whole, read_study(copy))
    assert found.circuits is None
    assert "is not what was saved" in found.left_out["circuits"]
