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

The noised run is run once per draw. A restored state leaves everything before its position and
below its layers as it was there, so each cell is taken up from its first layer and its position on
(`model.resume`), many prompts of several draws and cells together; a state at a position before the
noise, or behind `end`, changes nothing. `plan=False` runs one whole forward pass per cell and draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
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
from cutaway.model.edits import add, replace
from cutaway.model.memory import rows_that_fit
from cutaway.model.model import Model
from cutaway.model.resume import probed
from cutaway.model.select import positions_of
from cutaway.model.sites import Site
from cutaway.patch.cells import Coordinate, SweepError
from cutaway.patch.effects import Effects
from cutaway.patch.ends import Ends, metric_of
from cutaway.patch.readout import Values
from cutaway.patch.restored import Clean, Noised, Restore

_SPREADS = 3.0
_TOGETHER = 64
_STATES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")


@dataclass(frozen=True, kw_only=True)
class _Trace:
    """What was asked for, checked."""

    model: Model
    behaviour: Behaviour
    noised: tuple[Coordinate, ...]
    places: tuple[Coordinate, ...]
    states: tuple[Site, ...]
    window: int
    scale: float
    draws: int
    metric: Metric
    seed: int

    def around(self, layer: int) -> tuple[Site, ...]:
        """The states in the window around a layer, as in the authors' code."""
        first, after = max(0, layer - self.window // 2), layer - (-self.window // 2)
        return self.states[first:after]

    def noises(self, where: slice) -> Float[Tensor, "draw example token d_model"]:
        """The noise added, the same for an example whatever the batch."""
        found: list[Tensor] = []
        for example in range(where.start, where.stop):
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + example)
            size = (len(self.noised), self.model.d_model)
            drawn = [torch.randn(*size, generator=generator) for _ in range(self.draws)]
            found.append(torch.stack(drawn))
        return torch.stack(found, dim=1) * self.scale


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
    memory: int | None = None,
    plan: bool = True,
    progress: Progress | None = None,
) -> Effects:
    """How much of the clean behaviour each state (layer, position, example) brings back.

    `subject` are the positions that are noised (labels or numbers); `state` is one of resid_pre,
    resid_mid, resid_post, attn_out and mlp_out, restored in `window` layers around each layer and
    at each of `positions` (every label, when not given). `scale` is the noise's standard deviation.
    `memory` bounds what is run together, in bytes (half of what is free, when not given).
    The result is of mode "denoise", with the noised run as `corrupt`. Raises `SweepError` or
    `SiteError`.
    """
    _check(state, window, draws, scale)
    model.check_site(Site(state, 0))
    noised = named_positions(behaviour.clean, subject)
    spread = _SPREADS * embedding_spread(model, behaviour, noised) if scale is None else scale
    asked = _Trace(
        model=model, behaviour=behaviour, noised=noised,
        places=named_positions(behaviour.clean, positions),
        states=tuple(Site(state, layer) for layer in range(model.n_layers)), window=window,
        scale=float(spread), draws=draws, metric=metric_of(behaviour, metric), seed=seed,
    )  # fmt: skip
    size = batch_size_for(model, behaviour, batch_size)
    reason = probed(model)[1] if plan else "asked for"
    if reason is None:
        fits = rows_that_fit(int(behaviour.clean.ids.shape[1]), model)
        together = min(_TOGETHER, fits) if batch_size is None else size
        found = _planned(asked, size, together, memory, progress)
    else:
        found = _naive(asked, size, progress)
    settings = {
        "subject": list(noised), "state": state, "window": window, "scale": asked.scale,
        "draws": draws, "seed": seed, "metric": asked.metric.name,
        "method": "planned" if reason is None
        else f"one forward pass per cell and draw: {reason}",
    }  # fmt: skip
    coords = {"layer": list(range(model.n_layers)), "position": coordinate(asked.places)}
    values = found.patched.reshape(model.n_layers, len(asked.places), len(behaviour))
    return Effects(
        values=xr.DataArray(values, coords, ("layer", "position", "example"), asked.metric.name),
        clean=xr.DataArray(found.clean, dims="example", name=asked.metric.name),
        corrupt=xr.DataArray(found.corrupt, dims="example", name=asked.metric.name),
        site=state, mode="denoise", metric=asked.metric.name,
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


def _empty(asked: _Trace) -> Values:
    n, cells = len(asked.behaviour), len(asked.states) * len(asked.places)
    return Values(patched=np.zeros((cells, n)), clean=np.zeros(n), corrupt=np.zeros(n))


def _naive(asked: _Trace, size: int, progress: Progress | None) -> Values:
    """One whole forward pass per cell and draw."""
    model, found = asked.model, _empty(asked)
    for where, rows in batches(asked.behaviour, size, progress):
        ends = Ends(model, rows, where.start, asked.metric, asked.states)
        found.clean[where] = ends.measure(ends.clean)
        for noise in asked.noises(where):
            disturb = add("embed", noise, position=asked.noised)
            run = model.run(rows.clean, edits=[disturb])
            found.corrupt[where] += ends.measure(run) / asked.draws
            cell = 0
            for layer in range(model.n_layers):
                for place in asked.places:
                    restored = [
                        replace(site, from_=ends.clean, position=place)
                        for site in asked.around(layer)
                    ]
                    run = model.run(rows.clean, edits=[disturb, *restored])
                    found.patched[cell, where] += ends.measure(run) / asked.draws
                    cell += 1
    return found


def _planned(
    asked: _Trace, size: int, most: int, memory: int | None, progress: Progress | None
) -> Values:
    """Each cell from its own layer and position on; at most `most` noised prompts at a time."""
    model, found = asked.model, _empty(asked)
    cells = [
        Restore(asked.around(layer), place)
        for layer in range(model.n_layers)
        for place in asked.places
    ]
    for where, rows in batches(asked.behaviour, size, progress):
        clean, noise = (
            Clean(model, rows, where.start, asked.metric, asked.states),
            asked.noises(where),
        )
        found.clean[where] = clean.values
        together = max(1, most // len(rows))
        for begin in range(0, asked.draws, together):
            noised = Noised(clean, noise[begin : begin + together], asked.noised, memory)
            found.corrupt[where] += noised.values / asked.draws
            found.patched[:, where] += noised.restored(cells) / asked.draws
    return found
