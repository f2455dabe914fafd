"""Where one head looks: a map of query against key, and the prompt itself, shaded.

The map is the lower triangle (a decoder looks back only). The text view shows the tokens in order,
shaded by the attention that the chosen query pays them; it is the client's, which lets the pointer
or the arrow keys choose another query.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from cutaway.views.figure import (
    Array,
    Figure,
    Live,
    Numbers,
    Table,
    ViewError,
    as_array,
    same_length,
)
from cutaway.views.palette import SEQUENTIAL_STEPS, sequential_step
from cutaway.views.svg import SMALL, drawing, fitted, hint, label, rectangle
from cutaway.views.text import number, text_width, token_label, word

_NAME_ROOM = 96.0


def attention(
    pattern: Numbers,
    tokens: Sequence[str],
    *,
    title: str,
    shows: str,
    query: int = -1,
    part: str = "",
    reproduce: str = "",
) -> Figure:
    """Draw one head's attention `pattern` [query_position key_position] over one prompt's tokens.

    `query` is the token whose attention the text view shows first (default: the last); `part` is
    the head's name in circuits, `a3.h1`, by which it is chosen across a report.
    """
    weights = as_array(pattern, 2, "The attention pattern")
    count = len(tokens)
    same_length("The pattern's query axis", weights.shape[0], tokens=tokens)
    same_length("The pattern's key axis", weights.shape[1], tokens=tokens)
    if not -count <= query < count:
        raise ViewError(f"Query {query} was asked for, but there are {count} tokens.")
    query %= count
    alt = f"{title}. {_in_words(weights, tokens, query)} {shows}"
    return Figure(
        svg=_map(weights, tokens, alt),
        title=title,
        shows=shows,
        alt=alt,
        table=_table(weights, tokens, query, title),
        reproduce=reproduce,
        live=Live(kind="attention", data=_text_view(weights, tokens, query), beside=True),
        part=part,
    )


def _text_view(weights: Array, tokens: Sequence[str], query: int) -> Mapping[str, object]:
    """The tokens, and for each query the attention to those up to it with its colour."""
    rows = [row[: index + 1] for index, row in enumerate(np.nan_to_num(weights))]
    return {
        "tokens": [[word(token), token[:1] == " "] for token in tokens],
        "weights": [np.round(row, 3).tolist() for row in rows],
        "shades": [[sequential_step(float(weight)) for weight in row] for row in rows],
        "query": query,
    }


def _map(weights: Array, tokens: Sequence[str], alt: str) -> Markup:
    count = len(tokens)
    cell = max(9.0, min(24.0, 400 / count))
    names = [_name(token) for token in tokens]
    room = min(_NAME_ROOM, max(text_width(name, SMALL) for name in names)) + 8
    left, top = room + 20, 20.0
    bottom = top + count * cell
    parts: list[Markup] = []
    every = 1 if cell >= 12 else 2
    for index, name in enumerate(names):
        shown = fitted(name, _NAME_ROOM)
        middle = (index + 0.5) * cell
        if index % every == 0:
            parts.append(label(left - 6, top + middle + 4, shown, anchor="end"))
            x, y = left + middle + 4, bottom + 8
            parts.append(label(x, y, shown, anchor="end", transform=f"rotate(-50 {x:.1f} {y:.1f})"))
        parts += _map_row(weights[index], index, tokens, left, top, cell)
    parts.append(label(left - 6, 12, "query ↓", anchor="end", kind="axis"))
    # a name slanted by 50° is about this deep and reaches about this far to the left
    deep = room * 0.77 + 16
    parts.append(label(left + count * cell, bottom + deep + 8, "key →", anchor="end", kind="axis"))
    parts += _legend(left + count * cell - 96, top + 2)
    return drawing(left + count * cell + 14, bottom + deep + 14, alt, parts, data_grid="attention")


def _map_row(
    row: Array, index: int, tokens: Sequence[str], left: float, top: float, cell: float
) -> list[Markup]:
    drawn: list[Markup] = []
    for key in range(index + 1):
        said = f"{_name(tokens[index])} looks at {_name(tokens[key])}: {number(float(row[key]))}"
        drawn.append(
            rectangle(
                left + key * cell,
                top + index * cell,
                cell - 1,
                cell - 1,
                f"cell s{sequential_step(float(row[key]))}",
                hint(said),
                data_r=index,
                data_c=key,
            )
        )
    return drawn


def _legend(left: float, top: float) -> list[Markup]:
    each = 96 / (SEQUENTIAL_STEPS + 1)
    strip = [
        rectangle(left + step * each, top + 14, each + 0.4, 9, f"s{step}")
        for step in range(SEQUENTIAL_STEPS + 1)
    ]
    return [
        label(left, top + 8, "attention", kind="axis"),
        *strip,
        label(left, top + 36, "0"),
        label(left + 96, top + 36, "1", anchor="end"),
    ]


def _name(token: str) -> str:
    return token_label(token).strip() or "(empty)"


def _in_words(weights: Array, tokens: Sequence[str], query: int) -> str:
    row = weights[query, : query + 1]
    key = int(np.nanargmax(row)) if np.isfinite(row).any() else 0
    return (
        f"Attention map over {len(tokens)} tokens; the token {_name(tokens[query])} "
        f"(number {query + 1}) looks most at {_name(tokens[key])} (number {key + 1}), "
        f"with weight {number(float(row[key]))}."
    )


def _table(weights: Array, tokens: Sequence[str], query: int, title: str) -> Table:
    rows = tuple(
        (f"{key + 1}. {_name(tokens[key])}", number(float(weights[query, key]), 3))
        for key in range(query + 1)
    )
    return Table(
        caption=f"{title}: attention from token {query + 1}, {_name(tokens[query])}",
        columns=("token looked at", "attention"),
        rows=rows,
    )
