"""From a question to what a page shows: plain text and numbers, and figures as plain values.

Everything is read at one position of one prompt, from a run without the changes and one with them:

1. the tokens that may come next, in both runs, with what the changes did to them;
2. the logit lens around that position;
3. direct attribution of one token's logit to every head and MLP, and to an MLP's neurons;
4. where one head looks.

Long prompts are shown in part: the lens and the attention around the position that is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cutaway.explore.changes import ExploreError
from cutaway.explore.figures import attention_figure, parts_figure
from cutaway.explore.question import Question
from cutaway.explore.runs import Runs, Stop
from cutaway.model.model import Model
from cutaway.model.run import Run
from cutaway.model.sites import Site
from cutaway.model.tokens import Tokens, token_strings
from cutaway.observe.of_run import (
    end_logits,
    neurons_of_logit,
    parts_of_logit,
    sites_read,
    top_tokens,
)
from cutaway.views.palette import sequential_step
from cutaway.views.text import token_label, word

WINDOW = 32
"""How many positions the lens and the attention show at most."""
NEXT = 6
"""How many of each run's likeliest tokens are told."""
NEURONS = 10
"""How many neurons are told."""

Json = dict[str, Any]


def answer(runs: Runs, question: Question, stop: Stop) -> Json:
    """Everything that a page shows for a question. Raises a `CutawayError` of one sentence."""
    model, tokens = runs.model, runs.tokens(question.prompt)
    at = _position(tokens, question.position)
    keep = sites_read(model)
    plain = runs.run(question.prompt, keep, stop)
    target = question.target
    if target is None:
        target = int(end_logits(model, plain, at).argmax())
    ids = [target] if question.against is None else [target, question.against]
    head = question.head or _strongest(model, plain, at, ids)
    keep = [*keep, Site("pattern", head[0])]
    if question.neurons is not None:
        keep.append(Site("mlp_post", question.neurons))
    plain = runs.run(question.prompt, keep, stop)
    edited = runs.run(question.prompt, keep, stop, question.changes) if question.changes else plain
    before, after = (end_logits(model, run, at) for run in (plain, edited))
    stop.check()
    looking = _Looking(model, tokens, question, at, head, plain, edited)
    texts = shown_tokens(model, tokens)
    return {
        "tokens": texts,
        "position": at,
        "head": list(head),
        "changed": edited is not plain,
        "next": _next(model, before, after, ids),
        "divergence": _divergence(before, after),
        "target": ids,
        "lens": looking.lens(),
        "parts": looking.parts(ids),
        "attention": looking.attention(),
        "neurons": looking.neurons(ids),
    }


def shown_tokens(model: Model, tokens: Tokens) -> list[list[Any]]:
    """A prompt's tokens as they are shown: the word, and whether a blank stood before it."""
    return [[word(text), text[:1] == " "] for text in _texts(model, tokens.row_ids(0))]


@dataclass(frozen=True)
class _Looking:
    model: Model
    tokens: Tokens
    question: Question
    at: int
    head: tuple[int, int]
    plain: Run
    edited: Run

    @property
    def shown(self) -> Run:
        return self.plain if self.question.show == "plain" else self.edited

    @property
    def window(self) -> range:
        """The positions that are shown: around the one looked at, more of what comes before it."""
        count = self.tokens.ids.shape[1]
        last = min(count, max(WINDOW, self.at + WINDOW // 4))
        return range(max(0, last - WINDOW), last)

    def lens(self) -> Json:
        ids, shares = top_tokens(self.model, self.shown, self.window)
        plain = (
            ids if self.shown is self.plain else top_tokens(self.model, self.plain, self.window)[0]
        )
        rows = [_texts(self.model, row.tolist()) for row in ids]
        return {
            "first": self.window.start,
            "sites": ["resid_pre.0", *(f"resid_post.{n}" for n in range(self.model.n_layers))],
            "cells": [
                [
                    [token_label(text), round(float(share), 3), sequential_step(float(share)),
                     bool(token != old)]
                    for text, share, token, old in zip(*row, strict=True)
                ]
                for row in zip(rows, shares, ids, plain, strict=True)
            ],
        }  # fmt: skip

    def parts(self, ids: list[int]) -> Json:
        named = [token_label(text) for text in _texts(self.model, ids)]
        found = parts_of_logit(self.model, self.shown, self.at, ids)
        beside = None
        if self.question.show == "difference" and self.edited is not self.plain:
            beside = parts_of_logit(self.model, self.plain, self.at, ids)
        return parts_figure(found, beside, named)

    def attention(self) -> Json:
        layer, head = self.head
        pattern = self.shown[Site("pattern", layer)][0, head].float().cpu()
        texts = _texts(self.model, self.tokens.row_ids(0))
        return attention_figure(pattern, texts, self.window, self.at, layer, head)

    def neurons(self, ids: list[int]) -> list[Json]:
        layer = self.question.neurons
        if layer is None:
            return []
        shares = neurons_of_logit(self.model, self.shown, layer, self.at, ids).cpu()
        fires = self.shown[Site("mlp_post", layer)][0, self.at].float().cpu()
        strongest = shares.abs().topk(min(NEURONS, len(shares))).indices.tolist()
        return [
            {"neuron": n, "share": float(shares[n]), "activation": float(fires[n])}
            for n in strongest
        ]


def _position(tokens: Tokens, wanted: int | None) -> int:
    """The position looked at, the last one where none is named."""
    last = tokens.ids.shape[1] - 1
    if wanted is not None and not 0 <= wanted <= last:
        raise ExploreError(
            f"Position {wanted} does not exist: the prompt's tokens are numbered 0 to {last}."
        )
    return last if wanted is None else wanted


def _strongest(model: Model, run: Run, at: int, ids: list[int]) -> tuple[int, int]:
    """The head that writes most of a logit, for or against it."""
    heads = parts_of_logit(model, run, at, ids).heads.abs()
    layer, head = divmod(int(heads.argmax()), heads.shape[1])
    return layer, head


def _next(model: Model, before: Tensor, after: Tensor, ids: list[int]) -> list[Json]:
    count = min(NEXT, len(before))
    listed = {*before.topk(count).indices.tolist(), *after.topk(count).indices.tolist(), *ids}
    order = sorted(listed, key=lambda token: -float(after[token]))
    sides = {"before": before, "after": after}
    shares = {name: logits.softmax(dim=-1) for name, logits in sides.items()}
    return [
        {"id": token, "text": token_label(text)}
        | {
            name: {
                "logit": float(logits[token]),
                "probability": float(shares[name][token]),
                "rank": int((logits > logits[token]).sum()),
            }
            for name, logits in sides.items()
        }
        for token, text in zip(order, _texts(model, order), strict=True)
    ]


def _divergence(before: Tensor, after: Tensor) -> float:
    """KL(before ‖ after), in nats."""
    one, other = before.double().log_softmax(dim=-1), after.double().log_softmax(dim=-1)
    return max(0.0, float((one.exp() * (one - other)).sum()))


def _texts(model: Model, ids: list[int]) -> list[str]:
    return token_strings(model.tokenizer, ids)
