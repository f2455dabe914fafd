"""The circuit stages: what they choose, on which prompts, and what they say when they cannot."""

from __future__ import annotations

from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from cutaway.behaviours import Behaviour
from cutaway.circuits import curve, discover
from cutaway.errors import StudyError
from cutaway.model import Model
from cutaway.study import Settings, Skipped, Study, run
from cutaway.study import circuit_sentences as say
from cutaway.study.discovery import shares, sides
from cutaway.study.stage import Inputs, SkippedError
from cutaway.views.text import p_value


def inputs(model: Model, behaviour: Behaviour, settings: Settings) -> Inputs:
    return Inputs(
        model=model, behaviour=behaviour, settings=settings, results={}, origin={},
        tick=lambda _done, _of: None,
    )  # fmt: skip


def test_the_circuit_is_found_on_training_prompts_and_checked_on_the_others(
    whole: Study, model: Model, behaviour: Behaviour
) -> None:
    train, held_out = behaviour.split("train"), behaviour.split("held-out")
    found, checked = whole.discovery, whole.evaluation
    scores = discover(model, train, "eap-ig")
    np.testing.assert_allclose(found.scores.values, scores.values, atol=1e-5)
    again = curve(model, held_out, found.scores, sizes=shares(found.circuit))
    np.testing.assert_allclose(checked.sizes.values, again.values, atol=1e-5)
    assert checked.n == len(held_out)
    assert checked.circuit.circuit.edges == found.circuit.edges


def test_the_circuit_is_one_of_the_sizes_and_keeps_what_was_asked(whole: Study) -> None:
    found = whole.discovery
    here = found.sizes.faithfulness.isel(share=found.at)
    assert float(here["low"]) >= 0.9
    assert float(here["high"]) <= 1.1
    assert found.stability.circuit.edges == found.circuit.edges
    strongest = found.scores.top(len(found.circuit))["edge"]
    assert set(strongest) == {str(edge) for edge in found.circuit.edges}


def test_prompts_are_split_where_none_are_held_out(
    model: Model, behaviour: Behaviour, quick: Settings
) -> None:
    one_side = replace(behaviour, held_out=(False,) * len(behaviour))
    train, rest = sides(inputs(model, one_side, quick))
    assert sorted(train.clean_texts + rest.clean_texts) == sorted(behaviour.clean_texts)
    assert not set(train.clean_texts) & set(rest.clean_texts)
    few = replace(quick, discovery_examples=2, evaluation_examples=1)
    assert [len(side) for side in sides(inputs(model, one_side, few))] == [2, 1]
    with pytest.raises(SkippedError, match="single pair"):
        sides(inputs(model, behaviour.rows([0]), quick))


def test_the_page_says_what_the_circuit_keeps(whole: Study) -> None:
    page = unescape(whole.report.read_text("utf-8"))
    found, checked = whole.discovery, whole.evaluation
    assert say.discovered(found, 0.9) in page
    assert say.stable(found) in page
    assert say.held_out(checked) in page
    assert say.ratio(checked.circuit.faithfulness) in say.held_out(checked)
    assert f"{len(found.circuit)} of {len(found.circuit.graph)} edges" in page
    one = checked.circuit
    written = {
        "prefers": f"prefers the right answers by {say.ratio(one.preference)} logits",
        "faithful": f"faithfulness {say.ratio(one.faithfulness)}, to lie within 0.8 and 1.2",
        **{test.name: f"{p_value(test.p)} if {test.null}" for test in one.background},
    }
    assert set(written) < set(one.checks)
    for name, check in one.checks.items():
        assert written.get(name, check.says) in page


def test_what_cannot_have_a_circuit_is_skipped_with_its_reason(
    model: Model, behaviour: Behaviour, quick: Settings, tmp_path: Path
) -> None:
    same = replace(behaviour, corrupt=behaviour.clean.rows(range(len(behaviour))))
    wanted = ["evaluation", "report"]
    found = run(model, same, tmp_path / "study", settings=quick, stages=wanted)
    skipped = found.results["discovery"]
    assert isinstance(skipped, Skipped)
    assert "total effect of about zero" in skipped.reason
    assert found.manifest.stages["evaluation"].status == "skipped"
    assert f"Not done: {skipped.reason}" in unescape(found.report.read_text("utf-8"))
    with pytest.raises(StudyError, match="'discovery' was skipped: The behaviour"):
        _ = found.discovery
    again = run(model, same, tmp_path / "study", settings=quick, stages=wanted)
    assert again.computed == ()
    assert again.results["evaluation"] == replace(skipped, stage="evaluation")
