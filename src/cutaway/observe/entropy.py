"""Entropy neurons: neurons that act on how sure the model is, through the final norm's scale.

Gurnee et al. 2024, "Universal Neurons in GPT2 Language Models", section 5; Stolfo et al. 2024,
"Confidence Regulation Neurons in Language Models", section 3. Such a neuron writes, with a large
weight, where the unembedding hardly reads: no logit moves by it, but the stream grows longer, the
final norm divides by more, and all logits come closer together.

1. The effective null space: the `share` of directions that change the logits least (the smallest
   eigenvalues of G = Wᵀ·W, W the unembedding with the final norm's gain folded in, less its mean
   over tokens). What a LayerNorm's centring removes is left out beforehand: it changes no scale.
2. For every neuron of the layer (the last, when not told): `norm`, the norm of its output
   direction, and `null`, the share of the squared norm in that space. Chance: for a random
   direction of D dimensions, k of them null, null ~ Beta(k/2, (D − k)/2), exactly; `chance` is what
   the largest of a layer of random neurons stays under, with a probability of 99 %.
3. Causally: the candidates, with the largest norm inside that space, and as many neurons at random
   are each set to their mean over the prompts' tokens. The change of the output's entropy is
   measured as it is (total), and with the final norm's scale held at what it was (direct). What
   goes through the scale is `1 − Σ|direct| / Σ|total|` over tokens.

An entropy neuron is a candidate with `null` above chance, whose total and direct changes differ by
more than chance (a 95 % interval over prompts), and more of which goes through the scale than of
any random neuron. A post-norm after the MLP is left out of 1 and 2, not of 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
import xarray as xr
from jaxtyping import Float
from scipy.stats import beta
from torch import Tensor

from cutaway.behaviours.interval import bootstrap
from cutaway.measure.result import Result
from cutaway.model import weights as read
from cutaway.model.edits import replace
from cutaway.model.model import Inputs, Model
from cutaway.model.run import Run
from cutaway.model.sites import Site
from cutaway.model.tokens import Tokens
from cutaway.observe.factored import WeightsError
from cutaway.observe.neurons import LEVEL, layers_with_neurons
from cutaway.observe.weights import origin, unembedding

_ROWS = 16
_ARRAYS = ("norm", "null", "total", "direct", "size", "direct_size", "candidate")


@dataclass(frozen=True, kw_only=True, eq=False)
class EntropyNeurons(Result):
    """A layer's neurons by what they write where the unembedding does not read, and their effect.

    `tried` neurons are the candidates and the random ones.
    """

    norm: xr.DataArray
    """(neuron,): the norm of the output direction, the final norm's centring applied."""
    null: xr.DataArray
    """(neuron,): the share of its square in the unembedding's effective null space."""
    total: xr.DataArray
    """(tried, example): how much the entropy (nats, mean over tokens) rises without the neuron."""
    direct: xr.DataArray
    """(tried, example): the same with the final norm's scale held."""
    size: xr.DataArray
    """(tried, example): the mean over tokens of the total change's magnitude."""
    direct_size: xr.DataArray
    """(tried, example): of the direct change's."""
    candidate: xr.DataArray
    """(tried,): whether it is a candidate; the others were drawn at random."""
    layer: int
    """The layer."""
    chance: float
    """What the largest `null` of as many random directions stays under, 99 times of 100."""
    provenance: Mapping[str, Any] = field(repr=False)
    """The model and the settings."""

    @property
    def through_scale(self) -> xr.DataArray:
        """(tried,): the share of the change in entropy that goes through the final norm's scale."""
        total = self.size.sum("example")
        return (1 - self.direct_size.sum("example") / total).where(total > 0)

    @property
    def table(self) -> pd.DataFrame:
        """One row per neuron tried, candidates first, the most mediated first."""
        through = self.through_scale
        others = through.where(~self.candidate)
        rival = float(others.max()) if bool(others.notnull().any()) else -math.inf
        rows: list[dict[str, object]] = []
        for neuron in self.total["tried"].to_numpy().tolist():
            at = {"tried": neuron}
            change, mediated = (
                bootstrap(each.sel(at).to_numpy())
                for each in (self.total, self.size - self.direct_size)
            )
            null, share = float(self.null.sel(neuron=neuron)), float(through.sel(at))
            candidate = bool(self.candidate.sel(at))
            rows.append({
                "neuron": neuron, "candidate": candidate,
                "norm": float(self.norm.sel(neuron=neuron)), "null": null,
                "entropy": float(change.mean), "low": float(change.low),
                "high": float(change.high), "through scale": share,
                "entropy neuron": candidate and null > self.chance and share > rival
                and float(mediated.low) > 0,
            })  # fmt: skip
        order = ["candidate", "through scale"]
        return pd.DataFrame(rows).sort_values(order, ascending=False, ignore_index=True)

    def __str__(self) -> str:
        table = self.table
        found = int(table["entropy neuron"].sum())
        head = (
            f"Entropy neurons of layer {self.layer}: {found} of {int(self.candidate.sum())} "
            f"candidates (null share above {self.chance:.2f}, and more through the final norm's "
            f"scale than any of {int((~self.candidate).sum())} random neurons)"
        )
        return f"{head}\n{table.to_string(index=False, float_format='{:.3f}'.format)}"

    def to_dataset(self) -> xr.Dataset:
        """All of it."""
        attrs = {name: getattr(self, name) for name in ("layer", "chance", "provenance")}
        return xr.Dataset({name: getattr(self, name) for name in _ARRAYS}, attrs=attrs)

    @classmethod
    def from_dataset(cls, data: xr.Dataset) -> Self:
        """The inverse of `to_dataset`."""
        arrays = {name: data[name] for name in _ARRAYS}
        arrays["candidate"] = arrays["candidate"].astype(bool)
        return cls(**arrays, **data.attrs)


def entropy_neurons(
    model: Model,
    prompts: Inputs,
    *,
    layer: int | None = None,
    candidates: int = 8,
    share: float = 0.1,
    seed: int = 0,
) -> EntropyNeurons:
    """Look for entropy neurons in a layer, the last when not told, over some prompts.

    `candidates` neurons are tried, and as many at random, drawn with `seed`; `share` is the part of
    the stream's directions that counts as null. Raises `WeightsError` for a mixture of experts and
    for settings that cannot be.
    """
    (at,) = layers_with_neurons(model, [model.n_layers - 1 if layer is None else layer])
    if not 0 < share < 1 or candidates < 1:
        raise WeightsError(
            f"share lies between 0 and 1 and candidates count from 1; found {share} and "
            f"{candidates}."
        )
    norm, null, chance = _null(model, at, share)
    chosen = (norm * null.sqrt()).argsort(descending=True, stable=True)[:candidates].tolist()
    rest = torch.tensor([each for each in range(len(norm)) if each not in chosen])
    order = torch.randperm(len(rest), generator=torch.Generator().manual_seed(seed))
    random = rest[order[:candidates]].tolist()
    tried = [*chosen, *random]
    changes = _changes(model, model.tokens(prompts), at, tried)
    flat = {"neuron": np.arange(len(norm))}
    return EntropyNeurons(
        norm=xr.DataArray(norm.cpu().numpy(), flat, ("neuron",)),
        null=xr.DataArray(null.cpu().numpy(), flat, ("neuron",)),
        **{
            name: xr.DataArray(each, {"tried": tried}, ("tried", "example"))
            for name, each in changes.items()
        },
        candidate=xr.DataArray(
            [True] * len(chosen) + [False] * len(random), {"tried": tried}, ("tried",)
        ),
        layer=at, chance=chance,
        provenance=origin(model, layer=at, candidates=candidates, share=share, seed=seed),
    )  # fmt: skip


def _null(model: Model, layer: int, share: float) -> tuple[Tensor, Tensor, float]:
    """Each neuron's norm, its share in the effective null space, and that share by chance."""
    rows = unembedding(model).double()
    rows = rows - rows.mean(dim=0)
    _, basis = torch.linalg.eigh(rows.mT @ rows)
    centres = int(model.frozen_norm.centres)
    dimensions = model.d_model - centres
    many = max(1, round(share * dimensions))
    # where the norm centres, the direction it removes is the first; neurons have nothing there
    space = basis[:, : many + centres]
    written = model.frozen_norm.centred(read.mlp_output(model, layer).double())
    norm = written.norm(dim=1)
    null = (written @ space).square().sum(dim=1) / norm.square().clamp(min=1e-30)
    largest = beta.isf(LEVEL / len(norm), many / 2, (dimensions - many) / 2)
    return norm, null, float(largest)


def _changes(
    model: Model, tokens: Tokens, layer: int, tried: list[int]
) -> dict[str, Float[np.ndarray, "tried example"]]:
    """What taking each neuron's variation away does to the entropy, totally and directly."""
    site, last = Site("mlp_post", layer), Site("resid_final")
    batches = [tokens.rows(slice(n, n + _ROWS)) for n in range(0, len(tokens), _ROWS)]
    total, count = torch.zeros(0), 0
    for rows in batches:
        run = model.run(rows, keep=[site])
        here = run[site][run.tokens.mask].float().sum(dim=0)
        total = total + here if count else here
        count += int(rows.mask.sum())
    means = total / count
    found: dict[str, list[list[np.ndarray]]] = {
        name: [[] for _ in tried] for name in ("total", "direct", "size", "direct_size")
    }
    for rows in batches:
        plain = model.run(rows, keep=[last])
        before = entropy(plain.logits)
        scale = model.frozen_norm.scale(plain[last])
        for number, neuron in enumerate(tried):
            edit = replace(site, means[neuron], neuron=neuron)
            run = model.run(rows, keep=[last], edits=edit)
            changed = {
                "total": entropy(run.logits) - before,
                "direct": entropy(_held(model, run[last], scale)) - before,
            }
            for name, size in (("total", "size"), ("direct", "direct_size")):
                found[name][number].append(_per_prompt(changed[name], plain))
                found[size][number].append(_per_prompt(changed[name].abs(), plain))
    return {
        name: np.stack([np.concatenate(parts) for parts in each]) for name, each in found.items()
    }


def entropy(logits: Float[Tensor, "batch position vocab"]) -> Float[Tensor, "batch position"]:
    """The entropy of next-token distributions, in nats."""
    log = logits.float().log_softmax(dim=-1)
    return -(log.exp() * log).sum(dim=-1)


def _held(model: Model, x: Tensor, scale: Tensor) -> Tensor:
    """The logits of a final stream under another run's scale."""
    norm = model.frozen_norm
    with torch.no_grad():
        return model.unembed((norm.gain * norm.centred(x.float()) / scale + norm.bias).to(x.dtype))


def _per_prompt(values: Tensor, run: Run) -> np.ndarray:
    """(example,): the mean over a prompt's real tokens."""
    real = run.tokens.mask.to(values.device)
    return ((values * real).sum(dim=1) / real.sum(dim=1)).double().cpu().numpy()
