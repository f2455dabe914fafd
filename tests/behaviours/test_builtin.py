"""The built-in generators: deterministic, aligned, single answers, honest held-out splits."""

import random
import re
from functools import cache
from pathlib import Path

import pytest

from cutaway.behaviours.builtin import DESCRIPTIONS, GENERATORS, VARIATIONS
from cutaway.behaviours.example import Example
from cutaway.errors import BehaviourError

PIECE = re.compile(r" ?[A-Z](?![a-z])| ?[A-Za-z][a-z]*(?:'[a-z]+)?| ?\d\d| ?\d| ?[^\sA-Za-z\d]|\s")
GPT2 = Path(__file__).parents[2] / "../shared/data/gpt2_tokenizer"
NAMES = list(GENERATORS)


def whole_words(text: str) -> bool:
    """The vocabulary of a word-level tokenizer that knows every word."""
    return PIECE.fullmatch(text) is not None


def examples(name: str, n: int = 60, *, seed: int = 0, **more: str) -> list[Example]:
    return GENERATORS[name](random.Random(seed), n, vocabulary=whole_words, **more)  # type: ignore[arg-type]


def test_every_behaviour_is_described_and_varies() -> None:
    assert list(DESCRIPTIONS) == list(VARIATIONS) == NAMES
    assert NAMES == [
        "ioi", "gendered-pronouns", "greater-than", "acronyms", "induction", "capitals",
        "phone-number",
    ]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_writes_the_same_examples(name: str) -> None:
    assert examples(name) == examples(name)
    assert examples(name) != examples(name, seed=1)


@pytest.mark.parametrize("name", NAMES)
def test_clean_and_corrupt_have_the_same_tokens_and_labels(name: str) -> None:
    for example in examples(name):
        counts = [len(PIECE.findall(prompt.text)) for prompt in (example.clean, example.corrupt)]
        assert counts[0] == counts[1]
        assert example.clean.text != example.corrupt.text
        assert example.clean.labels[-1] == "end"
        assert sorted(example.clean.labels) == sorted(example.corrupt.labels)
        assert example.clean.prefix("end") == example.clean.text


@pytest.mark.parametrize("name", NAMES)
def test_a_labelled_piece_ends_where_a_token_ends(name: str) -> None:
    for example in examples(name):
        for prompt in (example.clean, example.corrupt):
            apart = [token for text, _ in prompt.pieces for token in PIECE.findall(text)]
            assert apart == PIECE.findall(prompt.text)


@pytest.mark.parametrize("name", NAMES)
def test_answers_are_single_tokens(name: str) -> None:
    for example in examples(name):
        assert all(whole_words(answer) for answer in example.answers + example.wrong_answers)


@pytest.mark.parametrize("name", NAMES)
def test_splits_are_disjoint_and_add_up(name: str) -> None:
    assert not any(example.held_out for example in examples(name, split="train"))
    assert all(example.held_out for example in examples(name, split="held-out"))
    both = {example.held_out for example in examples(name)}
    assert both == {True, False}
    seen = {example.clean.text for example in examples(name, split="train", n=100)}
    assert not seen & {example.clean.text for example in examples(name, split="held-out", n=100)}


@pytest.mark.parametrize("name", NAMES)
def test_every_variation_is_kept(name: str) -> None:
    for keyword, values in VARIATIONS[name].items():
        for value in values:
            made = examples(name, 3, **{keyword: value})
            assert len(made) == 3
            if value != "any" and not (name == "capitals" and keyword in ("template", "shots")):
                assert keyword == "words" or {e.variation[keyword] for e in made} == {value}


@pytest.mark.parametrize("name", NAMES)
def test_a_distractor_comes_first_and_changes_nothing_else(name: str) -> None:
    if "distractor" not in VARIATIONS[name]:
        pytest.skip(f"{name} has no distractors")
    for example in examples(name, 20, distractor="sentence"):
        assert re.match(r"[A-Z][a-z ]+\. [A-Z]", example.clean.text)


@pytest.mark.parametrize("corruption", ["name-swap", "ABC"])
@pytest.mark.parametrize("order", ["ABBA", "BABA"])
def test_indirect_objects(order: str, corruption: str) -> None:
    for example in examples("ioi", order=order, corruption=corruption):
        at = {label: text for text, label in example.clean.pieces if label}
        assert example.answers == (at["IO"],)
        assert example.wrong_answers == (at["S1"],) == (at["S2"],)
        labels = list(example.clean.labels)
        assert labels.index("S1+1") == labels.index("S1") + 1
        assert (labels.index("IO") < labels.index("S1")) == (order == "ABBA")
        swapped = {label: text for text, label in example.corrupt.pieces if label}
        if corruption == "name-swap":
            assert swapped == at | {"S2": at["IO"]}
        else:
            named = [swapped[label] for label in ("IO", "S1", "S2")]
            assert len({*named, at["IO"], at["S1"]}) == 5


def test_greater_than_answers_are_all_later_years() -> None:
    for example in examples("greater-than"):
        start = next(text for text, label in example.clean.pieces if label == "YY")
        assert all(answer > start for answer in example.answers)
        assert all(answer <= start for answer in example.wrong_answers)
        assert len(example.answers) + len(example.wrong_answers) == 100
        assert next(text for text, label in example.corrupt.pieces if label == "YY") == "01"


def test_acronyms_spell_the_words() -> None:
    for example in examples("acronyms"):
        at = {label: text for text, label in example.clean.pieces if label}
        assert at["A1"] == at["C1"][1]
        assert at["end"] == at["C2"][1]
        assert example.answers == (at["C3"][1],)
        third = next(text for text, label in example.corrupt.pieces if label == "C3")
        assert third[1] in example.wrong_answers


@pytest.mark.parametrize("corruption", ["no-repeat", "successor"])
def test_induction_copies_what_followed(corruption: str) -> None:
    for example in examples("induction", corruption=corruption):
        tokens = PIECE.findall(example.clean.text)
        earlier = tokens.index(tokens[-1])
        labels = [label for _, label in example.clean.pieces]
        assert labels[earlier : earlier + 2] == ["A1", "B1"]
        assert example.answers == (tokens[earlier + 1],)
        broken = PIECE.findall(example.corrupt.text)
        assert broken[earlier + 1] != tokens[earlier + 1]
        assert (broken[earlier] == tokens[earlier]) == (corruption == "successor")


def test_the_phone_number_does_not_show_its_answer() -> None:
    for example in examples("phone-number"):
        assert example.answers[0] not in example.clean.text


def test_an_unknown_variation_is_refused() -> None:
    with pytest.raises(BehaviourError, match=r"'ioi' has no variation 'colour'; it has template"):
        examples("ioi", colour="red")
    with pytest.raises(BehaviourError, match=r"no order 'BAAB'; choose one of 'any', 'ABBA'"):
        examples("ioi", order="BAAB")
    with pytest.raises(BehaviourError, match="split must be"):
        examples("ioi", split="test")
    with pytest.raises(BehaviourError, match="n must be at least 1; found 0"):
        examples("ioi", 0)
    with pytest.raises(BehaviourError, match="were asked for; ask for fewer"):
        examples("phone-number", 5000)


@pytest.mark.parametrize("name", NAMES)
def test_a_tokenizer_of_single_characters_is_refused(name: str) -> None:
    with pytest.raises(BehaviourError, match=r"^The behaviour .* needs .*this tokenizer .*\.$"):
        GENERATORS[name](random.Random(0), 5, vocabulary=lambda text: len(text) == 1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("split", ["all", "train", "held-out"])
def test_gpt2s_tokenizer(name: str, split: str) -> None:
    if not GPT2.exists():
        pytest.skip("GPT-2's tokenizer is not there")
    from transformers import PreTrainedTokenizerFast

    encode = cache(PreTrainedTokenizerFast(tokenizer_file=str(GPT2 / "tokenizer.json")).tokenize)

    def single(text: str) -> bool:
        return len(encode(text)) == 1

    for example in GENERATORS[name](random.Random(0), 40, vocabulary=single, split=split):  # type: ignore[arg-type]
        assert len(encode(example.clean.text)) == len(encode(example.corrupt.text))
        assert all(single(answer) for answer in example.answers + example.wrong_answers)
        for prompt in (example.clean, example.corrupt):
            apart = [token for text, _ in prompt.pieces for token in encode(text)]
            assert apart == encode(prompt.text)
