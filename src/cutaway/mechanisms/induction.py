"""Induction heads, and the previous-token heads that they compose with.

Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"; Olsson et al. 2022,
"In-context Learning and Induction Heads". On … A B … A an induction head looks from the second A at
B, since an earlier head has written into B's key that A stands before it (K-composition).

1. prompts: random tokens said twice, where the order of tokens is all there is to know. In the
   corrupt prompt of each pair another token stands in place of the first A, so that B no longer
   follows the last token. Prompts of the user's own are any pairs whose last token occurred before;
2. prefix matching: the attention that goes to what followed a token's earlier occurrences, against
   the same places with the tokens shuffled (`observe.detectors`);
3. copying: the share of positive eigenvalues in the head's full OV circuit (`observe.weights`), by
   the weights alone and told beside the rest: a layer's MLP may copy for the head;
4. cause: that attention is taken out of one head, and the metric's fall is measured
   (`observe.confirming`), for each head that matches prefixes more than chance does;
5. that attention *matters* when the interval of the fall lies above zero and the fall is at least
   5 % of the metric; an *induction head* matches prefixes (corrected p below 0.01, at least `least`
   more than chance) and matters;
6. what it composes with: every earlier head's effect along the path to its key alone, from clean to
   corrupt (`patch.paths`), beside the K-composition score of the two heads' weights. A *composing
   head* attends to the previous token, and loses the behaviour along that path (corrected
   p < 0.05).

A model may answer such prompts in another way, and then no head is both; the result says so, and
names the heads that look there, or matter, all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr

from cutaway.behaviours.behaviour import Behaviour
from cutaway.behaviours.interval import bootstrap
from cutaway.errors import InputError
from cutaway.measure.batches import batch_size_for, batches
from cutaway.measure.result import Fields, provenance
from cutaway.model.model import Model
from cutaway.model.sites import Site
from cutaway.observe.confirming import confirm
from cutaway.observe.detectors import LEAST, LEVEL, Detected, detect, repeated
from cutaway.observe.weights import composition, copying
from cutaway.patch.paths import path_patch
from cutaway.views.figure import Figure
from cutaway.views.heatmap import heatmap

_MATCHING, _PREVIOUS = "induction", "previous token"
_PATH_LEVEL, _SHARE = 0.05, 0.05


@dataclass(frozen=True, kw_only=True, eq=False)
class Induction(Fields):
    """What every head does for induction, and what induction heads are fed by."""

    attention: xr.DataArray
    """(relation, layer, head): attention along "induction" and "previous token"."""
    chance: xr.DataArray
    """The same by chance."""
    p: xr.DataArray
    """The same axes: p of the excess, corrected for all heads."""
    copying: xr.DataArray
    """(layer, head): the copying score of the weights, between -1 and 1."""
    change: xr.DataArray
    """(end, layer, head): by how much the metric falls without the matching attention: `mean`,
    `low` and `high`; NaN for heads that were not tried."""
    path: xr.DataArray
    """(value, reader, layer, head): each head's effect along the path to a reader's key: `mean`,
    `low`, `high` and the corrected `p`. Readers are the induction heads, "layer.head"."""
    composition: xr.DataArray
    """(reader, layer, head): the K-composition score; NaN where the head is not earlier."""
    correct: xr.DataArray
    """(example,): whether the model's likeliest token is the answer."""
    metric: float
    """The metric of the model itself, averaged over prompts; NaN where no head was tried."""
    copying_chance: float
    """What 99 % of random heads' copying scores stay under."""
    composition_bound: float
    """What 99 % of random pairs' composition scores stay under."""
    least: float
    """How much more than chance an induction head attends."""
    provenance: Mapping[str, Any] = field(repr=False)
    """Versions, model, data and settings."""

    @property
    def heads(self) -> pd.DataFrame:
        """Every head that matches prefixes more than chance, the strongest first.

        head, matching, chance, copying, copies, change, low, high, matters, induction head."""
        mean, low, high = (self.change.sel(end=end) for end in ("mean", "low", "high"))
        excess = (self.attention - self.chance).sel(relation=_MATCHING)
        rows: list[dict[str, object]] = []
        for layer, head in np.argwhere(mean.notnull().to_numpy()):
            at = {"layer": layer, "head": head}
            matters = float(low.sel(at)) > 0 and float(mean.sel(at)) >= _SHARE * abs(self.metric)
            rows.append({
                "head": f"{layer}.{head}",
                "matching": float(self.attention.sel(relation=_MATCHING).sel(at)),
                "chance": float(self.chance.sel(relation=_MATCHING).sel(at)),
                "copying": float(self.copying.sel(at)),
                "copies": float(self.copying.sel(at)) > self.copying_chance,
                "change": float(mean.sel(at)), "low": float(low.sel(at)),
                "high": float(high.sel(at)), "matters": matters,
                "induction head": matters and float(excess.sel(at)) >= self.least,
            })  # fmt: skip
        columns = ["head", "matching", "chance", "copying", "copies", "change", "low", "high",
                   "matters", "induction head"]  # fmt: skip
        table = pd.DataFrame(rows, columns=pd.Index(columns))
        return table.sort_values("matching", ascending=False, kind="stable", ignore_index=True)

    @property
    def composing(self) -> pd.DataFrame:
        """The earlier heads that attend to the previous token, for each induction head.

        reader, head, previous (attention), composition, above chance, effect, low, high, p,
        composes; the strongest effect first."""
        at_previous = {"relation": _PREVIOUS}
        excess = (self.attention - self.chance).sel(at_previous)
        looks = (self.p.sel(at_previous) < LEVEL) & (excess >= self.least)
        rows: list[dict[str, object]] = []
        for reader in self.path["reader"].to_numpy().tolist():
            for layer, head in np.argwhere(looks.to_numpy()):
                at = {"reader": reader, "layer": layer, "head": head}
                if layer >= int(reader.partition(".")[0]):
                    continue
                value = {v: float(self.path.sel(at | {"value": v}))
                         for v in ("mean", "low", "high", "p")}  # fmt: skip
                score = float(self.composition.sel(at))
                rows.append({
                    "reader": reader, "head": f"{layer}.{head}",
                    "previous": float(self.attention.sel(at_previous | {"layer": layer,
                                                                        "head": head})),
                    "composition": score, "above chance": score > self.composition_bound,
                    "effect": value["mean"], "low": value["low"], "high": value["high"],
                    "p": value["p"], "composes": value["mean"] < 0 and value["p"] < _PATH_LEVEL,
                })  # fmt: skip
        columns = ["reader", "head", "previous", "composition", "above chance", "effect", "low",
                   "high", "p", "composes"]  # fmt: skip
        table = pd.DataFrame(rows, columns=pd.Index(columns))
        return table.sort_values("effect", kind="stable", ignore_index=True)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(composing head, induction head), the strongest first."""
        found = self.composing
        kept = found[found["composes"].astype(bool)]
        return [(str(row["head"]), str(row["reader"])) for row in kept.to_dict("records")]

    def __str__(self) -> str:
        heads, said = self.heads, "{:.3f}".format
        right = bootstrap(self.correct.to_numpy())
        lines = [
            f"Induction: the model answers {float(right.mean):.0%} of "
            f"{self.correct.size} prompts ({float(right.low):.0%} to {float(right.high):.0%})."
        ]
        found = heads[heads["induction head"].astype(bool)]["head"].tolist()
        matter = heads[heads["matters"].astype(bool)]["head"].tolist()
        if found:
            lines.append(f"Induction heads: {', '.join(found)}.")
        else:
            lines.append("No head both matches prefixes and matters: no induction head.")
            looking = heads[~heads["matters"].astype(bool)]["head"].tolist()
            if looking:
                lines.append(f"Heads that look there without mattering: {', '.join(looking)}.")
        others = [head for head in matter if head not in found]
        if others:
            lines.append(
                f"Weaker matching that matters: {', '.join(others)}; the model may do it in "
                "another way."
            )
        lines += [f"{head} feeds {reader}'s key." for head, reader in self.pairs]
        if found and not self.pairs:
            lines.append("No previous-token head reaches an induction head's key.")
        for table in (heads, self.composing):
            if len(table):
                lines.append(table.to_string(index=False, float_format=said))
        return "\n".join(lines)

    def plot(self) -> Figure:
        """The prefix-matching attention of every head, less chance."""
        excess = (self.attention - self.chance).sel(relation=_MATCHING).to_numpy()
        rows, columns = (list(map(str, range(size))) for size in excess.shape)
        return heatmap(
            excess, rows, columns, title="Prefix matching, head by head",
            shows=str(self).splitlines()[1],
            measure="attention to what followed, less chance", ends=("avoids", "looks there"),
            p=self.p.sel(relation=_MATCHING).to_numpy(), reproduce="induction(model).plot()",
        )  # fmt: skip


def induction(
    model: Model,
    prompts: Behaviour | None = None,
    *,
    n: int = 64,
    least: float = LEAST,
    most: int = 10,
    seed: int = 0,
) -> Induction:
    """Find induction heads and what they compose with.

    `prompts` are pairs whose last token occurred before; `n` random repeated ones, drawn with
    `seed`, when not given. At most `most` heads, those that match prefixes most, are tried
    causally. Raises `InputError` for prompts in which nothing is said twice.
    """
    rows = said_twice(model, n=n, seed=seed) if prompts is None else prompts
    seen = detect(model, rows, relations=[_MATCHING, _PREVIOUS], seed=seed)
    change, metric = _changes(model, rows, seen, most)
    excess = seen.excess.sel(relation=_MATCHING)
    is_head = (change.sel(end="low") > 0) & (excess >= least)
    is_head &= change.sel(end="mean") >= _SHARE * abs(metric)
    found = [f"{layer}.{head}" for layer, head in np.argwhere(is_head.to_numpy())]
    scores, copies = composition(model, "k", seed=seed), copying(model, seed=seed)
    sizes = (model.n_layers, model.n_heads)
    path, composed = np.full((4, len(found), *sizes), np.nan), np.full((len(found), *sizes), np.nan)
    for number, reader in enumerate(found):
        path[:, number] = along(model, rows, reader)
        layer, head = map(int, reader.split("."))
        composed[number] = scores.values.sel(layer=layer, head=head)
    grid = {"layer": np.arange(sizes[0]), "head": np.arange(sizes[1])}
    ends = {"value": ["mean", "low", "high", "p"], "reader": np.array(found, dtype="U16")}
    return Induction(
        attention=seen.mean, chance=seen.chance.mean("example", skipna=True), p=seen.p,
        copying=copies.values, change=change,
        path=xr.DataArray(path, ends | grid, ("value", "reader", "layer", "head")),
        composition=xr.DataArray(composed, {"reader": ends["reader"]} | grid,
                                 ("reader", "layer", "head")),
        correct=_correct(model, rows), metric=metric, copying_chance=copies.chance,
        composition_bound=scores.bound, least=least,
        provenance=provenance(
            model, rows, {"method": "induction", "least": least, "most": most, "seed": seed}
        ),
    )  # fmt: skip


def said_twice(model: Model, *, n: int = 64, seed: int = 0) -> Behaviour:
    """`n` pairs of random tokens said twice; in the corrupt prompt another token stands where the
    last one stood first. Labels: A1 and B1, the last token's and the answer's first places."""
    whole = repeated(model, n=n, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    start = int(getattr(model.tokenizer, "bos_token_id", None) is not None)
    special = set(getattr(model.tokenizer, "all_special_ids", None) or [])
    clean = [whole.clean.row_ids(row) for row in range(len(whole))]
    half = (len(clean[0]) - start + 1) // 2
    at = start + half - 2
    corrupt: list[list[int]] = []
    for row in clean:
        free = [each for each in range(model.d_vocab) if each not in {*row, *special}]
        if not free:
            raise InputError(
                f"{model.name} has too few tokens to put another in place of one; give prompts of "
                "your own."
            )
        other = free[int(torch.randint(len(free), (1,), generator=generator))]
        corrupt.append([*row[:at], other, *row[at + 1 :]])
    return Behaviour.from_tokens(
        clean, corrupt, answers=whole.answers, wrong_answers=whole.wrong_answers,
        labels={"A1": [at] * n, "B1": [at + 1] * n}, tokenizer=model.tokenizer,
        name="repeated tokens",
    )  # fmt: skip


def _changes(
    model: Model, rows: Behaviour, seen: Detected, most: int
) -> tuple[xr.DataArray, float]:
    """(end, layer, head): what the metric loses without the matching attention of each head; and
    the metric of the model."""
    excess = seen.excess.sel(relation=_MATCHING).to_numpy()
    sure = (seen.p.sel(relation=_MATCHING).to_numpy() < LEVEL) & (excess > 0)
    places = np.argwhere(sure)
    order = np.argsort(-excess[tuple(places.T)], kind="stable")[:most]
    found, metric = np.full((3, *excess.shape), np.nan), float("nan")
    for layer, head in places[order].tolist():
        one = confirm(model, rows, (layer, head), _MATCHING)
        found[:, layer, head], metric = (one.change, one.low, one.high), one.clean
    coords = {"end": ["mean", "low", "high"], "layer": np.arange(excess.shape[0]),
              "head": np.arange(excess.shape[1])}  # fmt: skip
    return xr.DataArray(found, coords, tuple(coords)), metric


def along(model: Model, rows: Behaviour, reader: str) -> np.ndarray:
    """(value, layer, head): each head's effect along the path to the reader's key."""
    layer, head = map(int, reader.split("."))
    sizes = (model.n_layers, model.n_heads)
    found = np.full((4, *sizes), np.nan)
    if layer == 0:
        return found
    shared = model.n_heads // model.axis_sizes(layer)["kv_head"]
    effects = path_patch(model, rows, "head_out", Site("k", layer, head // shared), mode="noise")
    ends = effects.interval()
    for number, each in enumerate((ends["mean"], ends["low"], ends["high"], effects.p_corrected)):
        found[number] = each.transpose("layer", "head").to_numpy()
    return found


def _correct(model: Model, rows: Behaviour) -> xr.DataArray:
    """(example,): whether the likeliest token is the answer."""
    found = np.empty(len(rows))
    for where, some in batches(rows, batch_size_for(model, rows, None)):
        likeliest = some.end_logits(model.run(some.clean).logits).argmax(dim=-1).tolist()
        pairs = zip(likeliest, some.answers, strict=True)
        found[where] = [token in answers for token, answers in pairs]
    return xr.DataArray(found, dims="example")
