"""Head detectors: which heads attend along a relation, more than chance, and whether it matters.

For a relation R (see `relations`) and each head, on each prompt:

1. score: the attention that goes along R, Σ_k R[q, k] · pattern[q, k], averaged over the queries q
   that have such a key. 1 is a head that does nothing else;
2. chance: the same with queries of zero (relations of places), or on the prompt with its tokens
   shuffled, at the places where R held (relations of tokens);
3. p: sign flips of score − chance over prompts, corrected by the largest statistic of all heads
   and relations (`measure.significance`): a level of 0.01 bounds the chance of naming any head at
   all in a model that has none;
4. a head is *detected* when p is below a level and the excess is at least the relation's `least`.
   The second is needed since with enough prompts even an untrained head's liking is no chance.

Prompts, when none are given, are random tokens said twice after the first token, in which all
relations occur and nothing but the tokens' order can be known (Olsson et al. 2022).

What a head does in a behaviour, and not only where it looks, is read by `movers`; `confirming` is
the causal side of both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from cutaway.behaviours.behaviour import Behaviour
from cutaway.errors import InputError
from cutaway.measure.batches import Progress, batch_size_for, batches
from cutaway.measure.result import Result, provenance
from cutaway.measure.significance import sign_flips
from cutaway.model.model import Model
from cutaway.model.ports import Passing
from cutaway.model.sites import Site
from cutaway.model.taps import Tap
from cutaway.model.tokens import Tokens
from cutaway.observe.relations import (
    KINDS,
    LEAST,
    Mask,
    known_relation,
    shuffled,
    texts_of,
)

LEVEL = 0.01
_HALF = 12
_ARRAYS = ("values", "chance", "effect", "effect_chance", "p")


@dataclass(frozen=True, kw_only=True, eq=False)
class Detected(Result):
    """How much every head attends along each relation (or as each role wants it, see `roles`)."""

    values: xr.DataArray
    """(example, relation, layer, head): the attention along it; NaN where a prompt has none."""
    chance: xr.DataArray
    """The same by chance."""
    effect: xr.DataArray
    """The same axes: what a role's head does with what it sees, in logits (S-inhibition: in the
    name movers' attention); NaN for relations, which are of attention alone."""
    effect_chance: xr.DataArray
    """The same by chance."""
    p: xr.DataArray
    """(relation, layer, head): p of the excess, and of the effect's, whichever is larger; 1 where
    either has the wrong sign, NaN where there was nothing to measure. Corrected for all heads and
    relations."""
    left_out: tuple[str, ...] = ()
    """Why relations or roles could not be looked for in these prompts, a sentence for each."""
    provenance: Mapping[str, Any] = field(repr=False)
    """Versions, model, data and settings."""

    @classmethod
    def of(
        cls,
        arrays: Mapping[str, np.ndarray],
        names: Sequence[str],
        record: Mapping[str, Any],
        left_out: Sequence[str] = (),
    ) -> Self:
        """From plain arrays, by the names of the fields, that end in (relation, layer, head)."""
        layers, heads = arrays["p"].shape[1:]
        coords = {"relation": list(names), "layer": np.arange(layers), "head": np.arange(heads)}
        dims = ("example", "relation", "layer", "head")
        made = {
            name: xr.DataArray(arrays[name], coords, dims[4 - arrays[name].ndim :], name)
            for name in _ARRAYS
        }
        return cls(**made, provenance=record, left_out=tuple(left_out))

    @property
    def mean(self) -> xr.DataArray:
        """(relation, layer, head): averaged over prompts."""
        return self.values.mean("example", skipna=True)

    @property
    def excess(self) -> xr.DataArray:
        """(relation, layer, head): the mean less chance."""
        return (self.values - self.chance).mean("example", skipna=True)

    @property
    def excess_effect(self) -> xr.DataArray:
        """(relation, layer, head): the mean effect less chance; NaN for relations."""
        return (self.effect - self.effect_chance).mean("example", skipna=True)

    def heads(
        self, relation: str | None = None, *, level: float = LEVEL, least: float | None = None
    ) -> pd.DataFrame:
        """The heads detected, the strongest first: relation, layer, head, score, chance, effect
        (less chance; only roles have one), p.

        `level` bounds p and `least` is the least excess of attention (each relation's own, when not
        given). Raises `InputError` for a relation that is not here.
        """
        known = list(self.values["relation"].to_numpy())
        if relation is not None and relation not in known:
            raise InputError(f"There is no relation {relation!r} here; found {', '.join(known)}.")
        found: list[dict[str, object]] = []
        mean, does = self.mean, self.excess_effect
        chance = self.chance.mean("example", skipna=True)
        for name in known if relation is None else [relation]:
            at = {"relation": name}
            own = KINDS[name].least if name in KINDS else LEAST
            enough = self.excess.sel(at) >= (own if least is None else least)
            sure = (self.p.sel(at) < level) & enough
            for layer, head in np.argwhere(sure.to_numpy()):
                here = {**at, "layer": layer, "head": head}
                numbers = {key: float(each.sel(here)) for key, each in
                           (("score", mean), ("chance", chance), ("effect", does), ("p", self.p))
                           }  # fmt: skip
                found.append({**here, **numbers})
        columns = ["relation", "layer", "head", "score", "chance", "effect", "p"]
        table = pd.DataFrame(found, columns=pd.Index(columns))
        return table.sort_values("score", ascending=False, kind="stable", ignore_index=True)

    def nearest(self) -> pd.DataFrame:
        """For each relation the head with the largest excess, detected or not: relation, layer,
        head, score, chance."""
        mean, excess = self.mean, self.excess
        chance = self.chance.mean("example", skipna=True)
        found: list[dict[str, object]] = []
        for name in excess["relation"].to_numpy():
            best = np.nanargmax(excess.sel(relation=name).to_numpy())
            layer, head = (int(at) for at in np.unravel_index(best, excess.shape[1:]))
            here = {"relation": str(name), "layer": layer, "head": head}
            found.append(
                {**here, "score": float(mean.sel(here)), "chance": float(chance.sel(here))}
            )
        return pd.DataFrame(found)

    def to_dataset(self) -> xr.Dataset:
        """All arrays in one."""
        beside = {"provenance": self.provenance, "left_out": list(self.left_out)}
        return xr.Dataset({name: getattr(self, name) for name in _ARRAYS}, attrs=beside)

    @classmethod
    def from_dataset(cls, data: xr.Dataset) -> Self:
        """The inverse of `to_dataset`."""
        arrays = {name: data[name] for name in _ARRAYS}
        return cls(
            **arrays, left_out=tuple(data.attrs["left_out"]), provenance=data.attrs["provenance"]
        )


def repeated(model: Model, *, n: int = 64, seed: int = 0) -> Behaviour:
    """`n` prompts of different random tokens said twice, after the tokenizer's first token.

    As a behaviour, the answer at the end is the token that followed the last one before.
    """
    generator = torch.Generator().manual_seed(seed)
    special = set(getattr(model.tokenizer, "all_special_ids", None) or [])
    start = getattr(model.tokenizer, "bos_token_id", None)
    plain = torch.tensor([each for each in range(model.d_vocab) if each not in special])
    room = (model.n_ctx or 4 * _HALF) - (start is not None)
    half = min(_HALF, room // 2, len(plain))
    if half < 3:
        raise InputError(
            f"{model.name} has room for {half} different tokens said twice, which is too few to "
            "tell relations apart; give prompts of your own."
        )
    rows: list[list[int]] = []
    for _ in range(n):
        drawn = plain[torch.randperm(len(plain), generator=generator)[:half]].tolist()
        rows.append([*([] if start is None else [start]), *drawn, *drawn[:-1]])
    last = [row[-half] for row in rows]
    other = [row[-half + 1] for row in rows]
    return Behaviour.from_tokens(rows, rows, answers=last, wrong_answers=other,
                                 tokenizer=model.tokenizer, name="repeated tokens")  # fmt: skip


def detect(
    model: Model,
    prompts: Behaviour | None = None,
    *,
    relations: Sequence[str] | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Detected:
    """Score every head on every relation, or on those named.

    `prompts` are the clean side of a behaviour; `repeated` ones when not given. Relations of texts
    are not read of a model without a tokenizer, and those that no prompt has are `left_out`. Raises
    `InputError` for a relation that does not exist, or was named and is in no prompt.
    """
    asked = [
        known_relation(name, model)
        for name in (_default(model) if relations is None else relations)
    ]
    rows = repeated(model, seed=seed) if prompts is None else prompts
    generator = torch.Generator().manual_seed(seed)
    shape = (len(rows), len(asked), model.n_layers, model.n_heads)
    values, chance = np.full(shape, np.nan), np.full(shape, np.nan)
    for where, batch in batches(rows, batch_size_for(model, rows, batch_size), progress):
        tokens = batch.clean
        masks = [each.mask(tokens, texts_of(model, tokens) if each.texts else []) for each in asked]
        along = _along(model, tokens, masks)
        mixed = _along(model, shuffled(tokens, generator), masks)
        idle = _along(model, tokens, masks, _NoQuery())
        for number, relation in enumerate(asked):
            values[where, number] = along[number]
            chance[where, number] = (mixed if relation.of == "tokens" else idle)[number]
    here = [not bool(np.isnan(values[:, number]).all()) for number in range(len(asked))]
    left_out = [
        f"{each.name}: no prompt of {rows.name!r} has a token with this relation."
        for each, found in zip(asked, here, strict=True) if not found
    ]  # fmt: skip
    if left_out and (relations is not None or not any(here)):
        raise InputError(" ".join(left_out) + " Give other prompts.")
    values, chance = values[:, here], chance[:, here]
    arrays = {"values": values, "chance": chance, "p": corrected(values - chance, seed)}
    nothing = {name: np.full(values.shape, np.nan) for name in ("effect", "effect_chance")}
    record = provenance(model, rows, {"method": "head detectors", "seed": seed})
    names = [each.name for each, found in zip(asked, here, strict=True) if found]
    return Detected.of(arrays | nothing, names, record, left_out)


def corrected(excess: np.ndarray, seed: int) -> np.ndarray:
    """p of every cell of (example, *cells), corrected for all of them; NaN where there is none."""
    cells = excess.reshape(len(excess), -1).T
    return sign_flips(cells, seed=seed).p_corrected.reshape(excess.shape[1:])


class _Along:
    """The tap that sums each head's attention along some masks."""

    def __init__(self, masks: Sequence[Mask]) -> None:
        self.masks = masks
        self.found: dict[int, list[np.ndarray]] = {}

    def wants(self, site: Site) -> bool:
        return site.kind == "pattern"

    def __call__(self, site: Site, x: Tensor, now: Passing) -> Tensor:
        assert site.layer is not None
        self.found[site.layer] = [_mean(x.detach(), mask.to(x.device)) for mask in self.masks]
        return x


def _mean(pattern: Tensor, mask: Mask) -> np.ndarray:
    """(row, head): the attention along a mask, over the queries that have a key there."""
    queries = mask.any(dim=2)
    along = (pattern.float() * mask[:, None]).sum(dim=(2, 3))
    return (along / queries.sum(dim=1)[:, None]).cpu().numpy()


class _NoQuery:
    """The tap that asks for nothing: every query is zero where the dot product reads it."""

    def wants(self, site: Site) -> bool:
        return site.kind == "q_rot"

    def __call__(self, site: Site, x: Tensor, now: Passing) -> Tensor:
        return torch.zeros_like(x)


def _along(model: Model, tokens: Tokens, masks: Sequence[Mask], *taps: Tap) -> list[np.ndarray]:
    """For each mask, (row, layer, head)."""
    tap = _Along(masks)
    with torch.no_grad():
        model.run(tokens, taps=[*taps, tap])
    layers = range(model.n_layers)
    return [np.stack([tap.found[layer][n] for layer in layers], axis=1) for n in range(len(masks))]


def _default(model: Model) -> list[str]:
    return [name for name, each in KINDS.items() if model.tokenizer is not None or not each.texts]
