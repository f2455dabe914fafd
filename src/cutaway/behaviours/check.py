"""What every behaviour must satisfy, however it was made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from cutaway.behaviours.metrics import METRICS
from cutaway.behaviours.problems import Problems

if TYPE_CHECKING:
    from cutaway.behaviours.behaviour import Behaviour


def check(examples: Behaviour) -> None:
    """Raise one `ProblemsError` with everything that does not fit together."""
    problems = Problems(source=f"The behaviour {examples.name!r}")
    if examples.metric not in METRICS:
        problems.add(
            None, "metric", f"there is no {examples.metric!r}; choose one of {', '.join(METRICS)}"
        )
    _check_sides(examples, problems)
    _check_counts(examples, problems)
    problems.raise_if_any()
    _check_labels(examples, problems)
    _check_answers(examples, problems)
    problems.raise_if_any()


def _check_sides(examples: Behaviour, problems: Problems) -> None:
    """Clean and corrupt are the same shape, padding and labels."""
    clean, corrupt = examples.clean, examples.corrupt
    if clean.ids.shape != corrupt.ids.shape:
        problems.add(
            None,
            "corrupt",
            f"clean has the shape {tuple(clean.ids.shape)} (pairs, tokens) and corrupt "
            f"{tuple(corrupt.ids.shape)}; make them equal",
        )
        return
    for row in (clean.mask != corrupt.mask).any(dim=1).nonzero()[:, 0].tolist():
        problems.add(
            row + 1,
            "corrupt",
            f"clean is {int(clean.lengths[row])} tokens and corrupt {int(corrupt.lengths[row])}, "
            f"or padded on the other side; make them equal",
        )
    if set(clean.labels) != set(corrupt.labels):
        problems.add(
            None,
            "labels",
            f"clean has {', '.join(clean.labels)} and corrupt {', '.join(corrupt.labels)}; "
            f"give both the same",
        )
    elif "end" not in clean.labels:
        problems.add(None, "labels", "the label 'end' (the last token) is missing; add it")


def _check_counts(examples: Behaviour, problems: Problems) -> None:
    """Every field has one entry per pair."""
    n = len(examples.clean)
    fields: dict[str, tuple[object, ...]] = {
        "clean_texts": examples.clean_texts,
        "corrupt_texts": examples.corrupt_texts,
        "answers": examples.answers,
        "wrong_answers": examples.wrong_answers,
        "held_out": examples.held_out,
        "token_texts": examples.token_texts,
        "corrupt_token_texts": examples.corrupt_token_texts,
    }
    fields |= {f"variation {column!r}": values for column, values in examples.variations.items()}
    for name, values in fields.items():
        if len(values) != n:
            problems.add(None, name, f"it has {len(values)} entries for {n} pairs; give one each")


def _check_labels(examples: Behaviour, problems: Problems) -> None:
    """Every label is a real token, at the same place on both sides."""
    rows = torch.arange(len(examples.clean))
    width = examples.clean.ids.shape[1]
    for name, where in examples.clean.labels.items():
        other = examples.corrupt.labels[name]
        if where.shape != rows.shape or other.shape != rows.shape:
            problems.add(None, f"label:{name}", "it needs one position per pair")
            continue
        place = where.clamp(0, width - 1)
        real = (where == place) & examples.clean.mask[rows, place]
        for row in (~real).nonzero()[:, 0].tolist():
            problems.add(
                row + 1, f"label:{name}", f"position {int(where[row])} is padding or outside"
            )
        for row in (where != other).nonzero()[:, 0].tolist():
            problems.add(
                row + 1,
                f"label:{name}",
                f"it is position {int(where[row])} in clean and {int(other[row])} in corrupt; "
                f"a label must mean one position",
            )


def _check_answers(examples: Behaviour, problems: Problems) -> None:
    """Each side has an answer, and no token is on both."""
    for row, (right, wrong) in enumerate(
        zip(examples.answers, examples.wrong_answers, strict=True), start=1
    ):
        for name, ids in (("answer", right), ("wrong_answer", wrong)):
            if not ids:
                problems.add(row, name, "there is none; give at least one")
            if any(token < 0 for token in ids) or len(set(ids)) < len(ids):
                problems.add(row, name, f"{list(ids)} must be different token ids of 0 or more")
        for token in sorted(set(right) & set(wrong)):
            problems.add(
                row, "wrong_answer", f"token {token} is an answer as well; keep it on one side"
            )
