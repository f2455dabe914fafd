"""Whether common words are easier: the logit difference against how frequent a prompt's words are.

How often a word is in text is not written in a model, so it is taken from two places:

- the tokenizer: byte-pair merges are learnt from the most frequent pair on, so a token that was
  made early is common (`merge rank`, negated), and a unigram vocabulary holds log probabilities.
  Vocabularies of whole words have no order that can be relied on, and are left out;
- the model: the log of its mean next-token probability over all positions of neutral sentences,
  after its BOS token where it has one (`unigram`). No prompt of the behaviour is among them.

Words are those under the position labels and the answers, where examples differ in them. With each,
Spearman's rank correlation has a percentile bootstrap interval over examples. Above zero means that
the behaviour is stronger for common words.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from numpy import ndarray
from scipy.stats import rankdata

from cutaway.behaviours import Behaviour, Interval
from cutaway.behaviours.builtin.words import DISTRACTORS
from cutaway.errors import BehaviourError
from cutaway.measure.result import Result, provenance
from cutaway.model import Model

_LEAST = 8
"""Words of fewer different kinds are not correlated with anything."""
_ARRAYS = ("frequency", "logit_diff")


@dataclass(frozen=True, kw_only=True, eq=False)
class Frequency(Result):
    """How the logit difference goes with how common the words are."""

    frequency: xr.DataArray
    """`source word example`: each word's frequency by each source, on that source's own scale."""
    logit_diff: xr.DataArray
    """`example`: the logit difference."""
    left_out: Mapping[str, str]
    """Sources and words that say nothing here, each with the reason."""
    provenance: Mapping[str, Any] = field(repr=False)
    """Versions, model, data and settings."""

    def to_dataset(self) -> xr.Dataset:
        """Both arrays; what is left out stands in the attributes."""
        attrs = {"left_out": dict(self.left_out), "provenance": self.provenance}
        return xr.Dataset({name: getattr(self, name) for name in _ARRAYS}, attrs=attrs)

    @classmethod
    def from_dataset(cls, data: xr.Dataset) -> Self:
        """The inverse of `to_dataset`."""
        return cls(
            **{name: data[name] for name in _ARRAYS},
            left_out=data.attrs["left_out"], provenance=data.attrs["provenance"],
        )  # fmt: skip

    @property
    def sources(self) -> list[str]:
        """Where frequencies were taken from."""
        return [str(source) for source in self.frequency["source"].to_numpy()]

    @property
    def words(self) -> list[str]:
        """The words that vary, by their labels."""
        return [str(word) for word in self.frequency["word"].to_numpy()]

    def correlation(self, source: str, word: str, *, confidence: float = 0.95) -> Interval:
        """Spearman's correlation with the logit difference, with its interval."""
        seed = int(self.provenance["configuration"]["seed"])
        common = self.frequency.sel(source=source, word=word).to_numpy()
        return spearman(common, self.logit_diff.to_numpy(), confidence=confidence, seed=seed)


def frequency(
    model: Model, behaviour: Behaviour, logit_diff: Float[ndarray, " example"], *, seed: int = 0
) -> Frequency:
    """Correlate each example's logit difference with the frequency of its words.

    Args:
        model: the opened model.
        behaviour: its examples.
        logit_diff: of each example.
        seed: for the bootstrap.

    Raises:
        BehaviourError: another number of values than examples, or words or frequencies that say
            nothing at all (the sentence says why).
    """
    if logit_diff.shape != (len(behaviour),):
        raise BehaviourError(
            f"Frequencies are compared with one logit difference for each of the {len(behaviour)} "
            f"examples; found the shape {logit_diff.shape}."
        )
    left_out: dict[str, str] = {}
    tables: dict[str, Float[ndarray, " vocab"]] = {}
    for name, table in (("merge rank", by_tokenizer), ("unigram", by_model)):
        try:
            tables[name] = table(model)
        except BehaviourError as error:
            left_out[name] = str(error)
    words = _words(behaviour, left_out)
    if not tables or not words:
        raise BehaviourError(" ".join(left_out.values()) or "No word of these prompts varies.")
    example = np.arange(len(behaviour))
    values = np.stack([[table[ids] for ids in words.values()] for table in tables.values()])
    coords = {"source": list(tables), "word": list(words), "example": example}
    return Frequency(
        frequency=xr.DataArray(values, coords, ("source", "word", "example")),
        logit_diff=xr.DataArray(logit_diff, {"example": example}, "example"),
        left_out=left_out,
        provenance=provenance(model, behaviour, {"method": "word frequency", "seed": seed}),
    )


def by_tokenizer(model: Model) -> Float[ndarray, " vocab"]:
    """Each token's frequency as far as its tokenizer shows it; tokens it cannot tell are last.

    Raises `BehaviourError` for a tokenizer whose vocabulary has no order by frequency.
    """
    backend: Any = getattr(model.tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise BehaviourError("The tokenizer is no fast one, so that its merges are not known.")
    described: dict[str, Any] = json.loads(backend.to_str())["model"]
    if described["type"] == "Unigram":
        found = np.array([score for _, score in described["vocab"]], dtype=np.float64)
        return np.concatenate([found, np.full(max(0, model.d_vocab - len(found)), found.min())])
    if described["type"] != "BPE":
        raise BehaviourError(
            f"A vocabulary of the kind {described['type']} is not ordered by frequency, so that "
            "the tokenizer says nothing of it."
        )
    ids: dict[str, int] = described["vocab"]
    merges = [
        merge.split(" ") if isinstance(merge, str) else merge for merge in described["merges"]
    ]
    found = np.full(model.d_vocab, -float(len(merges)))
    for rank, (left, right) in reversed(list(enumerate(merges))):
        if left + right in ids and ids[left + right] < len(found):
            found[ids[left + right]] = -float(rank)
    # single characters and bytes were there before the first merge
    made = {left + right for left, right in merges}
    found[[at for text, at in ids.items() if text not in made and at < len(found)]] = 1.0
    return found


def by_model(model: Model) -> Float[ndarray, " vocab"]:
    """The log of the model's mean next-token probability over neutral sentences.

    Raises `BehaviourError` for a model without a tokenizer.
    """
    if model.tokenizer is None:
        raise BehaviourError("The model was opened without a tokenizer to write sentences with.")
    run = model.run(list(DISTRACTORS))
    mask = run.tokens.mask.to(run.logits.device)
    log_p = run.logits[mask].cpu().double().log_softmax(dim=-1)
    mean = log_p.logsumexp(dim=0) - float(np.log(len(log_p)))
    return mean.numpy()


def spearman(
    left: Float[ndarray, " example"],
    right: Float[ndarray, " example"],
    *,
    n_boot: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Spearman's rank correlation with a percentile bootstrap interval over examples.

    Ties share their mean rank. NaN where one side does not vary; resamples in which one does not
    are left out.
    """
    n = len(left)
    drawn = np.random.default_rng(seed).integers(n, size=(n_boot, n))
    resampled = _correlations(left[drawn], right[drawn])
    known = resampled[~np.isnan(resampled)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(known, [tail, 1 - tail]) if n > 1 and known.size else (np.nan, np.nan)
    return Interval(
        mean=np.asarray(_correlations(left[None], right[None])[0]), low=np.asarray(low),
        high=np.asarray(high), n=np.asarray(n), confidence=confidence,
    )  # fmt: skip


def _correlations(
    left: Float[ndarray, "sample example"], right: Float[ndarray, "sample example"]
) -> Float[ndarray, " sample"]:
    """Pearson's correlation of the ranks, sample by sample."""
    ranks = [rankdata(side, axis=1) for side in (left, right)]
    a, b = (side - side.mean(axis=1, keepdims=True) for side in ranks)
    spread = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return np.divide(
        (a * b).sum(axis=1), spread, out=np.full(len(a), np.nan), where=spread > 0
    )  # fmt: skip


def _words(behaviour: Behaviour, left_out: dict[str, str]) -> dict[str, list[int]]:
    """Each label's token, and the answers', example by example, where they vary."""
    rows = torch.arange(len(behaviour))
    columns = {
        name: behaviour.clean.ids[rows, where].tolist()
        for name, where in behaviour.clean.labels.items()
    }
    for name, side in (("answer", behaviour.answers), ("wrong answer", behaviour.wrong_answers)):
        if all(len(ids) == 1 for ids in side):
            columns[name] = [ids[0] for ids in side]
    found: dict[str, list[int]] = {}
    few: list[str] = []
    for name, ids in columns.items():
        if len(set(ids)) < _LEAST:
            few.append(name)
        elif ids not in found.values():
            found[name] = ids
    if few:
        left_out[_listed(few)] = f"Of {_listed(few)} there are fewer than {_LEAST} different words."
    return found


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
