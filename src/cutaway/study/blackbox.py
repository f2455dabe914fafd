"""Black box: how well the model does the behaviour, before anybody looks inside.

Clean and corrupt prompts are run in batches small enough for their logits to fit a budget, and the
logits at `end` give, per example: the accuracy (the answer against the wrong answer), the logit
difference, the probability difference, and the most likely next token. Corrupt prompts are measured
with the clean prompts' answers, so a good corruption takes the difference away or turns it round.
Means come with bootstrap intervals over all examples, over held-out ones, and by each variation.

The same passes say how sure the model is (`BlackBox.calibration`). What breaks the behaviour is
asked beside it: other text around the prompts (`blackbox_insertions`), the smallest changes that
flip the answer (`blackbox_flips`), and whether common words are easier (`blackbox_frequency`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from cutaway.behaviours import METRICS, Interval, bootstrap
from cutaway.measure.batches import batch_size_for, batches
from cutaway.measure.result import Result, provenance
from cutaway.model import Model, Tokens
from cutaway.model.tokens import token_strings
from cutaway.study.blackbox_calibration import Calibration, calibration
from cutaway.study.stage import Inputs

MEASURES = ("accuracy", "logit_diff", "prob_diff")
"""What is measured on every example."""

_ARRAYS = (
    "values", "top_id", "top_text", "top_probability", "top_right", "answer_probability",
    "wrong_probability", "held_out",
)  # fmt: skip

Among = Literal["sides", "vocabulary"]
"""Between which answers the model chooses: right and wrong ones alone, or all tokens."""


@dataclass(frozen=True, kw_only=True, eq=False)
class BlackBox(Result):
    """The behaviour as measured from outside."""

    values: xr.DataArray
    """`run measure example`: runs clean and corrupt, the measures of `MEASURES`."""
    top_id: xr.DataArray
    """`example`: the most likely token after each clean prompt, as an id."""
    top_text: xr.DataArray
    """`example`: that token as text (its id in digits when the model has no tokenizer)."""
    top_probability: xr.DataArray
    """`example`: its probability."""
    top_right: xr.DataArray
    """`example`: whether it is a right answer."""
    answer_probability: xr.DataArray
    """`example`: the probability of all right answers together, after the clean prompt."""
    wrong_probability: xr.DataArray
    """`example`: that of all wrong answers together."""
    held_out: xr.DataArray
    """`example`: whether the example is kept for the final check."""
    provenance: Mapping[str, Any] = field(repr=False)
    """Versions, model, data and settings; the bootstrap's seed is in the configuration."""

    def to_dataset(self) -> xr.Dataset:
        """All arrays in one."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        return xr.Dataset(arrays, attrs={"provenance": self.provenance})

    @classmethod
    def from_dataset(cls, data: xr.Dataset) -> Self:
        """The inverse of `to_dataset`."""
        arrays = {name: data[name] for name in _ARRAYS}
        return cls(**arrays, provenance=data.attrs["provenance"])

    @property
    def n(self) -> int:
        """The number of examples."""
        return self.values.sizes["example"]

    @property
    def n_held_out(self) -> int:
        """How many of them are held out."""
        return int(self.held_out.sum())

    def each(self, measure: str, run: str = "clean") -> Float[np.ndarray, " example"]:
        """One value per example."""
        return self.values.sel(measure=measure, run=run).values.astype(np.float64)

    def interval(
        self, measure: str, run: str = "clean", *, held_out: bool | None = None
    ) -> Interval:
        """Mean and bootstrap interval, of all examples or of one side of the split."""
        each = self.each(measure, run)
        if held_out is not None:
            each = each[self.held_out.values.astype(bool) == held_out]
        return bootstrap(each, seed=self.provenance["configuration"]["seed"])

    def calibration(self, among: Among = "sides") -> Calibration:
        """Whether the model is right as often as it is sure, on the clean prompts.

        Between the two `sides`: the larger side's share of both probabilities, right when it is
        that of the right answers. Over the `vocabulary`: the likeliest token's probability, right
        when it is a right answer.
        """
        if among == "sides":
            right, wrong = self.answer_probability.to_numpy(), self.wrong_probability.to_numpy()
            # both may be too small for a float
            share = np.divide(right, right + wrong, out=np.full(self.n, 0.5), where=right > 0)
            share = np.where((right == 0) & (wrong > 0), 0.0, share)
            confidence, correct = np.maximum(share, 1 - share), share > 0.5
        else:
            confidence, correct = self.top_probability.to_numpy(), self.top_right.to_numpy()
        seed = int(self.provenance["configuration"]["seed"])
        return calibration(confidence, correct.astype(np.float64), seed=seed)


def measure(inputs: Inputs) -> BlackBox:
    """Run every prompt once and measure it."""
    model, behaviour = inputs.model, inputs.behaviour
    n = len(behaviour)
    values = np.empty((2, len(MEASURES), n))
    top_id, top_probability = np.empty(n, dtype=np.int64), np.empty(n)
    sides = np.empty((2, n))
    for where, rows in batches(behaviour, batch_size_for(model, behaviour, None), inputs.tick):
        for run, tokens in enumerate((rows.clean, rows.corrupt)):
            logits = end_logits(model, tokens)
            for index, name in enumerate(MEASURES):
                values[run, index, where] = METRICS[name](logits, rows).cpu().numpy()
            if run == 0:
                probabilities = logits.cpu().double().softmax(dim=-1).numpy()
                top_id[where] = probabilities.argmax(axis=1)
                top_probability[where] = probabilities.max(axis=1)
                for side, sets in enumerate((rows.answers, rows.wrong_answers)):
                    sides[side, where] = [
                        probabilities[row, ids].sum() for row, ids in enumerate(sets)
                    ]
    example = np.arange(n)
    right = [int(token) in ids for token, ids in zip(top_id, behaviour.answers, strict=True)]

    def per_example(data: Any) -> xr.DataArray:
        return xr.DataArray(np.asarray(data), {"example": example}, "example")

    coords = {"run": ["clean", "corrupt"], "measure": list(MEASURES), "example": example}
    return BlackBox(
        values=xr.DataArray(values, coords, ("run", "measure", "example")),
        top_id=per_example(top_id),
        top_text=per_example(answer_texts(model, [(int(index),) for index in top_id])),
        top_probability=per_example(top_probability),
        top_right=per_example(right),
        answer_probability=per_example(sides[0]),
        wrong_probability=per_example(sides[1]),
        held_out=per_example(behaviour.held_out),
        provenance=provenance(
            model, behaviour, {"method": "black box", "seed": inputs.settings.seed}
        ),
    )


def end_logits(model: Model, tokens: Tokens) -> Float[Tensor, "batch vocab"]:
    """The logits at each prompt's label `end`, in at least float32."""
    logits = model.run(tokens).logits
    rows = torch.arange(len(tokens), device=logits.device)
    return logits[rows, tokens.labels["end"].to(logits.device)].float()


def answer_texts(model: Model, ids: Sequence[Sequence[int]]) -> list[str]:
    """Answer sets as text, the tokens of one set with commas between them."""
    if model.tokenizer is None:
        return [", ".join(map(str, one)) for one in ids]
    return [", ".join(token_strings(model.tokenizer, one)) for one in ids]


def chosen(n: int, wanted: int, seed: int) -> list[int]:
    """At most `wanted` of `n` examples, drawn with the seed, in their order."""
    if n <= wanted:
        return list(range(n))
    return sorted(np.random.default_rng(seed).choice(n, size=wanted, replace=False).tolist())
