"""What else stands around a prompt: distractors before and inside it, and neutral text before it.

Every insertion keeps what the prompt asks, so its answers stay what they are:

- `sentence before`: one neutral sentence;
- `sentence inside`: the same as a clause of its own, after the last comma or full stop that the
  prompt has in its middle (of a prompt with none there is no inside);
- `wrong answer named`, `right answer named`: a sentence that names that answer, where it is a word,
  before everything else. The wrong one tempts; the right one says what naming alone does;
- `N sentences before`: the same prompt further on, by about six tokens for each neutral sentence.

The sentences are those of the built-in behaviours (`behaviours.builtin.words`), drawn with the
seed. Prompts that already have text before them only have it further on. Each insertion is measured
on the same prompts as they are without it, so differences are paired.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Self

import numpy as np
import xarray as xr
from jaxtyping import Float
from numpy import ndarray

from cutaway.behaviours import Behaviour, Interval, bootstrap
from cutaway.behaviours.builtin.words import DISTRACTORS, NAME_DISTRACTORS
from cutaway.errors import BehaviourError, InputError
from cutaway.measure.batches import Progress
from cutaway.measure.result import Result, provenance
from cutaway.model import Model
from cutaway.model.tokens import token_strings
from cutaway.study.blackbox_prompts import Question, Speller, ask

NONE = "none"
"""The prompt as it is."""
FURTHER = (1, 2, 4, 8, 16)
"""So many neutral sentences are put before a prompt."""
_ARRAYS = ("values", "added")

Insert = Callable[[int], str | None]
"""From an example to its changed text; None where it has no place for it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Insertions(Result):
    """The behaviour with other text around its prompts."""

    values: xr.DataArray
    """`insertion measure example`: accuracy and logit_diff; NaN where a prompt has no place."""
    added: xr.DataArray
    """`insertion example`: how many tokens were added; NaN there too."""
    provenance: Mapping[str, Any] = field(repr=False)
    """Versions, model, data and settings."""

    def to_dataset(self) -> xr.Dataset:
        """Both arrays in one."""
        return xr.Dataset(
            {name: getattr(self, name) for name in _ARRAYS}, attrs={"provenance": self.provenance}
        )

    @classmethod
    def from_dataset(cls, data: xr.Dataset) -> Self:
        """The inverse of `to_dataset`."""
        return cls(
            **{name: data[name] for name in _ARRAYS}, provenance=data.attrs["provenance"]
        )  # fmt: skip

    @property
    def names(self) -> list[str]:
        """The insertions that at least one prompt has a place for, the prompt as it is first."""
        return [str(name) for name in self.values["insertion"].to_numpy()]

    def each(self, measure: str, insertion: str = NONE) -> Float[ndarray, " example"]:
        """One value per example."""
        return self.values.sel(measure=measure, insertion=insertion).to_numpy().astype(np.float64)

    def interval(self, measure: str, insertion: str = NONE) -> Interval:
        """Mean and interval over the prompts that have a place for it."""
        return bootstrap(self.each(measure, insertion), seed=self._seed)

    def change(self, measure: str, insertion: str, *, confidence: float = 0.95) -> Interval:
        """By how much the insertion changes the same prompts."""
        paired = self.each(measure, insertion) - self.each(measure)
        return bootstrap(paired, confidence=confidence, seed=self._seed)

    @property
    def _seed(self) -> int:
        return int(self.provenance["configuration"]["seed"])


def insertions(
    model: Model,
    behaviour: Behaviour,
    *,
    examples: int = 32,
    seed: int = 0,
    progress: Progress | None = None,
) -> Insertions:
    """Measure some examples with every kind of text around them.

    Args:
        model: the opened model.
        behaviour: its examples, built from texts.
        examples: at most so many are measured, drawn with the seed.
        seed: draws the examples and the sentences.
        progress: is told of prompts run.

    Raises:
        BehaviourError: prompts that were given as tokens, or a model without a tokenizer.
        InputError: fewer than one example.
    """
    if examples < 1:
        raise InputError(f"examples must be 1 or more; found {examples}.")
    speller = Speller(behaviour, model.tokenizer)
    rng = np.random.default_rng(seed)
    count = min(examples, len(behaviour))
    rows = sorted(rng.choice(len(behaviour), size=count, replace=False).tolist())
    kinds = dict(_kinds(model, behaviour, speller, seed))
    questions: dict[tuple[str, int], Question] = {}
    for name, insert in kinds.items():
        for row in rows:
            asked = _question(behaviour, row, insert(row), speller)
            if asked is not None and (model.n_ctx is None or len(asked.ids) <= model.n_ctx):
                questions[name, row] = asked
    found = ask(model, list(questions.values()), progress=progress)
    names = [name for name in kinds if any((name, row) in questions for row in rows)]
    values = np.full((len(names), 2, len(rows)), np.nan)
    added = np.full((len(names), len(rows)), np.nan)
    for index, ((name, row), question) in enumerate(questions.items()):
        at, column = names.index(name), rows.index(row)
        values[at, :, column] = float(found.margin[index] > 0), found.logit_diff[index]
        added[at, column] = len(question.ids) - len(behaviour.clean.row_ids(row))
    coords = {"insertion": names, "measure": ["accuracy", "logit_diff"], "example": rows}
    return Insertions(
        values=xr.DataArray(values, coords, ("insertion", "measure", "example")),
        added=xr.DataArray(
            added, {key: coords[key] for key in ("insertion", "example")}, ("insertion", "example")
        ),
        provenance=provenance(
            model, behaviour, {"method": "insertions", "examples": examples, "seed": seed}
        ),
    )


def _question(
    behaviour: Behaviour, row: int, text: str | None, speller: Speller
) -> Question | None:
    """The changed prompt with the example's own answers; its last token must still be the same."""
    ids = None if text is None else speller.ids(text)
    if text is None or ids is None or ids[-1] != behaviour.clean.row_ids(row)[-1]:
        return None
    return Question(
        text=text, ids=ids, answers=behaviour.answers[row],
        wrong_answers=behaviour.wrong_answers[row],
    )  # fmt: skip


def _kinds(
    model: Model, behaviour: Behaviour, speller: Speller, seed: int
) -> Iterator[tuple[str, Insert]]:
    """Every insertion by name."""
    texts = behaviour.clean_texts
    neutral = [sentence for sentence in DISTRACTORS if speller.ids(sentence) is not None]
    yield NONE, lambda row: texts[row]
    if not neutral:
        raise BehaviourError("This tokenizer does not know the words of any neutral sentence.")

    def drawn(row: int, count: int) -> list[str]:
        rng = Random(f"{seed} {row}")
        order = [sentence for _ in range(0, count, len(neutral))
                 for sentence in rng.sample(neutral, len(neutral))]  # fmt: skip
        return order[:count]

    yield "sentence inside", lambda row: _inside(texts[row], drawn(row, 1)[0])
    for side, answers in (("wrong", behaviour.wrong_answers), ("right", behaviour.answers)):
        named = [_word(model, ids, Random(f"{seed} {row}")) for row, ids in enumerate(answers)]
        yield f"{side} answer named", lambda row, named=named: _naming(texts[row], named[row], row)
    room = np.inf if model.n_ctx is None else model.n_ctx
    sizes = {sentence: len(speller.ids(sentence) or ()) for sentence in neutral}
    lengths = behaviour.clean.lengths.tolist()

    def further(row: int, count: int) -> str | None:
        sentences = drawn(row, count)
        # too long: not even spelled
        if sum(sizes[sentence] - 1 for sentence in sentences) > room - lengths[row]:
            return None
        return " ".join([*sentences, texts[row]])

    for count in FURTHER:
        many = "sentence" if count == 1 else f"{count} sentences"
        yield f"{many} before", lambda row, count=count: further(row, count)


def _inside(text: str, sentence: str) -> str | None:
    """The prompt with a clause after its last comma or full stop, as it would be written."""
    places = [at for at, mark in enumerate(text[:-1]) if mark in ",." and text[at + 1] == " "]
    if not places or not text[places[-1] + 1 :].strip():
        return None
    at = places[-1]
    if text[at] == ".":
        return f"{text[: at + 1]} {sentence}{text[at + 1 :]}"
    clause = sentence[0].lower() + sentence[1:].rstrip(".")
    return f"{text[:at]}, and {clause},{text[at + 1 :]}"


def _word(model: Model, ids: Sequence[int], rng: Random) -> str | None:
    """One of the answers as a word, where it is one: two letters or more."""
    text = token_strings(model.tokenizer, [rng.choice(list(ids))])[0].strip()
    return text if len(text) > 1 and text.isalpha() else None


def _naming(text: str, word: str | None, row: int) -> str | None:
    """The prompt after a sentence that names a word."""
    if word is None:
        return None
    return f"{NAME_DISTRACTORS[row % len(NAME_DISTRACTORS)].replace('{C}', word)} {text}"
