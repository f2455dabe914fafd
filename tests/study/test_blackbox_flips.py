"""The search for flips: every flip flips, and none is larger than it has to be."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cutaway.behaviours import Behaviour, Chosen, Filled, Prompt, Recipe, choices
from cutaway.behaviours.shuffle import other_answers
from cutaway.errors import BehaviourError, InputError
from cutaway.model import Model
from cutaway.study.blackbox_flipped import Flips
from cutaway.study.blackbox_flips import distance, flips
from cutaway.study.blackbox_section import how_many

NAMES = ("Mary", "John", "Tom", "Anna")


def written(choice: Mapping[str, str]) -> Filled | None:
    """A small behaviour: which of two people was not named twice."""
    first, second = choice["first"], choice["second"]
    if first == second:
        return None
    text = f"{choice['when']} {first} and {second} went to the {choice['place']} , {second} gave"
    return Filled(
        clean=Prompt(pieces=((text, "end"),)), answers=(first,), wrong_answers=(second,)
    )  # fmt: skip


SLOTS = {
    "first": NAMES, "second": NAMES, "when": ("When", "After"), "place": ("store", "park"),
}  # fmt: skip


@pytest.fixture(scope="module")
def made(model: Model) -> tuple[Behaviour, Chosen]:
    """Every prompt of the small behaviour, with what it was filled with."""
    every = [dict(zip(SLOTS, values, strict=True)) for values in itertools.product(*SLOTS.values())]
    kept = [(choice, filled) for choice in every if (filled := written(choice)) is not None]
    clean = [filled.clean.text for _, filled in kept]
    behaviour = Behaviour.from_pairs(
        clean, clean, [filled.answers for _, filled in kept],
        [filled.wrong_answers for _, filled in kept], model.tokenizer, name="small",
    )  # fmt: skip
    recipe = Recipe(slots=SLOTS, write=written)
    return behaviour, Chosen(recipe=recipe, choices=tuple(choice for choice, _ in kept))


@pytest.fixture(scope="module")
def margins(model: Model, made: tuple[Behaviour, Chosen]) -> dict[tuple[str, ...], float]:
    """Each prompt's margin, one forward pass each."""
    behaviour, known = made
    found: dict[tuple[str, ...], float] = {}
    for row, choice in enumerate(known.choices):
        assert choice is not None
        logits = model.run(behaviour.clean.rows([row])).last_logits[0]
        right, wrong = behaviour.answers[row][0], behaviour.wrong_answers[row][0]
        found[tuple(choice.values())] = float(logits[right] - logits[wrong])
    return found


def smallest(start: tuple[str, ...], margins: Mapping[tuple[str, ...], float]) -> int | None:
    """In how many slots the nearest wrong prompt differs, over all prompts there are."""
    away = [
        sum(a != b for a, b in zip(start, other, strict=True))
        for other, margin in margins.items()
        if margin <= 0
    ]
    return min(away, default=None)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(examples=st.integers(1, 20), seed=st.integers(0, 1000))
def test_with_enough_passes_each_is_the_smallest_there_is(
    model: Model, made: tuple[Behaviour, Chosen], margins: dict[tuple[str, ...], float],
    examples: int, seed: int,
) -> None:  # fmt: skip
    behaviour, known = made
    found = flips(
        model, behaviour, slots=known, examples=examples, most=4, beam=1000, passes=100_000,
        seed=seed,
    )  # fmt: skip
    for one in found.found:
        choice = known.choices[one.example]
        assert choice is not None
        assert one.changes == smallest(tuple(choice.values()), margins)
        assert one.margin == pytest.approx(margins[tuple(choice.values())], abs=1e-4)
    assert found.levels[0].exhausted


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    examples=st.integers(1, 12), most=st.integers(1, 4), beam=st.integers(1, 4),
    extra=st.integers(0, 60), seed=st.integers(0, 1000),
)  # fmt: skip
def test_every_flip_flips_and_no_part_of_it_does(
    model: Model, made: tuple[Behaviour, Chosen], margins: dict[tuple[str, ...], float],
    examples: int, most: int, beam: int, extra: int, seed: int,
) -> None:  # fmt: skip
    behaviour, known = made
    passes = examples + extra
    found = flips(
        model, behaviour, slots=known, examples=examples, most=most, beam=beam, passes=passes,
        seed=seed,
    )  # fmt: skip
    assert examples + sum(level.tried for level in found.levels) <= passes
    for one in found.found:
        choice = known.choices[one.example]
        assert choice is not None
        if one.changes is None:
            continue
        assert len(one.edit) == one.changes <= most
        after = {**choice, **{slot: value for slot, (_, value) in one.edit.items()}}
        assert {slot: before for slot, (before, _) in one.edit.items()}.items() <= choice.items()
        assert margins[tuple(after.values())] == pytest.approx(
            one.margin if one.flipped_margin is None else one.flipped_margin, abs=1e-4
        )
        assert margins[tuple(after.values())] < 1e-4
        if one.changes:
            filled = written(after)
            assert filled is not None
            assert one.after == filled.clean.text
        for size in range(1, one.changes):
            for part in itertools.combinations(one.edit, size):
                changed = {**choice, **{slot: one.edit[slot][1] for slot in part}}
                assert margins.get(tuple(changed.values()), 1.0) > -1e-4


def test_of_one_size_the_fewest_tokens_are_changed(
    model: Model, made: tuple[Behaviour, Chosen], margins: dict[tuple[str, ...], float]
) -> None:
    behaviour, known = made
    found = flips(model, behaviour, slots=known, examples=100, most=1, passes=100_000)
    checked = 0
    for one in found.found:
        choice = known.choices[one.example]
        assert choice is not None
        if one.changes != 1:
            continue
        base, sizes = tuple(choice.values()), list[int]()
        for row, other in enumerate(known.choices):
            assert other is not None
            values = tuple(other.values())
            if sum(a != b for a, b in zip(base, values, strict=True)) == 1 and margins[values] <= 0:
                before, after = (behaviour.clean.row_ids(at) for at in (one.example, row))
                sizes.append(distance(tuple(before), tuple(after)))
        assert one.tokens == min(sizes)
        checked += 1
    assert checked


@given(st.lists(st.integers(0, 3), max_size=6), st.lists(st.integers(0, 3), max_size=6))
def test_the_distance_is_a_distance(left: list[int], right: list[int]) -> None:
    a, b = tuple(left), tuple(right)
    assert distance(a, b) == distance(b, a)
    assert (distance(a, b) == 0) == (a == b)
    assert abs(len(a) - len(b)) <= distance(a, b) <= max(len(a), len(b))
    assert distance((*a, 9), (*b, 9)) == distance(a, b)
    assert distance((*a, 9), b) <= distance(a, b) + 1


def test_what_each_value_does_is_told_on_the_same_prompts(
    model: Model, made: tuple[Behaviour, Chosen], margins: dict[tuple[str, ...], float]
) -> None:
    behaviour, known = made
    found = flips(model, behaviour, slots=known, examples=100, most=1, passes=100_000)
    table = found.by_slot().set_index(["slot", "value"])
    row = table.loc[("when", "After")]
    expected = [margins[key] for key in margins if key[2] == "After"]
    assert row["n"] == len(expected)
    assert row["accuracy"] == pytest.approx(np.mean([margin > 0 for margin in expected]))
    # of one answer each, the margin is the logit difference
    assert row["logit_diff"] == pytest.approx(np.mean(expected), abs=1e-4)
    assert row["logit_diff_low"] < row["logit_diff"] < row["logit_diff_high"]


def test_the_same_seed_finds_the_same_and_it_is_saved_whole(
    model: Model, behaviour: Behaviour, tmp_path: Path
) -> None:
    ticks: list[tuple[int, int]] = []
    first, again = (
        flips(model, behaviour, examples=3, passes=150, seed=4, progress=progress)
        for progress in (lambda done, total: ticks.append((done, total)), None)
    )
    assert first.found == again.found
    assert first.levels == again.levels
    assert [done for done, _ in ticks] == sorted(done for done, _ in ticks)
    assert ticks[-1][0] == 3 + sum(level.tried for level in first.levels) <= 150 == ticks[-1][1]
    loaded = Flips.load(first.save(tmp_path / "flips.nc"))
    assert loaded.found == first.found
    assert loaded.levels == first.levels
    assert loaded.by_slot().equals(first.by_slot())


def test_changed_answers_are_those_of_the_changed_prompt(
    model: Model, behaviour: Behaviour
) -> None:
    found = flips(model, behaviour, examples=10, passes=2000, seed=0)
    flipped = [one for one in found.found if one.changes]
    assert flipped
    for one in flipped:
        logits = model.run(model.tokens(one.after)).last_logits[0]
        best = [float(logits[list(side)].max()) for side in (one.answers, one.wrong_answers)]
        assert best[0] - best[1] == pytest.approx(one.flipped_margin, abs=1e-4)
        names = [model.tokenizer.decode(list(side)) for side in (one.answers, one.wrong_answers)]
        # IOI: who is right is named once, who is wrong twice
        assert [one.after.split().count(name.strip()) for name in names] == [1, 2]


def test_the_sentence_counts_every_prompt_once(model: Model, behaviour: Behaviour) -> None:
    found = flips(model, behaviour, examples=10, passes=300)
    ways = (found.flipped(0), found.flipped(1), found.flipped(2), found.flipped(3))
    assert ways[0]  # nothing is learnt here
    told = how_many(found).partition("prompts searched, ")[2]
    counts = [int(count) for count in re.findall(r"(\d+) (?:is|are) (?:wrong|turned)", told)]
    assert sum(counts) == len(found.found) == 10
    assert counts[0] == ways[0]
    assert "wrong without any change" in told


def test_other_answers_than_the_recipes_are_refused(model: Model, behaviour: Behaviour) -> None:
    shuffled = other_answers(behaviour, random.Random(0))
    with pytest.raises(BehaviourError, match="its answers were changed"):
        flips(model, shuffled, examples=10)


def test_bad_input_is_refused_in_a_sentence(model: Model, behaviour: Behaviour) -> None:
    with pytest.raises(InputError, match="beam must be 1 or more; found 0"):
        flips(model, behaviour, beam=0)
    with pytest.raises(InputError, match="needs at least as many passes; found 2"):
        flips(model, behaviour, examples=5, passes=2)
    with pytest.raises(BehaviourError, match="written by hand"):
        flips(model, replace(behaviour, provenance={"source": "pairs"}))
    known = choices(behaviour, model.tokenizer)
    with pytest.raises(BehaviourError, match="No example of 'ioi' is as its generator drew it"):
        flips(model, behaviour, slots=replace(known, choices=(None,) * len(behaviour)))
