"""An MLP's output as a function: added to other prompts, does it make them answer?

Merullo et al. 2023, "Language Models Implement Simple Word2Vec-style Vector Arithmetic", section 5.
What the MLP of a layer writes at the last position of "The capital of Poland is" is added to the
stream, after that layer, at the last position of a prompt that has nothing to do with capitals and
at whose end the model says "China". If the vector is the function rather than its value, the model
now says "Beijing", and not "Warsaw".

1. targets: a subject of the behaviour in a neutral text, which has the subject as its next token;
   sources: a prompt of the behaviour about another subject, that the model answers;
2. for every layer, the reciprocal rank of the target subject's own answer, without anything added
   (`base`), with the MLP's output added (`mlp`), and with a random vector of its norm (`random`);
3. the layer is chosen on half of the targets, and everything is told of the other half;
4. at the chosen layer, the outputs of all other layers' MLPs from the same sources are added as
   well (`elsewhere`): the vector must do more than they.

Neutral texts, when none are given, say three words, the subject and the three words again, so that
the next token is the subject by induction. Deviation: `strength` multiplies what is added (the
paper adds it as it is), since the stream of a small model may drown it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cutaway.behaviours.behaviour import Behaviour
from cutaway.behaviours.builtin.words import COMMON_WORDS
from cutaway.errors import InputError
from cutaway.model.edits import add
from cutaway.model.model import Model
from cutaway.model.tokens import Tokens

_ROWS = 64


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Neutral prompts, and whose answer is looked for."""

    tokens: Tokens
    """The prompts."""
    answers: tuple[tuple[int, ...], ...]
    """For each, its subject's own answers."""
    sources: Int[np.ndarray, " target"]
    """For each, the example of the behaviour that the vector is taken from."""


def targets(
    model: Model,
    behaviour: Behaviour,
    subjects: Sequence[int],
    usable: Sequence[int],
    neutral: Sequence[str] | None,
    many: int,
    draw: random.Random,
) -> Targets:
    """`many` neutral prompts, each with an example about another subject beside it.

    `subjects` are the examples' subject tokens, `usable` the examples that vectors may come from.
    Raises `InputError` where there are no two subjects with different answers, or a text has no
    place for one.
    """
    for text in neutral or ():
        if text.count("{}") != 1:
            raise InputError(f"A neutral text has one {{}} where the subject goes; found {text!r}.")
    known = dict(zip(subjects, behaviour.answers, strict=True))
    texts: list[str] = []
    answers: list[tuple[int, ...]] = []
    sources: list[int] = []
    for _ in range(many):
        token = draw.choice(sorted(known))
        others = [row for row in usable if not set(behaviour.answers[row]) & set(known[token])]
        if not others:
            raise InputError(
                f"Moving a relation to another subject needs two with different answers; "
                f"{behaviour.name!r} has one among the examples that {model.name} answers."
            )
        template = draw.choice(list(neutral)) if neutral else _said_twice(draw)
        texts.append(template.replace("{}", str(model.tokenizer.decode([token]))))
        answers.append(known[token])
        sources.append(draw.choice(others))
    return Targets(tokens=model.tokens(texts), answers=tuple(answers), sources=np.array(sources))


def _said_twice(draw: random.Random) -> str:
    words = " ".join(draw.sample(COMMON_WORDS, 3))
    return f" {words}{{}} {words}"


def reciprocal_rank(
    logits: Float[Tensor, "batch vocab"], answers: Sequence[Sequence[int]]
) -> Float[np.ndarray, " batch"]:
    """1 / (1 + how many tokens have a larger logit than the best answer)."""
    best = torch.stack([row[list(ids)].max() for row, ids in zip(logits, answers, strict=True)])
    return (1 / (1 + (logits > best[:, None]).sum(dim=1).double())).cpu().numpy()


def with_added(
    model: Model,
    chosen: Targets,
    layer: int | None,
    vectors: Float[Tensor, "target d_model"] | None,
) -> Float[np.ndarray, " target"]:
    """(target,): the reciprocal rank of the own answer, with vectors added after a layer."""
    found: list[np.ndarray] = []
    for where, rows in _batches(chosen.tokens):
        edits = ()
        if vectors is not None:
            edits = add(f"resid_post.{layer}", vectors[where][:, None], position=-1)
        logits = model.run(rows, edits=edits).last_logits
        found.append(reciprocal_rank(logits, chosen.answers[where]))
    return np.concatenate(found)


def transplanted(
    model: Model,
    chosen: Targets,
    outputs: Float[Tensor, "layer example d_model"],
    strength: float,
    seed: int,
) -> Mapping[str, np.ndarray]:
    """`base` (target,), `mlp` and `random` (layer, target); `elsewhere` (layer, target) and
    `layer`, the one that the first half of the targets chose."""
    generator = torch.Generator().manual_seed(seed)
    moved = strength * outputs[:, torch.from_numpy(chosen.sources).to(outputs.device)]
    noise = torch.randn(moved.shape, generator=generator).to(moved.device, moved.dtype)
    noise = noise * moved.norm(dim=-1, keepdim=True) / noise.norm(dim=-1, keepdim=True)
    layers = range(len(moved))
    mlp, control = (
        np.stack([with_added(model, chosen, layer, each[layer]) for layer in layers])
        for each in (moved, noise)
    )
    base = with_added(model, chosen, None, None)
    first = slice(0, len(base) // 2)
    best = int((mlp[:, first] - base[first]).mean(axis=1).argmax())
    elsewhere = np.stack([with_added(model, chosen, best, moved[layer]) for layer in layers])
    return {
        "base": base, "mlp": mlp, "random": control, "elsewhere": elsewhere,
        "layer": np.array(best),
    }  # fmt: skip


def _batches(tokens: Tokens) -> Iterator[tuple[slice, Tokens]]:
    for start in range(0, len(tokens), _ROWS):
        where = slice(start, min(start + _ROWS, len(tokens)))
        yield where, tokens.rows(where)
