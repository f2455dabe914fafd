"""Boring explanations: would something simpler than the behaviour give the same numbers?

| explanation | what must hold |
|---|---|
| answer frequency | a prompt prefers its own answers more than other prompts prefer them |
| position bias | the right answer is preferred when named before the wrong one, and after it |
| template leakage | the answer is preferred over templates, not over the prompts of some of them |
| a few answers | the same over answers: no few frequent names carry the mean |

The last two take each template's or answer's mean as one example. An explanation whose prompts are
not there (answers that the prompt does not name, a single template) is not applicable.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from cutaway.behaviours import Behaviour, bootstrap
from cutaway.behaviours.metrics import answer_coefficients
from cutaway.errors import BehaviourError
from cutaway.measure.batches import batch_size_for, batches
from cutaway.model import Model
from cutaway.study.attacks import Make
from cutaway.study.blackbox import answer_texts, end_logits
from cutaway.study.verdict import Attack

_FEW = 5


def explanations(model: Model, behaviour: Behaviour) -> Iterator[tuple[str, str, Make]]:
    """The kind and name of every boring explanation, and what tests it."""
    kind, cached = "boring explanation", list[Float[ndarray, "prompt answers"]]()

    def prefers() -> Float[ndarray, "prompt answers"]:
        if not cached:
            cached.append(preferences(model, behaviour))
        return cached[0]

    yield kind, "answer frequency", lambda: frequency(prefers())
    for first in (True, False):
        where = "before" if first else "after"
        yield (
            kind, f"position bias: the right answer named {where} the wrong one",
            lambda f=first: position(behaviour, np.diag(prefers()), first=f),
        )  # fmt: skip
    yield (
        kind, "template leakage",
        lambda: groups(np.diag(prefers()), behaviour.variations.get("template", ()), "template"),
    )  # fmt: skip
    answers = answer_texts(model, behaviour.answers)
    yield kind, "a few answers", lambda: groups(np.diag(prefers()), answers, "answer")


def preferences(model: Model, behaviour: Behaviour) -> Float[ndarray, "prompt answers"]:
    """How much each clean prompt prefers each example's right answers to its wrong ones."""
    known = answer_coefficients(behaviour)
    found = np.empty((len(behaviour), len(behaviour)))
    for where, rows in batches(behaviour, batch_size_for(model, behaviour, None)):
        logits = end_logits(model, rows.clean).cpu()
        picked = logits[:, known.ids] * known.weights
        found[where] = picked.sum(dim=-1).numpy()
    return found


def frequency(prefers: Float[ndarray, "prompt answers"]) -> Attack:
    """Whether a prompt prefers its own answers more than the other prompts do."""
    n = len(prefers)
    if n < _FEW:
        raise BehaviourError(f"{n} prompts are too few to compare their answers.")
    own = np.diag(prefers)
    others = (prefers.sum(axis=0) - own) / (n - 1)
    return _logits(
        own - others, f"own prompts prefer it by {own.mean():+.2f}, other prompts by "
        f"{others.mean():+.2f}",
    )  # fmt: skip


def position(behaviour: Behaviour, each: Float[ndarray, " example"], *, first: bool) -> Attack:
    """Whether the answer is preferred where it is named first (or where it is named last)."""
    order = [_named_first(behaviour, row) for row in range(len(behaviour))]
    rows = [row for row, found in enumerate(order) if found is first]
    if len(rows) < _FEW:
        raise BehaviourError(f"Only {len(rows)} prompts name both answers in this order.")
    return _logits(each[rows], f"{len(rows)} prompts")


def _named_first(behaviour: Behaviour, row: int) -> bool | None:
    """Whether the right answer comes before the wrong one; None when one is not named."""
    ids = behaviour.clean.row_ids(row)
    at = [
        min((ids.index(token) for token in tokens if token in ids), default=None)
        for tokens in (behaviour.answers[row], behaviour.wrong_answers[row])
    ]
    return None if at[0] is None or at[1] is None else at[0] < at[1]


def groups(each: Float[ndarray, " example"], values: Sequence[str], what: str) -> Attack:
    """Whether the mean holds over groups of prompts, each counted once."""
    named = sorted(set(values))
    if len(named) < _FEW:
        raise BehaviourError(f"There are {len(named)} different values of {what}, too few to tell.")
    table = np.asarray(values, dtype=object)
    means = np.array([each[table == name].mean() for name in named])
    weakest = named[int(means.argmin())]
    return _logits(
        means, f"above zero for {(means > 0).sum()} of {len(named)}; weakest for “{weakest}” "
        f"({means.min():+.2f})",
    )  # fmt: skip


def _logits(margins: Float[ndarray, " example"], found: str) -> Attack:
    interval = bootstrap(margins)
    low, high = float(interval.low), float(interval.high)
    return Attack(
        kind="", name="", effect=float(interval.mean), low=low, high=high, unit="logits",
        margins=margins, found=found,
    )  # fmt: skip
