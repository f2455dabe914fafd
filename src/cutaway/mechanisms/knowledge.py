"""Which neurons carry what a text says: integrated gradients, held against ordinary text.

Dai et al. 2022, "Knowledge Neurons in Pretrained Transformers". All neurons of all layers go
together from their values to their means over ordinary text, in `steps` equal steps; on the way

    drop = Σ_positions (value − mean) · average over the way of ∂ log p(suffix) / ∂ neuron

is each neuron's share of what the suffix's log-probability loses in all (Sundararajan et al. 2017:
the shares add up to the whole). The same of the ordinary texts' own tokens is what they would lose.
A neuron carries the text when it has a large `drop − 2 · rise`: what ordinary text needs counts
twice, since it is to be spared.

Deviations from the paper: neurons go to their means and not to zero, and all layers go together
rather than one neuron at a time, so that the shares of one neuron do not count what others also do.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cutaway.mechanisms.ablating import means
from cutaway.model.edits import Edit, replace
from cutaway.model.model import Model
from cutaway.model.run import Metric
from cutaway.model.sites import Site
from cutaway.model.tokens import Tokens
from cutaway.observe.neurons import layers_with_neurons

_ROWS, _STEPS = 16, 8
Neuron = tuple[int, int]
"""Layer and number."""


@dataclass(frozen=True, kw_only=True, eq=False)
class NeuronMeans:
    """The mean of every neuron over ordinary text."""

    values: Mapping[Site, Tensor]
    """By site `mlp_post.L`: (neuron,)."""

    @staticmethod
    def of(model: Model, tokens: Tokens) -> NeuronMeans:
        """Run the texts. Raises `WeightsError` for a mixture of experts."""
        sites = [Site("mlp_post", layer) for layer in layers_with_neurons(model)]
        return NeuronMeans(values=means(model, tokens, sites))

    def edits(self, neurons: Sequence[Neuron]) -> list[Edit]:
        """The edits that set these neurons to their means."""
        found: list[Edit] = []
        for site, values in self.values.items():
            numbers = [number for layer, number in neurons if layer == site.layer]
            if numbers:
                found.append(replace(site, values[numbers], neuron=numbers))
        return found


def carrying(
    model: Model, means: NeuronMeans, texts: Tokens, wanted: Bool[Tensor, "text position"],
    other: Tokens, many: int,
) -> list[Neuron]:  # fmt: skip
    """The neurons that carry the wanted tokens of some texts and not those of the others."""
    ordinary = other.mask.clone()
    ordinary[torch.arange(len(other)), other.first] = False
    drop, rise = shares(model, means, texts, wanted), shares(model, means, other, ordinary)
    score = drop - 2 * rise
    order = np.argsort(-np.nan_to_num(score, nan=-np.inf), axis=None, kind="stable")[:many]
    layers, numbers = np.unravel_index(order, score.shape)
    return list(zip(layers.tolist(), numbers.tolist(), strict=True))


def shares(
    model: Model, means: NeuronMeans, tokens: Tokens, wanted: Bool[Tensor, "text position"]
) -> Float[np.ndarray, "layer neuron"]:
    """Each neuron's share of the fall of the wanted tokens' log-probability (per token, averaged
    over texts) when all neurons go to their means; NaN where a layer has fewer neurons."""
    width = max(len(values) for values in means.values.values())
    found = np.full((len(means.values), width), np.nan)
    for number, values in enumerate(means.values.values()):
        found[number, : len(values)] = 0.0
    for start in range(0, len(tokens), _ROWS):
        where = slice(start, min(start + _ROWS, len(tokens)))
        rows = tokens.rows(where)
        for number, each in enumerate(_shares(model, means, rows, wanted[where])):
            found[number, : len(each)] += each.double().cpu().numpy() / len(tokens)
    return found


def _shares(
    model: Model, means: NeuronMeans, rows: Tokens, wanted: Tensor
) -> list[Float[Tensor, " neuron"]]:
    sites = list(means.values)
    plain = model.run(rows, keep=sites)
    real = rows.mask[..., None]
    apart = {site: plain[site] - means.values[site].to(plain[site].dtype) for site in sites}
    total = [torch.zeros(apart[site].shape[-1]) for site in sites]
    for step in range(_STEPS):
        way = (step + 0.5) / _STEPS
        edits = [replace(site, plain[site] - way * apart[site]) for site in sites]
        run = model.run(rows, keep=sites, edits=edits, grad_of=_said(rows, wanted))
        for number, site in enumerate(sites):
            along = (apart[site] * run.grad(site) * real.to(apart[site].device)).sum(dim=(0, 1))
            total[number] = total[number] + along.float().cpu() / _STEPS
    return total


def _said(rows: Tokens, wanted: Tensor) -> Metric:
    """The wanted tokens' log-probability, per token of each text."""

    def metric(logits: Tensor) -> Tensor:
        ids, mask = rows.ids[:, 1:].to(logits.device), wanted[:, 1:].to(logits.device)
        log = logits[:, :-1].float().log_softmax(dim=-1).gather(-1, ids[..., None])[..., 0]
        return (log * mask).sum(dim=1) / mask.sum(dim=1)

    return metric


def alike(chosen: Sequence[Neuron], means: NeuronMeans, draw: random.Random) -> list[Neuron]:
    """As many random neurons in each layer, others where there are enough."""
    found: list[Neuron] = []
    for site, values in means.values.items():
        taken = [number for layer, number in chosen if layer == site.layer]
        others = sorted(set(range(len(values))) - set(taken))
        pool = others if len(others) >= len(taken) else list(range(len(values)))
        found += [(site.layer or 0, number) for number in draw.sample(pool, len(taken))]
    return found
