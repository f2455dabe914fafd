"""Prompts that are not among a behaviour's own, written as it writes its own, and asked.

A prompt is spelled with the tokenizer and the BOS token that the behaviour's own prompts have. Its
answers are the tokens that continue its last word (`behaviours.continuation`); one whose words the
tokenizer does not know, or whose answers are not one token each, is not asked. Prompts are asked in
order of length, in batches whose logits fit in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from cutaway.behaviours import METRICS, Behaviour
from cutaway.behaviours.continuation import Continuation
from cutaway.errors import BehaviourError
from cutaway.measure.batches import Progress
from cutaway.model import Model
from cutaway.model.memory import rows_that_fit
from cutaway.model.tokens import encode, pad, pad_id_of

_MOST = 64


@dataclass(frozen=True, kw_only=True)
class Question:
    """A prompt with what should follow it."""

    text: str
    """The prompt as text."""
    ids: tuple[int, ...]
    """Its tokens."""
    answers: tuple[int, ...]
    """The next tokens that are right."""
    wrong_answers: tuple[int, ...]
    """Those that are wrong."""


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What the model makes of some questions."""

    margin: Float[ndarray, " question"]
    """The largest logit of a right answer less that of a wrong one: above zero is answered well."""
    logit_diff: Float[ndarray, " question"]
    """The logit difference."""


@dataclass(frozen=True)
class _Batch:
    """The answers of some questions, as metrics read them."""

    answers: tuple[tuple[int, ...], ...]
    wrong_answers: tuple[tuple[int, ...], ...]


class Speller:
    """Spells prompts as one behaviour's own are spelled.

    Raises `BehaviourError` for a behaviour whose prompts its texts do not give.
    """

    def __init__(self, behaviour: Behaviour, tokenizer: Any) -> None:
        if tokenizer is None:
            raise BehaviourError(
                "The model was opened without a tokenizer, which other prompts need; open it with "
                "tokenizer=…."
            )
        self._tokenizer = tokenizer
        self._bos = _bos_of(behaviour, tokenizer)
        special = (tokenizer.bos_token_id, tokenizer.eos_token_id)
        unknown = tokenizer.unk_token_id
        self._unknown: int | None = None if unknown in special else unknown
        self._read: dict[tuple[str, str], int | None] = {}

    def ids(self, text: str) -> tuple[int, ...] | None:
        """A prompt's tokens; None where a word of it is unknown."""
        ids = encode(self._tokenizer, text, bos=self._bos)
        return None if self._unknown is not None and self._unknown in ids else tuple(ids)

    def question(
        self, text: str, answers: Sequence[str], wrong_answers: Sequence[str]
    ) -> Question | None:
        """A prompt with its answers; None where that cannot be spelled."""
        ids = self.ids(text)
        if ids is None:
            return None
        right, wrong = (self._tokens(text, side) for side in (answers, wrong_answers))
        if len(right) < len(answers) or len(wrong) < len(wrong_answers):
            return None
        return Question(text=text, ids=ids, answers=right, wrong_answers=wrong)

    def _tokens(self, text: str, answers: Sequence[str]) -> tuple[int, ...]:
        """The token of each answer that is one; how it is joined depends on the last word."""
        word = text[max(text.rfind(" ", 0, -1), 0) :]
        new = [answer for answer in answers if (word, answer) not in self._read]
        if new:
            reader = Continuation(self._tokenizer, word, new)
            for answer in new:
                token = reader.read(answer, explicit=True)
                self._read[word, answer] = token if isinstance(token, int) else None
        found = (self._read[word, answer] for answer in answers)
        return tuple(token for token in found if token is not None)


def _bos_of(behaviour: Behaviour, tokenizer: Any) -> bool | None:
    """With which `bos` the first text gives the first prompt's tokens."""
    wanted = behaviour.clean.row_ids(0)
    for bos in (None, False, True):
        if bos and tokenizer.bos_token_id is None:
            continue
        if list(encode(tokenizer, behaviour.clean_texts[0], bos=bos)) == wanted:
            return bos
    raise BehaviourError(
        f"The prompts of {behaviour.name!r} are tokens that their texts do not give with this "
        "tokenizer, so that no word can be added; build the behaviour from texts."
    )


def ask(
    model: Model, questions: Sequence[Question], *, progress: Progress | None = None
) -> Answered:
    """Run every question once; what is found stands in their order."""
    margin, logit_diff = np.empty(len(questions)), np.empty(len(questions))
    order = sorted(range(len(questions)), key=lambda index: len(questions[index].ids))
    fill, done = pad_id_of(model.tokenizer), 0
    while done < len(order):
        longest = len(questions[order[min(done + _MOST, len(order)) - 1]].ids)
        at = order[done : done + min(_MOST, rows_that_fit(longest, model))]
        chosen = [questions[index] for index in at]
        logits = model.run(pad([one.ids for one in chosen], pad_id=fill)).last_logits.float()
        rows = _Batch(
            tuple(one.answers for one in chosen), tuple(one.wrong_answers for one in chosen)
        )
        logit_diff[at] = METRICS["logit_diff"](logits, rows).cpu().numpy()
        found = logits.cpu().numpy()
        margin[at] = [
            found[row, one.answers].max() - found[row, one.wrong_answers].max()
            for row, one in enumerate(chosen)
        ]
        done += len(at)
        if progress is not None:
            progress(done, len(order))
    return Answered(margin=margin, logit_diff=logit_diff)
