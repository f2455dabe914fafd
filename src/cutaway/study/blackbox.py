"""Black box: how well the model does the behaviour, before anybody looks inside.

Clean and corrupt prompts are run in batches small enough for their logits to fit a budget, and the
logits at `end` give, per example: the accuracy (the answer against the wrong answer), the logit
difference, the probability difference, and the most likely next token. Corrupt prompts are measured
with the clean prompts' answers, so a good corruption takes the difference away or turns it round.
Means come with bootstrap intervals over all examples, over held-out ones, and by each variation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

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
from cutaway.study.stage import Inputs

MEASURES = ("accuracy", "logit_diff", "prob_diff")
"""What is measured on every example."""

_ARRAYS = ("values", "top_id", "top_text", "top_probability", "held_out")


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


def measure(inputs: Inputs) -> BlackBox:
    """Run every prompt once and measure it."""
    model, behaviour = inputs.model, inputs.behaviour
    n = len(behaviour)
    values = np.empty((2, len(MEASURES), n))
    top_id = np.empty(n, dtype=np.int64)
    top_probability = np.empty(n)
    for where, rows in batches(behaviour, batch_size_for(model, behaviour, None), inputs.tick):
        for run, tokens in enumerate((rows.clean, rows.corrupt)):
            logits = end_logits(model, tokens)
            for index, name in enumerate(MEASURES):
                values[run, index, where] = METRICS[name](logits, rows).cpu().numpy()
            if run == 0:
                best, chosen_id = logits.softmax(dim=-1).max(dim=-1)
                top_probability[where], top_id[where] = best.cpu().numpy(), chosen_id.cpu().numpy()
    example = np.arange(n)

    def per_example(data: Any) -> xr.DataArray:
        return xr.DataArray(np.asarray(data), {"example": example}, "example")

    coords = {"run": ["clean", "corrupt"], "measure": list(MEASURES), "example": example}
    return BlackBox(
        values=xr.DataArray(values, coords, ("run", "measure", "example")),
        top_id=per_example(top_id),
        top_text=per_example(answer_texts(model, [(int(index),) for index in top_id])),
        top_probability=per_example(top_probability),
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
