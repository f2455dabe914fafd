from __future__ import annotations

import numpy as np
import pytest

from cutaway.behaviours import Behaviour, bootstrap, breakdown, probes
from cutaway.behaviours.builtin import VARIATIONS
from cutaway.behaviours.variation import by_place, informative_columns
from cutaway.errors import BehaviourError

ORDERS = ("ABBA", "BABA", "ABBA", "ABBA", "BABA", "BABA")
VALUES = [1.0, -1.0, 2.0, 4.0, -2.0, 0.0]


@pytest.fixture
def behaviour() -> Behaviour:
    ids = [[row, row] for row in range(6)]
    return Behaviour.from_tokens(
        ids,
        ids,
        answers=[9] * 6,
        wrong_answers=[8] * 6,
        variations={"order": ORDERS, "text": list("abcdef"), "same": ["x"] * 6},
    )


def test_a_breakdown_is_the_bootstrap_of_each_group(behaviour) -> None:
    frame = breakdown(behaviour, {"logit_diff": VALUES, "accuracy": np.ones(6)}, n_boot=200)
    assert list(frame.columns) == ["metric", "variation", "value", "n", "mean", "low", "high"]
    assert len(frame) == 2 * 3
    table = frame.set_index(["metric", "variation", "value"])
    abba = table.loc[("logit_diff", "order", "ABBA")]
    expected = bootstrap([1.0, 2.0, 4.0], n_boot=200)
    assert abba["n"] == 3
    assert (abba["mean"], abba["low"], abba["high"]) == pytest.approx(
        (float(expected.mean), float(expected.low), float(expected.high))
    )
    whole = table.loc[("logit_diff", "all", "all")]
    groups = frame[(frame["metric"] == "logit_diff") & (frame["variation"] == "order")]
    assert (groups["mean"] * groups["n"]).sum() / groups["n"].sum() == pytest.approx(whole["mean"])


def test_columns_that_say_nothing_are_left_out_unless_asked_for(behaviour) -> None:
    assert informative_columns(behaviour) == ["order"]
    frame = breakdown(behaviour, {"logit_diff": VALUES}, columns=["text"], n_boot=10)
    assert len(frame) == 7
    assert frame["n"].tolist() == [6, 1, 1, 1, 1, 1, 1]
    assert frame["low"].isna().sum() == 6


def test_what_does_not_fit_is_refused(behaviour) -> None:
    with pytest.raises(BehaviourError, match="no variation column 'size'; it has order, text"):
        breakdown(behaviour, {"logit_diff": VALUES}, columns=["size"])
    with pytest.raises(BehaviourError, match=r"each of the 6 examples; found the shape \(2,\)"):
        breakdown(behaviour, {"logit_diff": [1.0, 2.0]})


@pytest.mark.parametrize("name", list(VARIATIONS))
def test_probes_are_every_single_variation(name: str) -> None:
    found = probes(name)
    asked = {(probe.keyword, probe.value) for probe in found}
    assert len(asked) == len(found)
    assert all(value in VARIATIONS[name][keyword] for keyword, value in asked)
    assert all(value != "any" for _, value in asked)
    assert found[0].variation == {found[0].keyword: found[0].value}


def test_probes_need_a_generator() -> None:
    with pytest.raises(BehaviourError, match="'mine' is not built in"):
        probes("mine")


def test_places_are_told_apart_in_groups() -> None:
    lengths = [4, 4, 5, 5, 6, 7, 8, 9, 10, 11, 12, 13]
    ids = [[7] * length for length in lengths]
    behaviour = Behaviour.from_tokens(
        ids, ids, answers=[9] * 12, wrong_answers=[8] * 12,
        labels={"first": [0] * 12, "middle": [1, 2] * 6, "last but one": [n - 2 for n in lengths]},
        variations={"order": ["x"] * 12}, padding="left",
    )  # fmt: skip
    found = by_place(behaviour).variations
    # "first" does not vary, and "last but one" says what the length says
    assert list(found) == ["length in tokens", "position of middle"]
    assert found["position of middle"] == ("1", "2") * 6
    ranges = found["length in tokens"]
    assert len(set(ranges)) == 5
    for length, text in zip(lengths, ranges, strict=True):
        low, _, high = text.partition(" to ")
        assert int(low) <= length <= int(high or low)
    # as text in the order of the numbers
    assert sorted(ranges) == list(ranges)
