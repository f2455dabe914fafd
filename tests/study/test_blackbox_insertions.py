"""Text around prompts: what they ask stays what it was, and every number is a run of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import cutaway
from cutaway.behaviours import Behaviour
from cutaway.behaviours.builtin.words import DISTRACTORS
from cutaway.errors import BehaviourError, InputError
from cutaway.model import Model
from cutaway.study.blackbox_insertions import FURTHER, Insertions, insertions
from cutaway.study.blackbox_prompts import Speller


@pytest.fixture(scope="module")
def septet() -> Model:
    return cutaway.open()


@pytest.fixture(scope="module")
def ioi(septet: Model) -> Behaviour:
    return cutaway.behaviour("ioi", septet, n=8, seed=2)


@pytest.fixture(scope="module")
def found(septet: Model, ioi: Behaviour) -> Insertions:
    return insertions(septet, ioi, examples=5, seed=1)


def test_as_they_are_prompts_have_their_own_values(
    found: Insertions, septet: Model, ioi: Behaviour
) -> None:
    rows = [int(row) for row in found.values["example"].to_numpy()]
    logits = ioi.end_logits(septet.run(ioi.clean).logits)
    for row, value in zip(rows, found.each("logit_diff"), strict=True):
        gap = float(logits[row, ioi.answers[row][0]] - logits[row, ioi.wrong_answers[row][0]])
        assert value == pytest.approx(gap, abs=1e-4)
    assert not found.added.sel(insertion="none").any()


def test_a_sentence_before_is_one_of_the_neutral_ones(
    found: Insertions, septet: Model, ioi: Behaviour
) -> None:
    for row, value in zip(
        found.values["example"].to_numpy(), found.each("logit_diff", "sentence before"), strict=True
    ):
        gaps: list[float] = []
        for sentence in DISTRACTORS:
            logits = septet.run(f"{sentence} {ioi.clean_texts[int(row)]}").last_logits[0]
            right, wrong = ioi.answers[int(row)][0], ioi.wrong_answers[int(row)][0]
            gaps.append(float(logits[right] - logits[wrong]))
        assert min(abs(gap - value) for gap in gaps) < 1e-4


def test_changes_are_paired_and_further_on_is_longer(found: Insertions) -> None:
    each = found.each("logit_diff", "sentence before") - found.each("logit_diff")
    assert float(found.change("logit_diff", "sentence before").mean) == pytest.approx(each.mean())
    further = [name for name in found.names if name.endswith(" before")]
    assert len(further) == len(FURTHER)
    lengths = found.added.sel(insertion=further).to_numpy()
    assert (np.diff(lengths, axis=0) > 0).all()


def test_inside_is_after_the_last_mark_and_not_everywhere(septet: Model) -> None:
    pronouns = cutaway.behaviour("gendered-pronouns", septet, n=30, seed=0)
    found = insertions(septet, pronouns, examples=30)
    inside = found.each("accuracy", "sentence inside")
    rows = found.values["example"].to_numpy()
    for row, value in zip(rows, inside, strict=True):
        text = pronouns.clean_texts[int(row)]
        has_middle = any(mark in text[:-1] for mark in (", ", ". "))
        assert bool(np.isnan(value)) != has_middle
    assert 0 < np.isnan(inside).sum() < len(inside)


def test_only_words_are_named(septet: Model) -> None:
    years = cutaway.behaviour("greater-than", septet, n=4)
    assert not [name for name in insertions(septet, years, examples=4).names if "named" in name]


def test_what_is_too_long_for_the_model_is_left_out(septet: Model) -> None:
    long = cutaway.behaviour("induction", septet, n=6, length="24")
    found = insertions(septet, long, examples=6)
    assert "8 sentences before" in found.names
    assert "16 sentences before" not in found.names


def test_it_is_saved_whole_and_the_seed_decides(
    found: Insertions, septet: Model, ioi: Behaviour, tmp_path: Path
) -> None:
    again = Insertions.load(found.save(tmp_path / "distractors.nc"))
    assert again.values.equals(found.values)
    assert again.names == found.names
    assert insertions(septet, ioi, examples=5, seed=1).values.equals(found.values)
    assert not insertions(septet, ioi, examples=5, seed=7).values.equals(found.values)


def test_bad_input_is_refused_in_a_sentence(septet: Model, ioi: Behaviour) -> None:
    with pytest.raises(InputError, match="examples must be 1 or more; found 0"):
        insertions(septet, ioi, examples=0)
    ids = [[5, 6, 7]]
    tokens = Behaviour.from_tokens(ids, ids, answers=[8], wrong_answers=[9])
    with pytest.raises(BehaviourError, match="tokens that their texts do not give"):
        insertions(septet, tokens)
    with pytest.raises(BehaviourError, match="opened without a tokenizer"):
        Speller(ioi, None)
