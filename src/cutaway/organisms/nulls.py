"""Null cases: models and prompts in which there is no circuit to be found.

| kind | model | prompts |
|---|---|---|
| `untrained` | the random start from which a trained organism set out | the program's pairs |
| `shuffled-answers` | a trained organism | each pair has the answers of another pair |
| `shuffled-pairs` | a trained organism | the same, and each clean prompt is held against the |
|                  |                   | corrupt prompt of another pair of its length |

An untrained model computes something, and prompts with shuffled answers move its logits, so the
metric has an effect in every one of them, by chance of one sign or the other. What is missing is
the behaviour: the answers have nothing to do with the prompts, or the model nothing to do with
the answers. (Two pairs may have the same answers: of few different ones, some prompts are given
what they had. With other corrupt prompts but its own answers a pair is no null: that is resampling,
and the model does what it always does.)
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from cutaway.behaviours.behaviour import Behaviour
from cutaway.behaviours.shuffle import displaced, other_answers
from cutaway.model.load import open_model
from cutaway.organisms.organism import Organism, OrganismError, constructed
from cutaway.organisms.shipped import trained
from cutaway.organisms.training.train import RECIPES, fresh


def null(kind: str, name: str, *, n: int = 40, seed: int = 0) -> Organism:
    """A null case of one of `NULLS`, with `n` pairs and no true edge; `seed` draws all of it.

    Raises:
        OrganismError: there is no such kind, or no model of this name.
    """
    if kind not in NULLS:
        raise OrganismError(f"There is no null case {kind!r}; choose one of {', '.join(NULLS)}.")
    found = NULLS[kind](name, n, seed)
    return replace(found, name=f"{name}-{kind}-{seed}", edges=())


def _untrained(name: str, n: int, seed: int) -> Organism:
    teacher = constructed(name, n=n, seed=seed)
    start = fresh(teacher.program, replace(RECIPES[name], seed=seed), teacher.model.n_heads)
    model = open_model(start.eval(), tokenizer=teacher.model.tokenizer)
    model.name = f"{name}-untrained-{seed}"
    return replace(teacher, model=model)


def _shuffled_answers(name: str, n: int, seed: int) -> Organism:
    found = trained(name, n=n, seed=seed)
    return replace(found, behaviour=other_answers(found.behaviour, random.Random(seed)))


def _shuffled_pairs(name: str, n: int, seed: int) -> Organism:
    found, draw = trained(name, n=n, seed=seed), random.Random(seed)
    behaviour = _other_corrupt(other_answers(found.behaviour, draw), draw)
    return replace(found, behaviour=behaviour)


NULLS: Mapping[str, Callable[[str, int, int], Organism]] = MappingProxyType(
    {
        "untrained": _untrained,
        "shuffled-answers": _shuffled_answers,
        "shuffled-pairs": _shuffled_pairs,
    }
)
"""The kinds of null cases by name: each makes one from a model's name, a number of pairs and a
seed."""


def _other_corrupt(behaviour: Behaviour, draw: random.Random) -> Behaviour:
    by_length: dict[int, list[int]] = {}
    for row, length in enumerate(behaviour.clean.lengths.tolist()):
        by_length.setdefault(length, []).append(row)
    order = list(range(len(behaviour)))
    for rows in by_length.values():
        for row, other in zip(rows, displaced(len(rows), draw), strict=True):
            order[row] = rows[other]
    return replace(
        behaviour,
        corrupt=behaviour.corrupt.rows(order),
        corrupt_texts=tuple(behaviour.corrupt_texts[row] for row in order),
        corrupt_token_texts=tuple(behaviour.corrupt_token_texts[row] for row in order),
    )
