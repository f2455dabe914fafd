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
from collections.abc import Mapping

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
from cutaway.behaviours.builtin.slots import Choice, Filled, Recipe
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
    pools = _pools(vocabulary)

    def draw() -> Example:
        kinds = _kinds(rng, wanted["names"])
        io, subject = _people(rng, pools, kinds)
        others = _people(rng, pools, (rng.choice(kinds), *kinds, kinds[0]), besides=(io, subject))
        template = pick(rng, wanted["template"], TEMPLATES + HELD_OUT_TEMPLATES)
        order = pick(rng, wanted["order"], ("ABBA", "BABA"))
        setting = {kind: rng.choice(pools[kind]) for kind in ("PLACE", "OBJECT")}
        sentence = _distractor(rng, wanted["distractor"])
        people = {"IO": io, "S": subject, "C": others[3]}
        choice = {**people, **setting, "template": template, "order": order, "distractor": sentence}
        swap = wanted["corruption"] == "name-swap"
        unrelated = dict[str, str](IO=others[0], S1=others[1], S2=others[2])
        filled = _filled(choice)
        return Example(
            clean=filled.clean,
            corrupt=_prompt(choice, {"S2": io} if swap else unrelated),
            answers=filled.answers,
            wrong_answers=filled.wrong_answers,
            variation={
                **wanted,
                "template": template,
                "order": order,
                "names": kinds[0] if kinds[0] == kinds[1] else "mixed",
                "IO": io,
                "S": subject,
            },
            held_out=template in HELD_OUT_TEMPLATES or held_out(io) or held_out(subject),
            slots=choice,
        )

    return collect(NAME, n, split, draw)


def recipe(vocabulary: Vocabulary) -> Recipe:
    """Every choice: template, order, three people (C is in some distractors), place and object."""
    pools = _pools(vocabulary)
    people = tuple(pools["female"] + pools["male"])
    return Recipe(
        slots={
            "template": TEMPLATES + HELD_OUT_TEMPLATES,
            "order": ("ABBA", "BABA"),
            "distractor": ("", *words.DISTRACTORS, *words.NAME_DISTRACTORS),
            **dict.fromkeys(("IO", "S", "C"), people),
            **{kind: tuple(pools[kind]) for kind in ("PLACE", "OBJECT")},
        },
        write=_written,
    )


def _pools(vocabulary: Vocabulary) -> dict[str, list[str]]:
    """The words of each kind that are one token."""
    return {
        kind: single_tokens(NAME, what, listed, vocabulary, at_least=least)
        for kind, what, listed, least in (
            ("female", "female names", words.FEMALE_NAMES, 7),
            ("male", "male names", words.MALE_NAMES, 7),
            ("PLACE", "places", words.PLACES, 2),
            ("OBJECT", "objects", words.OBJECTS, 2),
        )
    }


def _written(choice: Choice) -> Filled | None:
    """The prompt, where the people in it are different ones."""
    third = "{C}" in choice["distractor"]
    people = [choice[kind] for kind in (("IO", "S", "C") if third else ("IO", "S"))]
    return _filled(choice) if len(set(people)) == len(people) else None


def _filled(choice: Choice) -> Filled:
    """The clean prompt, where IO is right and S is wrong."""
    return Filled(
        clean=_prompt(choice, {}),
        answers=(f" {choice['IO']}",),
        wrong_answers=(f" {choice['S']}",),
    )


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


def _prompt(choice: Choice, others: Mapping[str, str]) -> Prompt:
    """The prompt, with others in the places that `others` names by their labels."""
    first, second = ("IO", "S1") if choice["order"] == "ABBA" else ("S1", "IO")
    labels = {"A": first, "B": second, "S": "S2"}
    after = {"A" if first == "S1" else "B": "S1+1"}
    names = {"IO": choice["IO"], "S1": choice["S"], "S2": choice["S"], **others}
    slots = {slot: names[label] for slot, label in labels.items()}
    slots |= {kind: choice[kind] for kind in ("PLACE", "OBJECT")}
    sentence = choice["distractor"].replace("{C}", choice["C"])
    return preceded(fill(choice["template"], slots, labels, after=after), sentence)


def _distractor(rng: random.Random, kind: str) -> str:
    """A sentence to stand before the prompt; {C} is a third person."""
    if kind == "none":
        return ""
    return rng.choice(words.DISTRACTORS if kind == "sentence" else words.NAME_DISTRACTORS)
