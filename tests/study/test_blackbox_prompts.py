"""Prompts written anew are spelled and answered as the behaviour's own are."""

from __future__ import annotations

import numpy as np
import pytest

import cutaway
from cutaway.behaviours import METRICS, choices
from cutaway.behaviours.builtin import RECIPES
from cutaway.model import Model
from cutaway.study.blackbox_prompts import Question, Speller, ask


@pytest.fixture(scope="module")
def septet() -> Model:
    return cutaway.open()


@pytest.mark.parametrize("name", list(RECIPES))
@pytest.mark.parametrize("bos", [None, False])
def test_a_prompt_of_ones_own_is_spelled_as_it_was(
    name: str, bos: bool | None, septet: Model
) -> None:
    behaviour = cutaway.behaviour(name, septet, n=5, seed=2, bos=bos, padding="left")
    known, speller = choices(behaviour, septet.tokenizer), Speller(behaviour, septet.tokenizer)
    questions: list[Question] = []
    for row, choice in enumerate(known.choices):
        assert choice is not None
        filled = known.recipe.write(choice)
        assert filled is not None
        found = speller.question(filled.clean.text, filled.answers, filled.wrong_answers)
        assert found is not None
        assert list(found.ids) == behaviour.clean.row_ids(row)
        assert found.answers == behaviour.answers[row]
        assert found.wrong_answers == behaviour.wrong_answers[row]
        questions.append(found)
    logits = behaviour.end_logits(septet.run(behaviour.clean).logits)
    answered = ask(septet, questions)
    expected = METRICS["logit_diff"](logits, behaviour).numpy()
    np.testing.assert_allclose(answered.logit_diff, expected, atol=1e-4)
    right = METRICS["accuracy"](logits, behaviour).numpy()
    assert ((answered.margin > 0) == (right == 1)).all()


def test_many_prompts_of_many_lengths_keep_their_order(septet: Model) -> None:
    texts = [f"Tom was happy because {'the dog ' * (index % 7)}and" for index in range(90)]
    questions = [
        Question(
            text=text, ids=tuple(septet.tokenizer(text)["input_ids"]), answers=(300 + index,),
            wrong_answers=(600, 601),
        )
        for index, text in enumerate(texts)
    ]  # fmt: skip
    ticks: list[tuple[int, int]] = []
    found = ask(septet, questions, progress=lambda done, total: ticks.append((done, total)))
    for index in (0, 1, 63, 64, 89):
        logits = septet.run(texts[index]).last_logits[0]
        expected = float(logits[300 + index] - logits[[600, 601]].max())
        assert found.margin[index] == pytest.approx(expected, abs=1e-4)
    assert ticks[-1] == (90, 90)


def test_what_the_tokenizer_does_not_know_is_not_asked(model: Model) -> None:
    behaviour = cutaway.behaviour("ioi", model, n=2)
    speller = Speller(behaviour, model.tokenizer)
    assert speller.question("When Xylophon went to the store", ("Mary",), ("John",)) is None
    assert speller.question("When Mary went to the store", ("Xylophon",), ("John",)) is None
    assert speller.question("When Mary went to the store", ("Mary",), ("John",)) is not None
