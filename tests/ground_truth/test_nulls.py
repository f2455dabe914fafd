"""Where there is nothing to be found nothing passes, and where there is a circuit it does."""

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cutaway.behaviours.shuffle import other_answers
from cutaway.circuits import discover, evaluate, top_n
from cutaway.ground_truth import GroundTruthError, identity, known, nulls
from cutaway.ground_truth.reported import Ready
from cutaway.organisms import NULLS, OrganismError, null, trained
from cutaway.patch.journal import Journal

torch.set_num_threads(1)


@pytest.mark.parametrize("kind", NULLS)
def test_a_null_case_is_drawn_by_its_seed(kind: str) -> None:
    one, again, other = (null(kind, "sort", n=8, seed=seed) for seed in (3, 3, 4))
    assert one.edges == ()
    assert one.behaviour.fingerprint == again.behaviour.fingerprint
    assert one.model.fingerprint == again.model.fingerprint
    assert one.behaviour.fingerprint != other.behaviour.fingerprint


def test_an_untrained_model_is_a_trained_one_s_size_and_knows_nothing() -> None:
    made, learnt = null("untrained", "induction", n=60), trained("induction", n=60)
    sizes = [sum(w.numel() for w in one.model.hf.parameters()) for one in (made, learnt)]
    assert sizes[0] == sizes[1]
    right = [
        float(
            (
                one.behaviour.end_logits(one.model.run(one.behaviour.clean).logits).argmax(-1)
                == torch.tensor([ids[0] for ids in one.behaviour.answers])
            )
            .float()
            .mean()
        )
        for one in (made, learnt)
    ]
    assert right[0] < 0.5 < 0.99 < right[1]


def test_shuffling_moves_answers_and_partners_and_nothing_else() -> None:
    plain = trained("reverse", n=30, seed=5).behaviour
    answers = null("shuffled-answers", "reverse", n=30, seed=5).behaviour
    pairs = null("shuffled-pairs", "reverse", n=30, seed=5).behaviour
    assert answers.clean_texts == pairs.clean_texts == plain.clean_texts
    assert answers.corrupt_texts == plain.corrupt_texts != pairs.corrupt_texts
    assert Counter(pairs.corrupt_texts) == Counter(plain.corrupt_texts)
    both = zip(plain.answers, plain.wrong_answers, strict=True)
    moved = zip(answers.answers, answers.wrong_answers, strict=True)
    assert answers.answers != plain.answers
    assert Counter(moved) == Counter(both)
    assert torch.equal(pairs.corrupt.mask, pairs.clean.mask)


def test_no_circuit_passes_in_null_cases() -> None:
    found = list(nulls(9, ["eap", "eap-ig"], examples=30))
    assert len(found) == 18
    assert {report.kind for report in found} == set(NULLS)
    assert not [report for report in found if report.passed]


def test_circuits_looked_for_in_null_cases_are_no_better_than_random_ones() -> None:
    """The first three with an effect are searched, the fourth is refused; nothing passes."""
    found = list(nulls(4, ["eap-ig"], searched=3))
    assert [report.edges > 0 for report in found] == [True] * 3 + [False]
    for report in found[:3]:
        assert report.checks["faithful"]
        assert not report.checks["random"]
        assert not report.checks["answers"]
    assert set(found[3].checks) < set(found[0].checks)


def test_the_seed_draws_other_null_cases() -> None:
    names = [
        [report.case for report in nulls(2, ["random"], examples=8, searched=0, seed=seed)]
        for seed in (0, 1)
    ]
    assert names == [["null-0", "null-1"], ["null-2", "null-3"]]


def test_no_pair_keeps_its_own_place() -> None:
    plain = trained("reverse", n=12, seed=2).behaviour
    rows = tuple((row,) for row in range(12))
    marked = replace(plain, answers=rows, wrong_answers=tuple((row + 12,) for row in range(12)))
    for seed in range(20):
        moved = other_answers(marked, random.Random(seed))
        assert sorted(moved.answers) == list(rows)
        assert [row + 12 for (row,) in moved.answers] == [row for (row,) in moved.wrong_answers]
        assert all(one != other for one, other in zip(moved.answers, rows, strict=True))


@pytest.mark.parametrize("seed", range(4, 7))
def test_controls_made_first_are_those_of_any_circuit(seed: int) -> None:
    """So where one fails, a method's circuit would have failed as well."""
    ready = Ready(null(list(NULLS)[seed % 3], "fraction", n=30, seed=seed))
    scores = discover(ready.on, ready.found, "eap-ig")
    for size in (3, 20):
        found = evaluate(ready.on, ready.held_out, top_n(scores, size), quick=True)
        first = {name: found.checks[name].passed for name in ready.background}
        assert first == ready.background
        assert not found.passes


def test_true_circuits_pass_and_chance_does_not() -> None:
    """Else nothing passing in null cases would say nothing."""
    found = list(known(["histogram", "induction", "fraction-trained"], ["eap-ig"], examples=50))
    assert [report.passed for report in found] == [True] * 3
    (chance,) = known(["fraction"], ["random"], examples=30)
    assert not chance.passed
    assert chance.edges > 30
    assert all(report.edges == report.true for report in found)


def test_reports_are_kept(tmp_path: Path) -> None:
    whose = identity(examples=8, seed=0)
    with Journal.beside(tmp_path / "out.json", whose) as journal:
        first = list(nulls(2, ["eap"], examples=8, journal=journal))
    with Journal.beside(tmp_path / "out.json", whose) as journal:
        assert journal.resumed == 2
        again = list(nulls(2, ["eap"], examples=8, journal=journal))
        assert journal.count == 2
    assert again == first


def test_bad_input_is_refused_in_a_sentence() -> None:
    with pytest.raises(OrganismError, match=r"no null case 'shuffled'; choose one of untrained"):
        null("shuffled", "sort")
    with pytest.raises(OrganismError, match=r"no constructed model 'srot'"):
        null("untrained", "srot")
    with pytest.raises(GroundTruthError, match=r"null cases is 1 or more; found 0"):
        nulls(0)
    with pytest.raises(GroundTruthError, match=r"to search are 0 or more; found -1"):
        nulls(3, searched=-1)
    with pytest.raises(GroundTruthError, match=r"on take 4 pairs; found 3"):
        known(["sort"], examples=3)
    with pytest.raises(GroundTruthError, match=r"no discovery method 'acdcc'; did you mean 'acdc'"):
        nulls(3, ["acdcc"])
