"""Token-frequency neurons: neurons whose output shifts the prediction along tokens' frequencies.

Stolfo et al. 2024, "Confidence Regulation Neurons in Language Models", section 5. A model that
knows nothing does best to predict each token's frequency; some neurons move the logits towards or
away from that:

1. f: the log frequency of every token, less its mean. Frequencies are counted in the text or
   tokens that the user gives (one is added to every count), or, where none are given, the model's
   own: its next-token probabilities averaged over prompts of one token each, every token once
   (2,048 drawn, of a larger vocabulary). The result says which. In its own predictions the neurons
   have had a hand, so that some may stand out even in a model that has learnt nothing; for a claim,
   give the text that it was trained on;
2. W · w: what a neuron's output direction w does to the logits, through the final norm's gain,
   less the mean over tokens (a softmax does not see it);
3. score: the cosine between f and W · w over the vocabulary. With G = Wᵀ·W and c = Wᵀ·f it is
   w·c / (‖f‖ · √(wᵀ G w)): nothing of the vocabulary's size is made for each neuron;
4. chance: random directions, which also have a cosine where the unembedding itself holds
   frequency. `bound` is what the largest of as many random directions as there are neurons stays
   under, in 99 of 100 draws of that many.

The scale of the final norm is one number per position and changes no cosine. A post-norm after the
MLP is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from cutaway.measure.result import Result
from cutaway.model import weights as read
from cutaway.model.model import Inputs, Model
from cutaway.observe.neurons import LEVEL, by_neuron, layers_with_neurons
from cutaway.observe.weights import origin, unembedding

_DRAWS = 100
_PROMPTS, _ROWS = 2048, 128
_NUMBERS = 4_000_000


@dataclass(frozen=True, kw_only=True, eq=False)
class FrequencyNeurons(Result):
    """How far each neuron pushes along the tokens' frequencies."""

    values: xr.DataArray
    """(layer, neuron): the cosine; positive neurons push towards frequent tokens when active."""
    bound: float
    """What the largest of as many random directions stays under in 99 of 100 draws."""
    source: str
    """Where the frequencies are from."""
    provenance: Mapping[str, Any] = field(repr=False)
    """The model."""

    @property
    def found(self) -> pd.DataFrame:
        """The neurons above chance, the strongest first: layer, neuron, cosine."""
        values = self.values.to_numpy()
        at = np.argwhere(np.nan_to_num(np.abs(values)) > self.bound)
        cosine = values[tuple(at.T)]
        order = np.argsort(-np.abs(cosine), kind="stable")
        layers = self.values["layer"].to_numpy()
        return pd.DataFrame(
            {"layer": layers[at[order, 0]], "neuron": at[order, 1], "cosine": cosine[order]}
        )

    def __str__(self) -> str:
        found = self.found
        head = (
            f"Token-frequency neurons: {len(found)} of {int(self.values.count())} above chance "
            f"(|cosine| > {self.bound:.2f}); frequencies from {self.source}"
        )
        lines = [
            f"{layer}.{neuron}: {cosine:+.3f}"
            for layer, neuron, cosine in found.head(10).itertuples(index=False)
        ]
        return "\n".join([head, *lines])

    def to_dataset(self) -> xr.Dataset:
        """All of it."""
        names = ("bound", "source", "provenance")
        return xr.Dataset({"values": self.values}, attrs={n: getattr(self, n) for n in names})

    @classmethod
    def from_dataset(cls, data: xr.Dataset) -> Self:
        """The inverse of `to_dataset`."""
        return cls(values=data["values"], **data.attrs)


def frequency_neurons(
    model: Model,
    text: Inputs | None = None,
    *,
    layers: Sequence[int] | None = None,
    seed: int = 0,
) -> FrequencyNeurons:
    """Score every neuron along the frequencies in `text`, or along the model's own.

    `text` is anything that `model.tokens` takes; `seed` draws the random directions. Raises
    `WeightsError` for a mixture of experts and for layers that there are not.
    """
    asked = layers_with_neurons(model, layers)
    frequencies = unigram(model, seed=seed) if text is None else counted(model, text)
    rows = unembedding(model)[: len(frequencies)].double()
    rows = rows - rows.mean(dim=0)
    wanted = frequencies.log().double().to(rows.device)
    wanted = wanted - wanted.mean()
    gram, along = rows.mT @ rows, rows.mT @ wanted / wanted.norm()
    scores = [
        (w @ along) / ((w @ gram) * w).sum(dim=1).sqrt()
        for w in (read.mlp_output(model, layer).double() for layer in asked)
    ]
    many = sum(map(len, scores))
    source = "the model's own predictions" if text is None else "the text that was given"
    return FrequencyNeurons(
        values=by_neuron(scores, asked), bound=_bound(gram, along, many, seed), source=source,
        provenance=origin(model, seed=seed, source=source),
    )  # fmt: skip


def counted(model: Model, text: Inputs) -> Float[Tensor, " vocab"]:
    """Each token's share of a text's tokens, with one added to every count."""
    tokens = model.tokens(text)
    ids = tokens.ids[tokens.mask]
    counts = torch.bincount(ids.cpu(), minlength=model.d_vocab)[: model.d_vocab].double() + 1
    return counts / counts.sum()


def unigram(model: Model, *, seed: int = 0) -> Float[Tensor, " vocab"]:
    """The model's next-token probabilities, averaged over prompts of one token."""
    ids = torch.arange(model.d_vocab)
    if len(ids) > _PROMPTS:
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randperm(len(ids), generator=generator)[:_PROMPTS]
    total = torch.zeros(0)
    for start in range(0, len(ids), _ROWS):
        logits = model.run(ids[start : start + _ROWS, None]).last_logits
        here = logits[:, : model.d_vocab].double().softmax(dim=-1).sum(dim=0).cpu()
        total = here if start == 0 else total + here
    return total / total.sum()


def _bound(gram: Tensor, along: Tensor, many: int, seed: int) -> float:
    """The quantile of the largest cosine of `many` random directions, in the eigenbasis of G."""
    eigenvalues, basis = torch.linalg.eigh(gram)
    sizes, towards = eigenvalues.clamp(min=0).cpu(), (basis.mT @ along).cpu()
    generator = torch.Generator().manual_seed(seed)
    step = max(1, _NUMBERS // len(sizes))
    largest: list[float] = []
    for _ in range(_DRAWS):
        top = 0.0
        for start in range(0, many, step):
            drawn = torch.randn(
                min(step, many - start), len(sizes), generator=generator, dtype=torch.double
            )
            cosines = (drawn @ towards).abs() / (drawn.square() @ sizes).sqrt()
            top = max(top, float(cosines.max()))
        largest.append(top)
    return float(np.quantile(largest, 1 - LEVEL))
