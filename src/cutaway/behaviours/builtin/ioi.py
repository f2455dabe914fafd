"""Indirect object identification (Wang et al. 2022, "Interpretability in the Wild").

"When Mary and John went to the store, John gave a drink to" is followed by " Mary": of the two
names, the one that was not repeated. S (the subject) occurs twice, IO (the indirect object) once.

1. Order: "ABBA" names IO first, "BABA" names S first.
2. Corruption: "name-swap" makes the second mention the other name, so that the right answer becomes
   the wrong one; "ABC" puts three unrelated names in the three places, so that neither is right.
3. Labels: IO, S1, S1+1 (the token after S1), S2, end.

Held out: every example whose clean prompt has a held-out name or a held-out template.
"""

from __future__ import annotations

import random

from cutaway.behaviours.builtin import words
from cutaway.behaviours.builtin.sampling import (
    ANY,
    Split,
    Vocabulary,
    choose,
    collect,
    fill,
    held_out,
    pick,
    preceded,
    single_tokens,
)
from cutaway.behaviours.example import Example, Prompt

NAME = "ioi"
DESCRIPTION = "Indirect object identification: of two people, the one who is given something."

TEMPLATES = (
    "When {A} and {B} went to the {PLACE}, {S} gave a {OBJECT} to",
    "When {A} and {B} were at the {PLACE}, {S} handed a {OBJECT} to",
    "When {A} and {B} got a {OBJECT} at the {PLACE}, {S} decided to give it to",
    "Then, {A} and {B} went to the {PLACE}, and {S} gave a {OBJECT} to",
    "Then, {A} and {B} had a long talk at the {PLACE}. Later, {S} sent a {OBJECT} to",
    "Then, {A} and {B} were working at the {PLACE}. {S} decided to give a {OBJECT} to",
    "After {A} and {B} went to the {PLACE}, {S} offered a {OBJECT} to",
    "After {A} and {B} found a {OBJECT} at the {PLACE}, {S} gave it to",
    "While {A} and {B} were walking to the {PLACE}, {S} showed the {OBJECT} to",
    "While {A} and {B} were waiting at the {PLACE}, {S} threw a {OBJECT} to",
    "Yesterday, {A} and {B} met at the {PLACE}, where {S} sold a {OBJECT} to",
    "Once upon a time, {A} and {B} lived near the {PLACE}. One day, {S} brought a {OBJECT} to",
    "The friends {A} and {B} had lunch at the {PLACE}, and then {S} passed the {OBJECT} to",
    "Afterwards, {A} and {B} visited the {PLACE}. {S} wanted to give the {OBJECT} to",
    "In the evening, {A} and {B} came to the {PLACE}, and {S} lent a {OBJECT} to",
    "Last week, {A} and {B} went to the {PLACE}. {S} said hello and gave a {OBJECT} to",
)
"""A and B are the two people in the order of the text; S is the one who is named again."""

HELD_OUT_TEMPLATES = (
    "Then, {A} and {B} were waiting at the {PLACE}, and {S} handed the {OBJECT} to",
    "After {A} and {B} had lunch at the {PLACE}, {S} sent a {OBJECT} to",
    "While {A} and {B} were at the {PLACE}, {S} decided to give a {OBJECT} to",
    "Last week, {A} and {B} met near the {PLACE}. Later, {S} brought the {OBJECT} to",
)

VARIATIONS = {
    "template": (ANY, *TEMPLATES, *HELD_OUT_TEMPLATES),
    "order": (ANY, "ABBA", "BABA"),
    "corruption": ("name-swap", "ABC"),
    "names": (ANY, "female", "male", "mixed"),
    "distractor": ("none", "sentence", "name"),
}


def generate(
    rng: random.Random,
    n: int,
    *,
    vocabulary: Vocabulary,
    split: Split = "all",
    **variation: str,
) -> list[Example]:
    """`n` examples; see the module for what varies."""
    wanted = choose(NAME, VARIATIONS, variation)
    pools = {
        kind: single_tokens(NAME, f"{kind} names", listed, vocabulary, at_least=7)
        for kind, listed in (("female", words.FEMALE_NAMES), ("male", words.MALE_NAMES))
    }
    places = single_tokens(NAME, "places", words.PLACES, vocabulary, at_least=2)
    objects = single_tokens(NAME, "objects", words.OBJECTS, vocabulary, at_least=2)

    def draw() -> Example:
        kinds = _kinds(rng, wanted["names"])
        io, subject = _people(rng, pools, kinds)
        others = _people(rng, pools, (rng.choice(kinds), *kinds, kinds[0]), besides=(io, subject))
        template = pick(rng, wanted["template"], TEMPLATES + HELD_OUT_TEMPLATES)
        order = pick(rng, wanted["order"], ("ABBA", "BABA"))
        setting = {"PLACE": rng.choice(places), "OBJECT": rng.choice(objects)}
        swap = wanted["corruption"] == "name-swap"
        people = (io, subject)
        clean, corrupt = _pair(template, order, people, None if swap else others, setting)
        sentence = _distractor(rng, wanted["distractor"], others[3])
        return Example(
            clean=preceded(clean, sentence),
            corrupt=preceded(corrupt, sentence),
            answers=(f" {io}",),
            wrong_answers=(f" {subject}",),
            variation={
                **wanted,
                "template": template,
                "order": order,
                "names": kinds[0] if kinds[0] == kinds[1] else "mixed",
                "IO": io,
                "S": subject,
            },
            held_out=template in HELD_OUT_TEMPLATES or held_out(io) or held_out(subject),
        )

    return collect(NAME, n, split, draw)


def _kinds(rng: random.Random, names: str) -> tuple[str, str]:
    if names == "mixed":
        return rng.choice((("female", "male"), ("male", "female")))
    if names == ANY:
        return rng.choice(("female", "male")), rng.choice(("female", "male"))
    return names, names


def _people(
    rng: random.Random,
    pools: dict[str, list[str]],
    kinds: tuple[str, ...],
    *,
    besides: tuple[str, ...] = (),
) -> list[str]:
    """One name of each kind, all different."""
    found: list[str] = []
    for kind in kinds:
        name = rng.choice(pools[kind])
        while name in found or name in besides:
            name = rng.choice(pools[kind])
        found.append(name)
    return found


def _pair(
    template: str,
    order: str,
    people: tuple[str, str],
    unrelated: list[str] | None,
    setting: dict[str, str],
) -> tuple[Prompt, Prompt]:
    """The clean prompt and the corrupt one: with unrelated people, or else with S2 swapped."""
    io, subject = people
    first, second = ("IO", "S1") if order == "ABBA" else ("S1", "IO")
    labels = {"A": first, "B": second, "S": "S2"}
    after = {"A" if first == "S1" else "B": "S1+1"}
    clean = dict[str, str](IO=io, S1=subject, S2=subject)
    corrupt = clean | {"S2": io}
    if unrelated is not None:
        corrupt = dict[str, str](IO=unrelated[0], S1=unrelated[1], S2=unrelated[2])

    def filled(names: dict[str, str]) -> Prompt:
        slots = {slot: names[label] for slot, label in labels.items()} | setting
        return fill(template, slots, labels, after=after)

    return filled(clean), filled(corrupt)


def _distractor(rng: random.Random, kind: str, third: str) -> str:
    if kind == "none":
        return ""
    if kind == "sentence":
        return rng.choice(words.DISTRACTORS)
    return rng.choice(words.NAME_DISTRACTORS).replace("{C}", third)
