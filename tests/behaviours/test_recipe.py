"""Prompts written from choices: as they were drawn, and with one choice changed."""

from __future__ import annotations

from dataclasses import replace

import pytest

import cutaway
from cutaway.behaviours import Behaviour, Recipe, choices
from cutaway.behaviours.builtin import RECIPES
from cutaway.behaviours.builtin.words import CAPITALS, FEMALE_NAMES
from cutaway.behaviours.tokenizing import is_one_token
from cutaway.errors import BehaviourError
from cutaway.model import Model


@pytest.fixture(scope="module")
def model() -> Model:
    return cutaway.open()


@pytest.mark.parametrize("name", list(RECIPES))
def test_an_example_is_written_again_from_its_choices(name: str, model: Model) -> None:
    behaviour = cutaway.behaviour(name, model, n=12, seed=3)
    found = choices(behaviour, model.tokenizer)
    for row, choice in enumerate(found.choices):
        assert choice is not None
        written = found.recipe.write(choice)
        assert written is not None
        assert written.clean.text == behaviour.clean_texts[row]
        for texts, ids in (
            (written.answers, behaviour.answers), (written.wrong_answers, behaviour.wrong_answers),
        ):  # fmt: skip
            read = [model.tokenizer.encode(text, add_special_tokens=False) for text in texts]
            assert [token for tokens in read for token in tokens] == list(ids[row])
        for slot, values in found.recipe.slots.items():
            assert choice[slot] in values, slot


# where every slot can be seen: a third person, and a sequence with a word in every place
IN_USE = {"ioi": {"distractor": "name"}, "induction": {"length": "24"}}


@pytest.mark.parametrize("name", list(RECIPES))
def test_with_another_value_another_prompt_is_written(name: str, model: Model) -> None:
    drawn = cutaway.behaviour(name, model, n=6, seed=1, **IN_USE.get(name, {}))
    found = choices(drawn, model.tokenizer)
    changed = dict.fromkeys(found.recipe.slots, 0)
    for choice in found.choices:
        assert choice is not None
        before = found.recipe.write(choice)
        for slot, values in found.recipe.slots.items():
            for value in values[:40]:
                after = found.recipe.write({**choice, slot: value})
                changed[slot] += after is not None and after != before
                assert value != choice[slot] or after == before
    assert all(changed.values()), changed


def test_the_answers_follow_what_is_changed(model: Model) -> None:
    recipes = {name: make(lambda text: is_one_token(model.tokenizer, text))
               for name, make in RECIPES.items()}  # fmt: skip
    ioi = {
        "template": "After {A} and {B} found a {OBJECT} at the {PLACE}, {S} gave it to",
        "order": "BABA", "IO": "Mary", "S": "John", "C": "Tom", "PLACE": "park", "OBJECT": "ring",
        "distractor": "It was a good day for {C}.",
    }  # fmt: skip
    filled = recipes["ioi"].write(ioi)
    assert filled is not None
    assert filled.clean.text == (
        "It was a good day for Tom. After John and Mary found a ring at the park, John gave it to"
    )
    assert (filled.answers, filled.wrong_answers) == ((" Mary",), (" John",))
    assert recipes["ioi"].write({**ioi, "S": "Mary"}) is None
    assert recipes["ioi"].write({**ioi, "C": "Mary"}) is None
    assert recipes["ioi"].write({**ioi, "C": "Mary", "distractor": ""}) is not None

    capitals = {
        "form": "in-context", "template": "", "shots": "2", "distractor": "", "COUNTRY": "France",
        "shown 1": "Peru", "shown 2": "Cuba", "shown 3": "France", "shown 4": "Italy",
    }  # fmt: skip
    filled = recipes["capitals"].write(capitals)
    assert filled is not None
    assert filled.clean.text == "Capitals: Peru : Lima, Cuba : Havana, France :"
    assert filled.answers == (f" {CAPITALS['France']}",)
    assert recipes["capitals"].write({**capitals, "shots": "3"}) is None

    pronoun = {"template": "Everyone likes {NAME} because", "NAME": "Tom", "distractor": ""}
    for name in ("Tom", "Mary"):
        filled = recipes["gendered-pronouns"].write({**pronoun, "NAME": name})
        assert filled is not None
        assert filled.answers == ((" she",) if name in FEMALE_NAMES else (" he",))


def test_what_was_changed_since_has_no_choice(model: Model) -> None:
    drawn = cutaway.behaviour("ioi", model, n=4)
    texts = ("Something else", *drawn.clean_texts[1:])
    assert choices(replace(drawn, clean_texts=texts), model.tokenizer).choices[0] is None
    held_out = cutaway.behaviour("capitals", model, n=5, split="held-out", form="statement")
    few = choices(held_out.rows([4, 2]), model.tokenizer)
    whole = choices(held_out, model.tokenizer)
    assert few.choices == (whole.choices[4], whole.choices[2])


def test_prompts_of_ones_own_have_no_slots(model: Model) -> None:
    own = Behaviour.from_tokens([[1, 2]], [[1, 3]], answers=[4], wrong_answers=[5])
    with pytest.raises(BehaviourError, match="written by hand, so it is not known which"):
        choices(own, model.tokenizer)
    with pytest.raises(BehaviourError, match="the slot 'NAME' has none"):
        Recipe(slots={"NAME": ()}, write=lambda _choice: None)
