"""The story of the shipped model, told right and told wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import cutaway
from cutaway.behaviours import Behaviour
from cutaway.circuits.septet import HYPOTHESES
from cutaway.model import Model
from cutaway.study import Settings, Skipped, run
from cutaway.study.scrubbing import ENOUGH, misread, verdict
from cutaway.study.scrubbing_section import section, summary


@pytest.fixture(scope="module")
def shipped() -> Model:
    return cutaway.open()


@pytest.mark.parametrize("name", HYPOTHESES)
def test_the_built_in_story_is_supported_and_the_wrong_one_refuted(
    shipped: Model, quick: Settings, tmp_path: Path, name: str
) -> None:
    pairs = cutaway.behaviour(name, shipped, n=4)
    found = run(shipped, pairs, tmp_path / "study", settings=quick, stages=["scrubbing"]).scrubbing
    assert verdict(found.claimed) == "supported"
    assert verdict(found.wrong) == "refuted"
    assert found.wrong.recovered.high < ENOUGH < found.claimed.recovered.low
    told = summary(found)
    assert ": supported. A wrong one recovers" in told
    assert told.endswith(": refuted.")
    table = section(found).table
    assert table is not None
    assert [row[0] for row in table.rows] == found.claimed.claims["claim"].tolist()
    between = replace(found.claimed, values=found.claimed.baseline)
    assert verdict(between) == "refuted"


def test_a_misread_story_has_the_same_parts_about_something_else() -> None:
    claim = HYPOTHESES["ioi"]
    found = misread(claim, "place of IO")
    assert [node.parts for node in found.nodes] == [node.parts for node in claim.nodes]
    assert [node.reads for node in found.nodes] == [node.reads for node in claim.nodes]
    assert {str(node.agrees) for node in found.nodes} == {"place of IO"}


def test_a_behaviour_or_model_without_a_story_is_skipped(
    shipped: Model, model: Model, behaviour: Behaviour, quick: Settings, tmp_path: Path
) -> None:
    capitals = cutaway.behaviour("capitals", shipped, n=2)
    own = replace(behaviour, provenance={"source": "pairs"}, name="mine")
    for on, pairs, said in (
        (shipped, capitals, "none about capitals in septet"),
        (model, behaviour, "none about ioi in"),
        (model, own, "none about mine in"),
    ):
        out = tmp_path / said.replace(" ", "-")
        found = run(on, pairs, out, settings=quick, stages=["scrubbing"])
        skipped = found.results["scrubbing"]
        assert isinstance(skipped, Skipped)
        assert said in skipped.reason
