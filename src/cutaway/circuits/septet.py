"""What the shipped model does, as hypotheses, and prompts on which they can be tested.

`IOI`: septet does not copy the name from where it stood, as GPT-2 small does (Wang et al. 2022).
Already at the second mention of the subject, the first MLP works out, from the names that the first
layer's heads bring there, which of them is not the subject; six heads of the next two layers look
from the end at that place, copy what was worked out, and the last MLP says it.

`INDUCTION`: the first layer's heads bring what stood earlier to each word, and the first MLP works
out there what follows; all that comes later only hands that on. There is no head that looks for the
previous token's match, as there is in two-layer attention-only models (Elhage et al. 2021).

Both claim more than the built-in behaviours can test: with sixty names hardly any two prompts share
a pair of them. `prompts` gives prompts in which few names or words come again and again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from types import MappingProxyType

from cutaway.behaviours.behaviour import Behaviour
from cutaway.circuits.graph import CircuitError
from cutaway.circuits.hypotheses import Hypothesis, Node
from cutaway.model.model import Model

_FIRST = tuple(f"a0.h{head}" for head in range(5))
_LATER = tuple(f"a{layer}.h{head}" for layer in range(1, 5) for head in range(5))
_PAIR = "token at IO & token at S2"

IOI = Hypothesis(
    name="ioi",
    description=(
        "The first MLP works out at the second mention of the subject which name is the other one; "
        "heads of layers 1 and 2 copy it to the end, and the last MLP says it."
    ),
    nodes=(
        Node(name="saying", parts=("m4",), agrees=_PAIR, reads={"mlp": ("copying",)}),
        Node(
            name="copying",
            parts=("a1.h0", "a1.h2", "a1.h3", "a2.h2", "a2.h3", "a2.h4"),
            agrees=_PAIR,
            reads={"q": (), "k": (), "v": ("working out",)},
        ),
        Node(
            name="working out",
            parts=("m0",),
            agrees=_PAIR,
            reads={"mlp": ("subject", "gathering")},
        ),
        Node(name="subject", parts=("input",), agrees="token at S2"),
        Node(name="gathering", parts=_FIRST, agrees=_PAIR),
    ),
    logits=("saying", "copying"),
    within="place of S2",
)
"""Indirect object identification in septet."""

INDUCTION = Hypothesis(
    name="induction",
    description=(
        "The first MLP works out which word follows, from what the first layer's heads bring; all "
        "later parts hand it on."
    ),
    nodes=(
        Node(
            name="saying",
            parts=(*_LATER, "m1", "m2", "m3", "m4"),
            agrees="token at B1",
            reads=dict.fromkeys(("q", "k", "v", "mlp"), ("working out",)),
        ),
        Node(
            name="working out", parts=("m0",), agrees="token at B1", reads={"mlp": ("gathering",)}
        ),
        Node(name="gathering", parts=_FIRST, agrees="token at B1"),
    ),
    logits=("saying", "working out"),
    within="place of A1",
)
"""Induction in septet."""

HYPOTHESES: Mapping[str, Hypothesis] = MappingProxyType({"ioi": IOI, "induction": INDUCTION})
"""The built-in hypotheses by the behaviour that they are about."""

_NAMES = ("Mary", "Anna", "Emma", "Alice", "Sarah", "Laura", "Julia", "Rachel")
_PLACES = ("school", "park", "store", "office", "museum", "garden")
_OBJECTS = ("book", "letter", "camera", "ring", "gift", "drink")
_WORDS = (
    "Academic", "Allison", "Amber", "American", "Andrea", "Andrew", "Angela", "Applied", "Ashley",
    "Asian", "Austria", "Barbara", "Basic", "Biology", "Board", "Brain",
)  # fmt: skip
_LENGTH = 8
_MOST = 2000

Pair = tuple[str, str, str, tuple[str, ...], dict[str, str]]
"""Clean text, corrupt text, answer, wrong answers, and the word that each label names."""


def prompts(name: str, model: Model, *, n: int = 800, seed: int = 0) -> Behaviour:
    """`n` pairs of the behaviour in which the features of its built-in hypothesis come again.

    All are of one template and length; `ioi` has 8 names, `induction` 16 words in rows of 8.
    Raises `CircuitError` for a behaviour without a built-in hypothesis, and for more than 2000
    pairs; `ProblemsError` where the words are not one token each.
    """
    if name not in _DRAWN:
        raise CircuitError(
            f"There is no built-in hypothesis for {name!r}; there are {', '.join(_DRAWN)}."
        )
    if not 2 <= n <= _MOST:
        raise CircuitError(f"n goes from 2 to {_MOST}; found {n}.")
    draw, found = random.Random(seed), dict[str, Pair]()
    while len(found) < n:
        one = _DRAWN[name](draw)
        found[one[0]] = one
    pairs = list(found.values())
    return Behaviour.from_pairs(
        [one[0] for one in pairs],
        [one[1] for one in pairs],
        [one[2] for one in pairs],
        [one[3] for one in pairs],
        model.tokenizer,
        labels={label: [one[4][label] for one in pairs] for label in pairs[0][4]},
        name=name,
        description=HYPOTHESES[name].description,
    )


def _ioi(draw: random.Random) -> Pair:
    other, subject = draw.sample(_NAMES, 2)
    first, second = draw.sample((other, subject), 2)
    place, thing = draw.choice(_PLACES), draw.choice(_OBJECTS)
    start = f"After {first} and {second} went to the {place},"
    clean, corrupt = (f"{start} {who} offered a {thing} to" for who in (subject, other))
    labels = {"IO": other, "S1": f"{subject}#1", "S2": f"{subject}#2"}
    return clean, corrupt, f" {other}", (f" {subject}",), labels


def _induction(draw: random.Random) -> Pair:
    row, unrelated = draw.sample(_WORDS, _LENGTH), draw.sample(_WORDS, _LENGTH)
    last = draw.randrange(1, _LENGTH - 1)
    again = row[: last + 1]
    clean, corrupt = ("".join(f" {word}" for word in (*one, *again)) for one in (row, unrelated))
    wrong = tuple(f" {word}" for word in row if word != row[last + 1])
    return clean, corrupt, f" {row[last + 1]}", wrong, {"A1": f"{row[last]}#1", "B1": row[last + 1]}


_DRAWN: Mapping[str, Callable[[random.Random], Pair]] = {"ioi": _ioi, "induction": _induction}
