"""The training text: seeded, fully known to the tokenizer, and silent about what is held out."""

import random
import re

import pytest

from cutaway.behaviours.builtin import (
    GENERATORS,
    acronyms,
    capitals,
    gendered_pronouns,
    greater_than,
    ioi,
    phone_number,
    words,
)
from cutaway.behaviours.builtin.sampling import held_out
from cutaway.gallery.text import FINISH, GAVE, PATTERN, WEIGHTS, documents, is_piece, story
from cutaway.gallery.tokenizer import build

TEMPLATES = {
    file.NAME: file.HELD_OUT_TEMPLATES
    for file in (ioi, gendered_pronouns, greater_than, acronyms, capitals, phone_number)
}


@pytest.fixture(scope="module")
def text() -> list[str]:
    return documents(random.Random(5), 6000) + documents(random.Random(5), 3000, FINISH)


@pytest.fixture(scope="module")
def tokenizer():
    return build(128)


def test_the_same_seed_writes_the_same_text(text: list[str]) -> None:
    assert documents(random.Random(5), 6000) == text[:6000]
    assert documents(random.Random(6), 6000) != text[:6000]


def test_every_behaviour_is_in_the_text() -> None:
    assert set(GENERATORS) <= set(WEIGHTS)


@pytest.mark.parametrize("name", TEMPLATES)
def test_held_out_templates_are_never_in_the_text(name: str, text: list[str]) -> None:
    whole = "\n".join(text)
    for template in TEMPLATES[name]:
        pattern = re.sub(r"\\\{\w+\\\}", r"[A-Za-z0-9 ]+?", re.escape(template))
        assert re.search(pattern, whole) is None, template


def test_held_out_names_are_known_but_never_indirect_objects(text: list[str]) -> None:
    people = {*words.FEMALE_NAMES, *words.MALE_NAMES}
    kept = {name for name in people if held_out(name)}
    assert len(kept) >= 15
    whole = "\n".join(text)
    assert all(re.search(rf"\b{name}\b", whole) for name in kept)
    pair = re.compile(r"\b([A-Z][a-z]+) and ([A-Z][a-z]+)\b")
    gives = re.compile(rf"\b([A-Z][a-z]+) (?:{'|'.join(GAVE)}|said hello)\b")
    identified = 0
    for line in text:
        named = {name for found in pair.findall(line) for name in found}
        if named & set(gives.findall(line)):
            identified += 1
            assert not named & kept
    assert identified > 2000


def test_held_out_names_never_stand_beside_a_pronoun() -> None:
    rng = random.Random(0)
    for _ in range(2000):
        told = story(rng)
        named = next(word for word in re.findall(r"[A-Z][a-z]+", told)
                     if word in words.FEMALE_NAMES + words.MALE_NAMES)  # fmt: skip
        assert not (held_out(named) and re.search(r"\b([Ss]he|[Hh]e)\b", told))


@pytest.mark.parametrize("name", list(GENERATORS))
def test_no_held_out_prompt_is_in_the_text(name: str, text: list[str]) -> None:
    whole = "\n".join(text)
    prompts = GENERATORS[name](random.Random(1), 100, vocabulary=is_piece, split="held-out")
    for example in prompts:
        assert not any(f"{example.clean.text}{answer}" in whole for answer in example.answers)


def test_the_tokenizer_gives_every_text_back(text: list[str], tokenizer) -> None:
    odd = ["Zoë's café — 3 €, 1732!", "  two  spaces\n\ttab", "HELLO World", "🙂", "x" * 50]
    for line in text[:300] + odd:
        ids = tokenizer(line)["input_ids"]
        assert ids[0] == tokenizer.bos_token_id
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids[1:]) == line


def test_every_word_of_every_behaviour_is_one_token(tokenizer) -> None:
    for name, generate in GENERATORS.items():
        for example in generate(random.Random(3), 200, vocabulary=is_piece):
            for piece in re.findall(PATTERN, example.clean.text):
                ids = tokenizer(piece, add_special_tokens=False)["input_ids"]
                assert len(ids) == 1, (name, piece)


def test_the_text_has_every_word_of_the_held_out_prompts(text: list[str]) -> None:
    seen = {piece for line in text for piece in re.findall(PATTERN, line)}
    for generate in GENERATORS.values():
        for example in generate(random.Random(4), 200, vocabulary=is_piece, split="held-out"):
            used = set(re.findall(PATTERN, example.clean.text))
            assert not {piece for piece in used if not piece.strip().isdigit()} - seen
