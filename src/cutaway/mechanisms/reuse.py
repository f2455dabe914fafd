"""Reuse: do several behaviours run through the same heads?

After Merullo et al. 2024, "Circuit Component Reuse Across Tasks in Transformer Language Models".
On every second pair of each behaviour (the other half is kept for step 4):

1. every head is patched from clean to corrupt (`patch.sweep`, mode "noise"). A head *serves* a
   behaviour when that lowers the metric (corrected p below 0.05) by at least `least` of the gap
   between clean and corrupt. Nothing serves a behaviour that the model does not have: its accuracy
   must be above one half (a 95 % interval);
2. overlap: what two behaviours' heads share, as a share of those in either (Jaccard), against sets
   with as many heads in every layer (`circuits.overlap`, exact); p is corrected for the pairs
   (Holm);
3. shared heads: those that serve two behaviours or more;
4. cause, on the other half: all shared heads are set at once to their means over the behaviour's
   corrupt prompts, and the fall of its metric is measured, as a share of the gap. Control: `draws`
   sets of heads that are not shared, with as many in each layer where there are as many. A
   behaviour is *hurt* when the model has it and the fall's 95 % interval lies above zero and
   above the mean of every draw.

A head may be shared since all text needs it, which is no reuse of a mechanism: behaviours that it
was not found to serve and that are hurt all the same say so.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from cutaway.behaviours.behaviour import Behaviour
from cutaway.behaviours.interval import bootstrap
from cutaway.behaviours.metrics import METRICS
from cutaway.behaviours.provenance import version
from cutaway.circuits.overlap import against_chance, holm
from cutaway.errors import InputError
from cutaway.measure.batches import batch_size_for, batches
from cutaway.measure.result import Fields
from cutaway.mechanisms.ablating import Means, Progress
from cutaway.model.edits import Edit
from cutaway.model.model import Model
from cutaway.observe.weights import origin
from cutaway.patch.sweep import sweep
from cutaway.views.figure import Figure
from cutaway.views.heatmap import heatmap

LEAST, _LEVEL = 0.05, 0.05
Head = tuple[int, int]
"""Layer and head."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Reuse(Fields):
    """Which heads serve which behaviours, and whether shared ones are needed by all they serve."""

    accuracy: xr.DataArray
    """(end, behaviour): `mean`, `low` and `high` of the share of pairs answered rightly."""
    recovery: xr.DataArray
    """(behaviour, layer, head): the share of the gap that patching the head takes away."""
    p: xr.DataArray
    """The same axes: its p-value, corrected for all heads."""
    serves: xr.DataArray
    """The same axes: whether the head serves the behaviour."""
    overlap: xr.DataArray
    """(behaviour, other): the share of heads in both among those in either."""
    expected: xr.DataArray
    """(behaviour, other): the same by chance, with as many heads in every layer."""
    overlap_p: xr.DataArray
    """(behaviour, other): how likely chance shares so many or more, corrected for the pairs."""
    lost: xr.DataArray
    """(end, behaviour): `mean`, `low` and `high` of the share of the gap lost without the shared
    heads, on pairs that had no say in choosing them; NaN where no head is shared."""
    random: xr.DataArray
    """(draw, behaviour): the same mean without random heads."""
    provenance: Mapping[str, Any] = field(repr=False)
    """Versions, model, data and settings."""

    @property
    def shared(self) -> list[Head]:
        """The heads that serve two behaviours or more, in the order of layers."""
        count = self.serves.sum("behaviour").to_numpy()
        return [(int(layer), int(head)) for layer, head in np.argwhere(count >= 2)]

    @property
    def table(self) -> pd.DataFrame:
        """One row per head that serves any: head, how many, and what it takes from each; those
        that serve most first."""
        names = [str(each) for each in self.recovery["behaviour"].to_numpy()]
        rows: list[dict[str, object]] = []
        for layer, head in np.argwhere(self.serves.any("behaviour").to_numpy()):
            at = {"layer": layer, "head": head}
            serves = self.serves.sel(at)
            row: dict[str, object] = {"head": f"{layer}.{head}", "serves": int(serves.sum())}
            for name in names:
                value = float(self.recovery.sel(at).sel(behaviour=name))
                row[name] = value if bool(serves.sel(behaviour=name)) else float("nan")
            rows.append(row)
        table = pd.DataFrame(rows, columns=pd.Index(["head", "serves", *names]))
        return table.sort_values("serves", ascending=False, kind="stable", ignore_index=True)

    @property
    def _had(self) -> list[str]:
        """The behaviours that the model has."""
        low = self.accuracy.sel(end="low")
        return [str(name) for name in low["behaviour"].to_numpy()[low.to_numpy() > 0.5]]

    @property
    def hurt(self) -> pd.DataFrame:
        """behaviour, served (by how many shared heads), lost, low, high, random (mean), most
        (random), hurt."""
        rows: list[dict[str, object]] = []
        for name in self.recovery["behaviour"].to_numpy().tolist():
            at = {"behaviour": name}
            mean, low, high = (float(self.lost.sel(at).sel(end=e)) for e in ("mean", "low", "high"))
            drawn = self.random.sel(at)
            served = sum(bool(self.serves.sel(at).sel(layer=n, head=h)) for n, h in self.shared)
            rows.append({
                "behaviour": name, "served": served, "lost": mean, "low": low, "high": high,
                "random": float(drawn.mean()), "most": float(drawn.max()),
                "hurt": name in self._had and low > max(0.0, float(drawn.max())),
            })  # fmt: skip
        return pd.DataFrame(rows)

    @property
    def pairs(self) -> pd.DataFrame:
        """one, other, overlap, expected, p: every pair of behaviours, the most alike first."""
        names = [str(each) for each in self.recovery["behaviour"].to_numpy()]
        rows = [
            {"one": one, "other": other}
            | {name: float(each.sel(behaviour=one, other=other))
               for name, each in (("overlap", self.overlap), ("expected", self.expected),
                                  ("p", self.overlap_p))}
            for one, other in combinations(names, 2)
        ]  # fmt: skip
        return pd.DataFrame(rows).sort_values("overlap", ascending=False, ignore_index=True)

    def __str__(self) -> str:
        shared = ", ".join(f"{layer}.{head}" for layer, head in self.shared) or "none"
        said = "{:.2f}".format
        lines = [f"Heads that serve two behaviours or more: {shared}."]
        names = [str(each) for each in self.recovery["behaviour"].to_numpy()]
        without = [name for name in names if name not in self._had]
        if without:
            lines.append(f"The model does not have: {', '.join(without)}.")
        for title, table in (
            ("Share of the gap that each head takes away:", self.table),
            ("Overlap of behaviours' heads, against sets alike layer by layer:", self.pairs),
            ("Without the shared heads, and without random ones (share of the gap lost):",
             self.hurt),
        ):  # fmt: skip
            lines += [title, table.to_string(index=False, float_format=said, na_rep="")]
        return "\n".join(lines)

    def plot(self) -> Figure:
        """Heads that serve any behaviour by behaviour, with their corrected p-values."""
        names = [str(each) for each in self.recovery["behaviour"].to_numpy()]
        kept = np.argwhere(self.serves.any("behaviour").to_numpy())
        if not len(kept):
            raise InputError("No head serves any of these behaviours, so there is none to draw.")
        values, p = (
            each.transpose("layer", "head", "behaviour").to_numpy()[tuple(kept.T)]
            for each in (self.recovery, self.p)
        )
        return heatmap(
            values, [f"{layer}.{head}" for layer, head in kept], names,
            title="Heads and the behaviours they serve", shows=str(self).splitlines()[0],
            row_axis="head", column_axis="behaviour", measure="share of the gap taken away",
            ends=("adds", "takes away"), p=p, reproduce="reuse(model, behaviours).plot()",
        )  # fmt: skip


def reuse(
    model: Model,
    behaviours: Sequence[Behaviour],
    *,
    least: float = LEAST,
    draws: int = 20,
    seed: int = 0,
    progress: Progress | None = None,
) -> Reuse:
    """Compare the heads of several behaviours, and ablate those that they share.

    `least` is the share of the gap from which on a head serves; `draws` sets of random heads, drawn
    with `seed`, are the control. Raises `InputError` for fewer than two behaviours, two of one
    name, or fewer than 12 pairs of one.
    """
    names = _names(behaviours, draws)
    sizes = (model.n_layers, model.n_heads)
    recovery, p = (np.empty((len(names), *sizes)) for _ in range(2))
    right = np.empty((3, len(names)))
    for number, behaviour in enumerate(behaviours):
        found = sweep(
            model, behaviour.rows(slice(0, None, 2)), "head_out", mode="noise", seed=seed,
            also=["accuracy"],
        )  # fmt: skip
        right[:, number] = _ends(found.also["accuracy"].clean.to_numpy())
        for where, each in ((recovery, found.recovery), (p, found.p_corrected)):
            where[number] = each.transpose("layer", "head").to_numpy()
        if progress is not None:
            progress(number + 1, 2 * len(names))
    serves = (p < _LEVEL) & (recovery >= least) & (right[1] > 0.5)[:, None, None]
    shared = [(int(layer), int(head)) for layer, head in np.argwhere(serves.sum(axis=0) >= 2)]
    drawn = _drawn(shared, sizes, draws, random.Random(seed))
    lost, control = np.full((3, len(names)), np.nan), np.full((draws, len(names)), np.nan)
    for number, behaviour in enumerate(behaviours if shared else ()):
        values = _lost(model, behaviour.rows(slice(1, None, 2)), [shared, *drawn])
        lost[:, number] = _ends(values[0])
        control[:, number] = values[1:].mean(axis=1)
        if progress is not None:
            progress(len(names) + number + 1, 2 * len(names))
    by_head = {"behaviour": names, "layer": np.arange(sizes[0]), "head": np.arange(sizes[1])}
    pair, by_end = {"behaviour": names, "other": names}, {"end": ["mean", "low", "high"]}
    return Reuse(
        accuracy=xr.DataArray(right, by_end | {"behaviour": names}, ("end", "behaviour")),
        recovery=xr.DataArray(recovery, by_head, tuple(by_head)),
        p=xr.DataArray(p, by_head, tuple(by_head)),
        serves=xr.DataArray(serves, by_head, tuple(by_head)),
        **{name: xr.DataArray(each, pair, tuple(pair)) for name, each in _overlaps(serves).items()},
        lost=xr.DataArray(lost, by_end | {"behaviour": names}, ("end", "behaviour")),
        random=xr.DataArray(control, {"behaviour": names}, ("draw", "behaviour")),
        provenance={
            "versions": {"cutaway": version()},
            "behaviours": {each.name: each.fingerprint for each in behaviours},
        } | origin(model, method="reuse", least=least, draws=draws, seed=seed),
    )  # fmt: skip


def _names(behaviours: Sequence[Behaviour], draws: int) -> list[str]:
    names = [each.name for each in behaviours]
    if len(names) < 2 or len(set(names)) < len(names):
        raise InputError(
            f"Reuse is between two behaviours or more of different names; found "
            f"{', '.join(names) or 'none'}."
        )
    short = [each for each in behaviours if len(each) < 12]
    if short or draws < 1:
        few = f"{short[0].name!r} has {len(short[0])} pairs" if short else f"found draws={draws}"
        raise InputError(f"Each behaviour needs 12 pairs, and draws count from 1; {few}.")
    return names


def _ends(values: np.ndarray) -> tuple[float, float, float]:
    """The mean over examples, and the ends of its interval."""
    found = bootstrap(values)
    return float(found.mean), float(found.low), float(found.high)


def _overlaps(serves: np.ndarray) -> dict[str, np.ndarray]:
    """(behaviour, other): the overlap, what chance gives, and its p-value."""
    many, layers, heads = serves.shape
    strata = np.repeat(np.arange(layers), heads)
    found = {name: np.full((many, many), np.nan) for name in ("overlap", "expected", "overlap_p")}
    pairs = list(combinations(range(many), 2))
    chances = [against_chance(serves[a].ravel(), serves[b].ravel(), strata) for a, b in pairs]
    corrected = holm(np.array([chance.p for chance in chances]))
    for (a, b), chance, p in zip(pairs, chances, corrected, strict=True):
        values = {"overlap": chance.jaccard, "expected": chance.expected, "overlap_p": p}
        for name, value in values.items():
            found[name][a, b] = found[name][b, a] = value
    np.fill_diagonal(found["overlap"], 1.0)
    return found


def _drawn(
    shared: Sequence[Head], sizes: tuple[int, int], draws: int, draw: random.Random
) -> list[list[Head]]:
    """Sets of heads that are not shared, with as many in each layer where there are as many."""
    found: list[list[Head]] = []
    free = {layer: [h for h in range(sizes[1]) if (layer, h) not in shared]
            for layer in range(sizes[0])}  # fmt: skip
    for _ in range(draws):
        some: list[Head] = []
        for layer, heads in free.items():
            wanted = sum(one == layer for one, _ in shared)
            some += [(layer, head) for head in draw.sample(heads, min(wanted, len(heads)))]
        rest = [(n, h) for n, heads in free.items() for h in heads if (n, h) not in some]
        missing = min(len(shared) - len(some), len(rest))
        found.append(some + draw.sample(rest, missing))
    return found


def _lost(model: Model, rows: Behaviour, sets: Sequence[Sequence[Head]]) -> np.ndarray:
    """(set, example): the share of the gap that is lost without each set of heads."""
    means = Means.of(model, rows.corrupt)
    edits = [means.edits([f"head_out.{layer}.{head}" for layer, head in some]) for some in sets]
    clean, corrupt = _metric(model, rows, []), _metric(model, rows, [], corrupt=True)
    gap = float((clean - corrupt).mean())
    return np.stack([(clean - _metric(model, rows, each)) / gap for each in edits])


def _metric(
    model: Model, rows: Behaviour, edits: Sequence[Edit], *, corrupt: bool = False
) -> np.ndarray:
    """(example,): the behaviour's metric under some edits."""
    measure = METRICS[rows.metric]
    found = np.empty(len(rows))
    for where, some in batches(rows, batch_size_for(model, rows, None)):
        tokens = some.corrupt if corrupt else some.clean
        logits = some.end_logits(model.run(tokens, edits=list(edits)).logits)
        plain = some.end_logits(model.run(some.clean).logits) if measure.needs_reference else None
        found[where] = measure(logits, some, reference=plain).cpu().numpy()
    return found
