from __future__ import annotations

import random
import re

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from cutaway.behaviours import Behaviour, Example, Prompt, build, listing
from cutaway.behaviours.builtin import GENERATORS
from cutaway.errors import BehaviourError

PIECES = r" ?[A-Za-z]{2,}| ?[0-9]{2}| ?[^\s]| "
"""Words, pairs of digits and single marks, each with the space before it."""


@pytest.fixture(scope="module")
def whole_words() -> PreTrainedTokenizerFast:
    """A word-level tokenizer that knows what the generators write; initials letter by letter."""
    pieces = re.compile(PIECES)
    vocabulary: dict[str, int] = {"<unk>": 0, "<end>": 1, "\n": 2}
    letters = [chr(code) for code in range(65, 91)]
    numbers = [f"{space}{number:02d}" for space in ("", " ") for number in range(100)]
    for piece in (*letters, *(f" {letter}" for letter in letters), *numbers):
        vocabulary.setdefault(piece, len(vocabulary))
    for generate in GENERATORS.values():
        for example in generate(random.Random(5), 60, vocabulary=spelled):
            for text in (example.clean.text, example.corrupt.text, *example.answers):
                for piece in pieces.findall(text):
                    vocabulary.setdefault(piece, len(vocabulary))
                    vocabulary.setdefault(" " + piece.lstrip(), len(vocabulary))
    for pair in [key for key in vocabulary if re.fullmatch(r" ?[A-Z]{2}", key)]:
        del vocabulary[pair]
    backend = Tokenizer(
        models.WordLevel(
            {piece: index for index, piece in enumerate(vocabulary)}, unk_token="<unk>"
        )
    )
    backend.pre_tokenizer = pre_tokenizers.Split(
        Regex(r" ?[A-Z](?=[A-Z]\b)|(?<=[A-Z])[A-Z]\b|" + PIECES), behavior="isolated"
    )
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<end>", eos_token="<end>"
    )


def spelled(text: str) -> bool:
    """What the tokenizer above will know as one token."""
    return bool(re.fullmatch(r" ?[A-Za-z]|[ ]?[A-Z]?[a-z]+| ?[0-9]{2}", text))


@pytest.mark.parametrize("name", list(GENERATORS))
def test_every_built_in_behaviour_builds(name: str, whole_words) -> None:
    behaviour = build(name, whole_words, n=12, seed=3)
    assert len(behaviour) == 12
    assert "end" in behaviour.labels
    assert 0 not in behaviour.clean.ids[behaviour.clean.mask]
    for text, shown in zip(behaviour.clean_texts, behaviour.token_texts, strict=True):
        assert "".join(shown) == text
    assert behaviour.provenance["generator"] == name
    again = build(name, whole_words, n=12, seed=3)
    assert again.fingerprint == behaviour.fingerprint
    assert build(name, whole_words, n=12, seed=4).fingerprint != behaviour.fingerprint


def test_labels_are_the_tokens_they_name(whole_words) -> None:
    for padding in ("left", "right"):
        found = build("ioi", whole_words, n=20, corruption="name-swap", padding=padding)
        rows = torch.arange(20)
        at = {name: found.clean.ids[rows, where] for name, where in found.clean.labels.items()}
        assert torch.equal(at["S1"], at["S2"])
        assert at["IO"].tolist() == [answers[0] for answers in found.answers]
        assert at["S1"].tolist() == [wrong[0] for wrong in found.wrong_answers]
        corrupt = found.corrupt.ids[rows, found.corrupt.labels["S2"]]
        assert torch.equal(corrupt, at["IO"])


def test_splits_and_variations_reach_the_generator(whole_words) -> None:
    assert all(build("ioi", whole_words, n=5, split="held-out").held_out)
    assert not any(build("ioi", whole_words, n=5, split="train").held_out)
    assert set(build("ioi", whole_words, n=5, order="BABA").variations["order"]) == {"BABA"}
    with pytest.raises(BehaviourError, match="has no order 'ABAB'"):
        build("ioi", whole_words, n=5, order="ABAB")


def test_bos_is_put_first_when_asked_for(whole_words) -> None:
    plain, with_it = (build("ioi", whole_words, n=4, bos=bos) for bos in (None, True))
    assert with_it.clean.ids[:, 0].tolist() == [1] * 4
    assert plain.clean.lengths.tolist() == [length - 1 for length in with_it.clean.lengths.tolist()]
    assert torch.equal(plain.clean.labels["S2"] + 1, with_it.clean.labels["S2"])


def test_an_unknown_name_lists_the_nearest_and_all(whole_words) -> None:
    with pytest.raises(BehaviourError, match="did you mean 'greater-than'") as caught:
        build("greater_than", whole_words)
    assert all(name in str(caught.value) for name in GENERATORS)


def test_the_listing_has_every_behaviour() -> None:
    found = listing()
    assert [entry.name for entry in found] == list(GENERATORS)
    assert all(entry.description and entry.variations for entry in found)


def prompt(*pieces: tuple[str, str | None]) -> Prompt:
    return Prompt(pieces=pieces)


def example(clean: Prompt, corrupt: Prompt) -> Example:
    return Example(
        clean=clean, corrupt=corrupt, answers=(" she",), wrong_answers=(" he",),
        variation={}, held_out=False,
    )  # fmt: skip


def built(monkeypatch, examples: list[Example], tokenizer, n: int = 1) -> Behaviour:
    def generate(rng, wanted, **_):
        return (examples * wanted)[: max(wanted, len(examples))]

    monkeypatch.setitem(GENERATORS, "ioi", generate)
    return build("ioi", tokenizer, n=n)


def test_a_label_is_the_last_token_of_its_piece(monkeypatch, byte_level, with_bos) -> None:
    sara = example(
        prompt((" Sara ", "NAME"), ("was", None), (" happy", "MOOD")),
        prompt((" Sara ", "NAME"), ("was", None), (" because", "MOOD")),
    )
    found = built(monkeypatch, [sara], byte_level)
    ids = found.clean.row_ids(0)
    last_of_name = ids[int(found.clean.labels["NAME"][0])]
    assert byte_level.decode([last_of_name]) in (" Sara", "a", "ra", "ara")
    assert found.clean.labels["MOOD"].tolist() == found.clean.labels["end"].tolist()


def test_labels_that_only_some_prompts_have_are_left_out(monkeypatch, words) -> None:
    with_label = example(
        prompt(("Sara", "NAME"), (" was", None)), prompt(("Tom", "NAME"), (" was", None))
    )
    without = example(prompt(("Mary was", None)), prompt(("John was", None)))
    found = built(monkeypatch, [with_label, without], words, n=2)
    assert found.labels == ("end",)
    assert found.provenance["labels_left_out"] == ["NAME"]


def test_examples_that_the_tokenizer_merges_are_replaced_and_counted(monkeypatch, words) -> None:
    bad = example(prompt(("Zorblax was", None)), prompt(("Tom was", None)))
    good = example(prompt(("Sara was", None)), prompt(("Tom was", None)))
    found = built(monkeypatch, [bad, good], words, n=2)
    assert found.clean_texts == ("Sara was", "Sara was")
    assert found.provenance["misaligned_left_out"] == 2


def test_when_nothing_fits_the_reasons_are_given(monkeypatch, words) -> None:
    bad = example(prompt(("Zorblax was", None)), prompt(("Tom was", None)))
    with pytest.raises(BehaviourError, match=r"'ioi' with this tokenizer.*\n.*'Zorblax'"):
        built(monkeypatch, [bad], words, n=2)


def test_labels_at_different_places_are_refused(monkeypatch, words) -> None:
    crossed = example(
        prompt(("Sara", "NAME"), (" and Tom", None)), prompt(("Sara and", None), (" Tom", "NAME"))
    )
    with pytest.raises(BehaviourError, match=r"token 0 of clean .* and token 2 of corrupt"):
        built(monkeypatch, [crossed], words)


@pytest.mark.parametrize("name", list(GENERATORS))
def test_gpt2s_tokenizer(shared, name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shared / "data/gpt2_tokenizer")
    behaviour = build(name, tokenizer, n=20)
    assert len(behaviour) == 20
