"""Models in which one head does one known thing, and pairs like those of indirect objects.

A prompt is `<bos> … A … B … S … >` with fillers in between: two names, and one of them again. The
answer is the other one. `by_value` hands on which name was said again, `by_place` where it stood
first, `by_both` half of each; `suppressing` says the last name and then takes half of it back.
"""

from __future__ import annotations

import random

import torch

from cutaway.behaviours import Behaviour
from cutaway.model import Model, open_model
from cutaway.organisms.compiler import compiled, tokenizer
from cutaway.organisms.program import Program, Read, Variable, always, number, read

NAMES, FILLERS, END = "abcdef", ("fa", "fb", "fc", "fd", "fe", "ff"), ">"
LENGTH = 9
LETTERS = ("ab", "ac", "ad", "bb", "bc", "bd", "cb", "cc", "cd")


def opened_program(made: Program, seed: int = 0) -> Model:
    return open_model(compiled(made, seed=seed), tokenizer=tokenizer(made))


def program() -> Program:
    return Program(words=(*NAMES, *FILLERS, END), length=LENGTH)


def latest_name(made: Program) -> Read:
    """A key: the last name wins, whatever stands between."""
    places = {place: 0.5 * place for place in range(LENGTH)}
    return number(made.token, {made.id(name): 8.0 for name in NAMES}) + number(
        made.position, places
    )


def beside(*blocks: tuple[Variable, float], bias: float | None = None) -> Read:
    """Variables side by side, each times a number, and a last column that is always `bias`."""
    width = sum(variable.size for variable, _ in blocks) + (bias is not None)
    weights: dict[Variable, torch.Tensor] = {}
    start = 0
    for variable, times in blocks:
        weights[variable] = torch.zeros(variable.size, width)
        weights[variable][:, start : start + variable.size] = times * torch.eye(variable.size)
        start += variable.size
    always_there = torch.zeros(width)
    if bias is not None:
        always_there[-1] = bias
    return Read(weights=weights, bias=always_there)


def names_beside(made: Program, *variables: Variable) -> Read:
    """A key: variables side by side, and last, whether the token is a name."""
    found = beside(*((variable, 1.0) for variable in variables), bias=0.0)
    for name in NAMES:
        found.weights[made.token][made.id(name), -1] = 1.0
    return found


def by_value() -> Model:
    """`a0.h0` brings the name that was said last to the end; `a1.h1` copies one that it is not."""
    made = program()
    subject = made.variable("subject", made.token.size)
    said = made.variable("said", made.token.size)
    made.head("a0.h0", query=always(), key=latest_name(made), value=read(made.token),
              writes=subject)  # fmt: skip
    made.head("a1.h1", query=beside((subject, -1.0), bias=1.0), key=names_beside(made, made.token),
              value=read(made.token), writes=said)  # fmt: skip
    made.answers(said, made.tokens)
    return opened_program(made)


def by_place() -> Model:
    """`a1.h0` brings to the end where the last name said stands; `a2.h1` looks elsewhere."""
    return opened_program(_pointing(name=0.0, place=1.0))


def by_both() -> Model:
    """`a1.h0` brings the name and its places, and each counts for half."""
    return opened_program(_pointing(name=0.5, place=0.5))


def _pointing(*, name: float, place: float) -> Program:
    made = program()
    where = made.variable("where", LENGTH)
    avoid = made.variable("avoid", made.token.size + LENGTH)
    said = made.variable("said", made.token.size)
    made.head(
        "a0.h0",
        query=beside((made.token, 1.0), (made.position, -2.0)),
        key=beside((made.token, 1.0), (made.position, 1.0)),
        value=read(made.position), writes=where,
    )  # fmt: skip
    named = torch.cat([torch.eye(made.token.size), torch.zeros(made.token.size, LENGTH)], dim=1)
    placed = torch.cat([torch.zeros(LENGTH, made.token.size), torch.eye(LENGTH)], dim=1)
    made.head(
        "a1.h0",
        query=always(), key=latest_name(made),
        value=read(made.token, named) + read(where, placed) + read(made.position, placed),
        writes=avoid,
    )  # fmt: skip
    turned = beside((avoid, 1.0), bias=1.0)
    turned.weights[avoid][: made.token.size] *= -name
    turned.weights[avoid][made.token.size :] *= -place
    made.head(
        "a2.h1", query=turned, key=names_beside(made, made.token, made.position),
        value=read(made.token), writes=said,
    )  # fmt: skip
    made.answers(said, made.tokens)
    return made


def suppressing() -> Model:
    """`a0.h0` says the last name; `a1.h1` looks at what is predicted and takes half of it back."""
    made = program()
    guess = made.variable("guess", made.token.size)
    taken = made.variable("taken", made.token.size)
    made.head("a0.h0", query=always(), key=latest_name(made), value=read(made.token), writes=guess)
    made.head("a1.h1", query=read(guess), key=read(made.token), value=read(made.token),
              writes=taken)  # fmt: skip
    made.answer = read(guess) + read(taken, -0.5 * torch.eye(made.token.size))
    return opened_program(made)


def looking(relation: str) -> Model:
    """`a0.h1` looks along a relation and does nothing else."""
    made = Program(words=LETTERS, length=26)
    seen = made.variable("seen", made.token.size)
    same, here = read(made.token), read(made.position)
    letters = torch.tensor([[float(word[0] == letter) for letter in "abc"] for word in made.tokens])
    letter = torch.cat([letters, torch.eye(made.token.size)], dim=1)
    unlike = torch.cat([letters, -torch.eye(made.token.size)], dim=1)
    query, key = {
        "duplicate token": (
            beside((made.token, 1.0), (made.position, -2.0)),
            beside((made.token, 1.0), (made.position, 1.0)),
        ),
        "first token": (always(), number(made.position, {0: 1.0})),
        "current token": (here, here),
        "previous token": (read(made.position, torch.eye(made.length).roll(-1, dims=1)), here),
        "same letter": (read(made.token, letter), read(made.token, unlike)),
    }[relation]
    made.head("a0.h1", query=query, key=key, value=same, writes=seen)
    made.answers(seen, made.tokens)
    return opened_program(made)


def objects(model: Model, n: int = 24, seed: int = 0) -> Behaviour:
    """Pairs in which the corrupt prompt says the other name again."""
    draw = random.Random(seed)
    clean, corrupt, labels = [], [], {"IO": [], "S1": [], "S2": [], "end": []}
    right, wrong = [], []
    for _ in range(n):
        length = draw.randint(5, LENGTH - 2)
        io, subject = draw.sample(NAMES, 2)
        *first, again = sorted(draw.sample(range(1, length + 1), 3))
        draw.shuffle(first)
        row = ["<bos>", *(draw.choice(FILLERS) for _ in range(length)), END]
        row[first[0]], row[first[1]], row[again] = io, subject, subject
        other = [*row]
        other[again] = io
        clean.append(model.tokenizer.convert_tokens_to_ids(row))
        corrupt.append(model.tokenizer.convert_tokens_to_ids(other))
        for name, place in zip(labels, (*first, again, length + 1), strict=True):
            labels[name].append(place)
        right.append(model.single_token(io))
        wrong.append(model.single_token(subject))
    return Behaviour.from_tokens(
        clean, corrupt, answers=right, wrong_answers=wrong, labels=labels,
        tokenizer=model.tokenizer, name="objects",
    )  # fmt: skip


def last_name(model: Model, n: int = 24, seed: int = 0) -> Behaviour:
    """Three different names; the answer is the last, and the others are wrong."""
    draw = random.Random(seed)
    rows, right, wrong = [], [], []
    for _ in range(n):
        length = draw.randint(5, LENGTH - 2)
        names = draw.sample(NAMES, 3)
        places = sorted(draw.sample(range(1, length + 1), 3))
        row = ["<bos>", *(draw.choice(FILLERS) for _ in range(length)), END]
        for place, name in zip(places, names, strict=True):
            row[place] = name
        rows.append(model.tokenizer.convert_tokens_to_ids(row))
        right.append(model.single_token(names[-1]))
        wrong.append(tuple(model.single_token(name) for name in names[:-1]))
    return Behaviour.from_tokens(
        rows, rows, answers=right, wrong_answers=wrong, tokenizer=model.tokenizer, name="last name"
    )
