"""The figures of an answer, as the plain values that the client's views draw from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cutaway.observe.of_run import PartsOfLogit
from cutaway.views.attention import attention
from cutaway.views.figure import Figure
from cutaway.views.heatmap import heatmap
from cutaway.views.text import number, token_label
from cutaway.views.tree import tree

_ROUNDING = 1e-3


def parts_figure(
    found: PartsOfLogit, beside: PartsOfLogit | None, tokens: Sequence[str]
) -> dict[str, Any]:
    """Heads and MLPs by layer; of two runs, the first's contributions less the second's."""
    grid = _grid(found) if beside is None else _grid(found) - _grid(beside)
    layers, columns = grid.shape
    heads = [str(head) for head in range(columns - 1)]
    what = f"the logit of “{tokens[0].strip()}”"
    if len(tokens) > 1:
        what = f"{what} less that of “{tokens[1].strip()}”"
    if beside is None:
        title, shows = f"What writes {what}", _sum(found)
    else:
        title = f"How the changes move {what}"
        shows = f"From {number(beside.logit)} to {number(found.logit)}. {_sum(found)}"
    figure = heatmap(
        grid.numpy(),
        [str(layer) for layer in range(layers)],
        [*heads, "MLP"],
        title=title,
        shows=shows,
        measure="logits",
    )
    return _plain(figure)


def _grid(parts: PartsOfLogit) -> Tensor:
    return torch.cat([parts.heads, parts.mlps[:, None]], dim=1).double()


def _sum(parts: PartsOfLogit) -> str:
    """The check that the parts add up, in a sentence."""
    sums = {
        "heads": float(parts.heads.sum()),
        "MLPs": float(parts.mlps.sum()),
        "embeddings": parts.embeddings,
        "biases": parts.constants,
    }
    if abs(parts.rest) > _ROUNDING * max(1.0, abs(parts.logit)):
        sums["what the changes add to the stream"] = parts.rest
    listed = [f"{name} {number(value, sign=True)}" for name, value in sums.items()]
    sentence = f"{', '.join(listed)}: together {number(parts.logit)}."
    return sentence[0].upper() + sentence[1:]


def attention_figure(
    pattern: Tensor, texts: Sequence[str], window: range, at: int, layer: int, head: int
) -> dict[str, Any]:
    """A head's attention between the positions that are shown."""
    inside = pattern[window.start : window.stop, window.start : window.stop]
    shown = [texts[place] for place in window]
    shows = "Each row is a token that looks, each column one that it looks at."
    if window.start:
        missed = float(pattern[at, : window.start].sum())
        shows = (
            f"{shows} Tokens {window.start} to {window.stop - 1} are shown; to earlier ones "
            f"“{token_label(texts[at]).strip()}” pays {number(missed)} of its attention."
        )
    figure = attention(
        inside.numpy(),
        shown,
        title=f"Where head {layer}.{head} looks",
        shows=shows,
        query=at - window.start,
        part=f"a{layer}.h{head}",
    )
    assert figure.live is not None
    return _plain(figure) | {"kind": figure.live.kind, "data": dict(figure.live.data)}


def _plain(figure: Figure) -> dict[str, Any]:
    return {"title": figure.title, "shows": figure.shows, "drawing": tree(figure.svg)}
