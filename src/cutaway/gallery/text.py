"""The text that the shipped model is trained on, written by a seeded generator.

A document is one of:

1. a behaviour's clean prompt with its answer and an ending. The prompts come from the built-in
   generators with split="train", so that held-out names, templates and combinations never occur in
   a behaviour's own text;
2. a short story about one person, which has every name, held-out ones too, so that the model knows
   each name, its gender, and that things are given to it. No second person has a name, so a
   story is no case of indirect object identification; and held-out names never meet "she" or "he";
3. other people's telephone numbers, random but for the area code;
4. two people, with any names, to whom somebody without a name gives things; nobody named gives;
5. a few random words repeated over and over, which teaches copying before anything else;
6. a word spelled in letters, now and then.

Everything is a function of the random generator that is passed in.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache

from cutaway.behaviours.builtin import GENERATORS, phone_number, words
from cutaway.behaviours.builtin.sampling import held_out
from cutaway.behaviours.example import Example

PATTERN = r" ?[A-Z](?![a-z])| ?[A-Za-z][a-z]*(?:'[a-z]+)?| ?\d\d| ?\d| ?[^\sA-Za-z\d]|\s"
"""A word with the space before it, a lone capital letter, two digits, or another character."""

WEIGHTS = {
    "ioi": 28,
    "gendered-pronouns": 8,
    "greater-than": 6,
    "acronyms": 12,
    "induction": 20,
    "capitals": 9,
    "phone-number": 3,
    "story": 16,
    "repetition": 3,
    "spelling": 1,
}
"""How often each kind of document is written."""

PRIMER = {"repetition": 1}
"""What the model reads first: with nothing but repetitions it soon learns to copy."""

FINISH = WEIGHTS | {"sharing": 14, "acronyms": 16, "phone-number": 2, "capitals": 5}
"""What it reads last. Two people are given things here who may have held-out names: without it the
model knows by heart who is never an indirect object."""

VARIED: dict[str, tuple[dict[str, str], ...]] = {
    "induction": (
        {"words": "mixed"},
        {"words": "common"},
        {"words": "names"},
        *({"length": length} for length in ("16", "20", "24")),
    ),
    "ioi": ({}, {}, {}, {"distractor": "sentence"}, {"distractor": "name"}),
}
"""The variations that a behaviour's prompts are drawn with; others now and then get a sentence
in front."""

_PLAIN: tuple[dict[str, str], ...] = ({}, {}, {}, {"distractor": "sentence"})

ADJECTIVES = ("old", "new", "small", "big", "red", "blue", "green", "shiny", "strange", "pretty")
MOODS = ("happy", "sad", "tired", "proud", "angry", "calm", "hungry", "afraid")
GAVE = (
    *("gave", "handed", "sent", "offered", "showed", "threw", "sold", "brought", "passed", "lent"),
    *("decided to give", "wanted to give"),
)
FAMILY = ("mother", "father", "sister", "brother", "friend", "teacher")


@lru_cache(maxsize=100_000)
def is_piece(text: str) -> bool:
    """Whether a text is one piece of `PATTERN`: one token of the shipped tokenizer if known."""
    return re.fullmatch(PATTERN, text) is not None


def documents(rng: random.Random, count: int, weights: Mapping[str, float] = WEIGHTS) -> list[str]:
    """`count` documents in random order, in the proportions of `weights`."""
    kinds = rng.choices(list(weights), weights=list(weights.values()), k=count)
    wanted = {kind: kinds.count(kind) for kind in weights}
    written = {kind: iter(_written(rng, kind, n)) for kind, n in wanted.items() if n}
    return [next(written[kind]) for kind in kinds]


def _written(rng: random.Random, kind: str, n: int) -> list[str]:
    if kind == "story":
        return [story(rng) for _ in range(n)]
    if kind == "spelling":
        return [_spelling(rng) for _ in range(n)]
    if kind == "sharing":
        return [_sharing(rng) for _ in range(n)]
    if kind == "repetition":
        return [_repetition(rng) for _ in range(n)]
    variations = VARIED.get(kind, _PLAIN)
    shares = [len(range(start, n, len(variations))) for start in range(len(variations))]
    found: list[str] = []
    for variation, share in zip(variations, shares, strict=True):
        for amount in _chunks(share, 60):
            examples = GENERATORS[kind](
                rng, amount, vocabulary=is_piece, split="train", **variation
            )
            found += [ENDINGS[kind](rng, example) for example in examples]
    rng.shuffle(found)
    return found


def _chunks(total: int, size: int) -> Iterator[int]:
    """Sizes up to `size` that add up to `total`: few enough for the smallest behaviour."""
    while total > 0:
        yield min(total, size)
        total -= size


def _ioi(rng: random.Random, example: Example) -> str:
    io, subject = example.answers[0], example.wrong_answers[0]
    ending = rng.choice((".", f".{io} thanked{subject}.", f", and{io} said thanks to{subject}."))
    return f"{example.clean.text}{io}{ending}"


def _pronouns(rng: random.Random, example: Example) -> str:
    pronoun = example.answers[0]
    if example.clean.text.endswith("isn't"):
        return f"{example.clean.text}{pronoun}?"
    their = " her" if pronoun == " she" else " his"
    ending = rng.choice(
        (
            f" was {rng.choice(MOODS)}.",
            f" went home with{their} {rng.choice(FAMILY)}.",
            f" lost{their} {rng.choice(words.OBJECTS)}.",
        )
    )
    return f"{example.clean.text}{pronoun}{ending}"


def _greater_than(rng: random.Random, example: Example) -> str:
    return f"{example.clean.text}{rng.choice(example.answers)}."


def _acronyms(rng: random.Random, example: Example) -> str:
    return f"{example.clean.text}{example.answers[0]}){rng.choice(('.', ' is in the city.'))}"


def _induction(_: random.Random, example: Example) -> str:
    length = int(example.variation["length"])
    reading = "".join(text for text, _ in example.clean.pieces[:length])
    return reading * max(2, 40 // length)


def _capitals(rng: random.Random, example: Example) -> str:
    return f"{example.clean.text}{example.answers[0]}."


def _phone_number(rng: random.Random, example: Example) -> str:
    shown = " ".join(phone_number.NUMBER[: int(example.variation["shown"])])
    if rng.random() < 0.5:
        return f"{example.clean.text[: -len(shown)]}{' '.join(phone_number.NUMBER)}."
    digits = (*phone_number.NUMBER[:3], f"{rng.randrange(100):02d}", f"{rng.randrange(100):02d}")
    return f"{example.corrupt.text[: -len(shown)]}{' '.join(digits)}."


ENDINGS: dict[str, Callable[[random.Random, Example], str]] = {
    "ioi": _ioi,
    "gendered-pronouns": _pronouns,
    "greater-than": _greater_than,
    "acronyms": _acronyms,
    "induction": _induction,
    "capitals": _capitals,
    "phone-number": _phone_number,
}
"""How an example of each behaviour becomes a document."""


def story(rng: random.Random) -> str:
    """A few sentences about one person and one thing."""
    female = rng.random() < 0.5
    name = rng.choice(words.FEMALE_NAMES if female else words.MALE_NAMES)
    their, child, she = ("her", "girl", "She") if female else ("his", "boy", "He")
    thing, place, family = rng.choice(words.OBJECTS), rng.choice(words.PLACES), rng.choice(FAMILY)
    adjective = rng.choice(ADJECTIVES)
    sentences = [
        f"{name} was a {child} who lived near the {place}.",
        f"One day, {name} found a {adjective} {thing} in {their} bag.",
        f"{name} took the {thing} to the {place}.",
        f"The {thing} was {adjective}, and {name} liked it.",
        f"{name} told {their} {family} about the {thing}.",
        f"The {family} {rng.choice(GAVE)} the {thing} to {name}.",
        f"The {family} of {name} said that the {thing} was {adjective}.",
        f"In the end, {name} went home with {their} {thing}.",
    ]
    if not held_out(name):
        sentences += [
            f"{she} was {rng.choice(MOODS)} and went to the {place}.",
            f"{name} said that {she.lower()} was {rng.choice(MOODS)}.",
        ]
    chosen = sorted(rng.sample(range(len(sentences)), rng.randint(2, 4)))
    if chosen[0] >= 8:  # a pronoun needs somebody to stand for
        chosen[0] = 0
    return " ".join(sentences[index] for index in chosen)


def _sharing(rng: random.Random) -> str:
    first, second = rng.sample((*words.FEMALE_NAMES, *words.MALE_NAMES), 2)
    place, giver, gave = rng.choice(words.PLACES), rng.choice(FAMILY), rng.choice(GAVE)
    one, other = rng.sample(words.OBJECTS, 2)
    opening = rng.choice(
        (
            f"One day, {first} and {second} went to the {place}.",
            f"When {first} and {second} came to the {place}, the {giver} was {rng.choice(MOODS)}.",
            f"After {first} and {second} found the {place}, the {giver} came home.",
        )
    )
    if rng.random() < 0.5:
        first, second = second, first
    link = rng.choice((f" and a {other} to", f". Then, the {giver} {gave} a {other} to"))
    return f"{opening} The {giver} {gave} a {one} to {first}{link} {second}."


def _repetition(rng: random.Random) -> str:
    length = rng.randint(3, 12)
    reading = "".join(f" {word}" for word in rng.sample(_REPEATED, length))
    return reading * max(2, 31 // length)


_REPEATED = sorted(
    {*words.COMMON_WORDS, *words.FEMALE_NAMES, *words.MALE_NAMES, *words.TITLES, *words.CAPITALS}
)


def _spelling(rng: random.Random) -> str:
    letters = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 6)))
    number = rng.randrange(10)
    return f"The word {letters} has {number} friends, and {letters} has {number} sisters."
