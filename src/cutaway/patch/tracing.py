"""Causal tracing: noise what names the subject, and see which states bring the answer back.

Meng et al. 2022, "Locating and Editing Factual Associations in GPT", section 2:

1. the clean run;
2. the noised run: Gaussian noise is added to the embeddings of the subject's tokens, with a
   standard deviation of three times the spread of those embeddings over the behaviour (theirs and
   ours; another when given);
3. for each layer and position, the noised run with the state there as in the clean run. For what a
   layer adds (`attn_out`, `mlp_out`) a single one matters little, and a window of layers around it
   is restored (theirs: 10).

All are averaged over several draws of noise. Draws are seeded by example, so that batches do not
change them. The corrupt prompts of the pairs are not used: noise takes their place, so that
recovery 1 is the clean run and 0 the noised one. Theirs measures the probability of the answer;
any metric does here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from cutaway.behaviours.behaviour import Behaviour
from cutaway.behaviours.metrics import Metric
from cutaway.measure.batches import (
    Progress,
    batch_size_for,
    batches,
    coordinate,
    named_positions,
)
from cutaway.measure.result import provenance
from cutaway.model.edits import Edit, add, replace
from cutaway.model.model import Model
from cutaway.model.select import positions_of
from cutaway.model.sites import Site
from cutaway.patch.cells import Coordinate, SweepError
from cutaway.patch.effects import Effects
from cutaway.patch.ends import Ends, metric_of

_SPREADS = 3.0
_STATES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")


def causal_trace(
    model: Model,
    behaviour: Behaviour,
    subject: Sequence[Coordinate] | Coordinate,
    state: str = "resid_post",
    *,
    window: int = 1,
    scale: float | None = None,
    draws: int = 10,
    positions: Sequence[Coordinate] | Coordinate | None = None,
    metric: str | Metric | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Effects:
    """How much of the clean behaviour each state (layer, position, example) brings back.

    `subject` are the positions that are noised (labels or numbers); `state` is one of resid_pre,
    resid_mid, resid_post, attn_out and mlp_out, restored in `window` layers around each layer and
    at each of `positions` (every label, when not given). `scale` is the noise's standard deviation.
    The result is of mode "denoise", with the noised run as `corrupt`. Raises `SweepError` or
    `SiteError`.
    """
    chosen = metric_of(behaviour, metric)
    _check(state, window, draws, scale)
    model.check_site(Site(state, 0))
    noised = named_positions(behaviour.clean, subject)
    places = named_positions(behaviour.clean, positions)
    size = batch_size_for(model, behaviour, batch_size)
    spread = _SPREADS * embedding_spread(model, behaviour, noised) if scale is None else scale
    n, layers = len(behaviour), range(model.n_layers)
    values, clean, corrupt = np.zeros((len(layers), len(places), n)), np.zeros(n), np.zeros(n)
    states = [Site(state, layer) for layer in layers]
    for where, rows in batches(behaviour, size, progress):
        ends = Ends(model, rows, where.start, chosen, states)
        clean[where] = ends.measure(ends.clean)
        for noise in _noises(model, where, len(noised), draws, seed):
            disturb = add("embed", noise * spread, position=noised)
            run = model.run(rows.clean, edits=[disturb])
            corrupt[where] += ends.measure(run) / draws
            for layer in layers:
                for column, place in enumerate(places):
                    restored = _restored(ends, states, layer, window, place)
                    run = model.run(rows.clean, edits=[disturb, *restored])
                    values[layer, column, where] += ends.measure(run) / draws
    settings = {
        "subject": list(noised), "state": state, "window": window, "scale": float(spread),
        "draws": draws, "seed": seed, "metric": chosen.name,
    }  # fmt: skip
    coords = {"layer": list(layers), "position": coordinate(places)}
    return Effects(
        values=xr.DataArray(values, coords, ("layer", "position", "example"), chosen.name),
        clean=xr.DataArray(clean, dims="example", name=chosen.name),
        corrupt=xr.DataArray(corrupt, dims="example", name=chosen.name),
        site=state, mode="denoise", metric=chosen.name,
        provenance=provenance(model, behaviour, settings),
    )  # fmt: skip


def embedding_spread(
    model: Model, behaviour: Behaviour, subject: Sequence[Coordinate]
) -> float:  # fmt: skip
    """The standard deviation of the subject's embeddings, over prompts and coordinates."""
    parts: list[Tensor] = []
    for _, rows in batches(behaviour, batch_size_for(model, behaviour, None)):
        values = model.run(rows.clean, keep=["embed"])["embed"].float().cpu()
        where = positions_of(subject, rows.clean).cpu()
        parts.append(values[torch.arange(len(rows))[:, None], where])
    return float(torch.cat(parts).std(correction=0))


def _check(state: str, window: int, draws: int, scale: float | None) -> None:
    if state not in _STATES:
        raise SweepError(
            f"{state!r} is not a state to restore; choose one of {', '.join(_STATES)}."
        )
    for name, value in (("window", window), ("draws", draws)):
        if value < 1:
            raise SweepError(f"{name} must be a whole number of 1 or more; found {value}.")
    if scale is not None and not 0 < scale < float("inf"):
        raise SweepError(f"scale must be a positive number; found {scale}.")


def _noises(model: Model, where: slice, tokens: int, draws: int, seed: int) -> list[Tensor]:
    """Each draw's (example, subject token, d_model) standard normal noise, the same per example."""
    found: list[list[Tensor]] = []
    for example in range(where.start, where.stop):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + example)
        found.append(
            [torch.randn(tokens, model.d_model, generator=generator) for _ in range(draws)]
        )
    return [torch.stack([each[draw] for each in found]) for draw in range(draws)]


def _restored(
    ends: Ends, states: Sequence[Site], layer: int, window: int, place: Coordinate
) -> list[Edit]:
    """The clean run's states in the window around a layer, as in the authors' code."""
    first, after = max(0, layer - window // 2), layer - (-window // 2)
    return [replace(site, from_=ends.clean, position=place) for site in states[first:after]]
