"""What patching found, drawn: exact effects, estimates beside them, and paths."""

from __future__ import annotations

import numpy as np
import xarray as xr

from cutaway.behaviours import bootstrap
from cutaway.patch import Effects, Estimates
from cutaway.study import patching_sentences as say
from cutaway.study.estimates import Estimated
from cutaway.study.patching import Patching
from cutaway.study.paths import Paths
from cutaway.study.places import place_name
from cutaway.views import Figure, heatmap, scatter

_MOST_HEADS = 12


def patched_heads(found: Patching) -> list[Figure]:
    """Every head, both directions."""
    return [
        _exact(found.heads_denoise, "Heads: clean into corrupt (enough?)", "heads_denoise"),
        _exact(found.heads_noise, "Heads: corrupt into clean (needed?)", "heads_noise"),
    ]


def patched_mlps(found: Patching) -> list[Figure]:
    """Every MLP by place, both directions."""
    return [
        _exact(found.mlps_denoise, "MLPs: clean into corrupt (enough?)", "mlps_denoise"),
        _exact(found.mlps_noise, "MLPs: corrupt into clean (needed?)", "mlps_noise"),
    ]


def patched_stream(found: Patching) -> list[Figure]:
    """The stream by layer and place, both directions."""
    return [
        _exact(found.stream_denoise, "Stream: clean into corrupt (enough?)", "stream_denoise"),
        _exact(found.stream_noise, "Stream: corrupt into clean (needed?)", "stream_noise"),
    ]


def _exact(effects: Effects, title: str, field: str) -> Figure:
    return _effects(
        effects, title, f"{say.strongest(effects)} {say.counted(effects)}",
        f"study.patching.{field}.top(10)",
    )  # fmt: skip


def _effects(
    effects: Effects, title: str, shows: str, reproduce: str, limit: float | None = None
) -> Figure:
    """A heatmap of effects by layer and one other axis."""
    other = next(axis for axis in effects.axes if axis != "layer")
    found = effects.interval().transpose("layer", other)
    return heatmap(
        found["mean"].to_numpy(),
        [str(layer) for layer in found["layer"].to_numpy()],
        [
            place_name(each) if other == "position" else str(each)
            for each in found[other].to_numpy()
        ],
        title=title,
        shows=shows,
        column_axis=other,
        measure=f"change of the {say.measured(effects)}",
        ends=("wrong", "correct"),
        lows=found["low"].to_numpy(),
        highs=found["high"].to_numpy(),
        p=effects.p_corrected.transpose("layer", other).to_numpy(),
        limit=limit,
        row_parts=[f"m{layer}" for layer in found["layer"].to_numpy()]
        if effects.site == "mlp_out" else None,
        reproduce=reproduce,
    )  # fmt: skip


# ── estimates ────────────────────────────────────────────────────────────────────────────────


def estimates(found: Estimated, exact: Patching) -> list[Figure]:
    """Each head at each place, and the estimates beside exact effects."""
    return [
        heads_at(found.heads_at),
        _beside(found.heads, exact.heads_denoise, "Heads: estimated and exact", "heads"),
        _beside(found.mlps, exact.mlps_denoise, "MLPs by place: estimated and exact", "mlps"),
        _beside(found.heads_at, None, "Heads by place: estimated and exact", "heads_at"),
    ]


def heads_at(found: Estimates) -> Figure:
    """The heads with the largest estimates, place by place."""
    effects = found.effects
    mean = effects.mean.transpose("layer", "head", "position")
    most = np.abs(mean.to_numpy()).max(axis=2)
    order = np.sort(np.argsort(-most, axis=None, kind="stable")[:_MOST_HEADS])
    layers, heads = np.unravel_index(order, most.shape)
    each = effects.effect.transpose("example", "layer", "head", "position").to_numpy()
    interval = bootstrap(each[:, layers, heads])
    return heatmap(
        interval.mean,
        [f"{layer}.{head}" for layer, head in zip(layers, heads, strict=True)],
        [place_name(place) for place in mean["position"].to_numpy()],
        title="The strongest heads, place by place (estimated)",
        shows=say.estimated(found),
        row_axis="head",
        column_axis="position",
        measure=f"change of the {say.measured(effects)}",
        ends=("wrong", "correct"),
        lows=interval.low,
        highs=interval.high,
        reproduce="study.estimates.heads_at.effects.top(10)",
    )


def _beside(found: Estimates, exact: Effects | None, title: str, field: str) -> Figure:
    """Estimated against exact effects: of all cells where a sweep has them, else of the sample."""
    effects, table = found.effects, found.sampled()
    pairs = table["exact"].to_numpy(), table["estimate"].to_numpy()
    names = [say.cell_name(effects, row) for row in table.to_dict("records")]
    if exact is not None and exact.metric == effects.metric:
        pairs = exact.mean.to_numpy().ravel(), effects.mean.to_numpy().ravel()
        names = _names(effects)
    return scatter(
        *pairs, names, title=title, shows=say.agreement(found),
        across_axis=f"exact change of the {say.measured(effects)}", up_axis="estimated",
        reproduce=f"study.estimates.{field}.misses(10)",
    )  # fmt: skip


def _names(effects: Effects) -> list[str]:
    """Every cell's name, the last axis fastest."""
    flat: xr.DataArray = effects.mean.stack(cell=effects.axes)
    return [
        say.cell_name(effects, dict(zip(effects.axes, cell, strict=True)))
        for cell in flat["cell"].to_numpy().tolist()
    ]


# ── paths ────────────────────────────────────────────────────────────────────────────────────


def paths(found: Paths) -> list[Figure]:
    """Every head's effect along its paths, one set of receivers after the other, on one scale."""
    limit = max(float(np.abs(step.effects.mean).max()) for step in found.steps)
    drawn: list[Figure] = []
    for number, step in enumerate(found.steps):
        title = f"Paths into {say.received(step.receivers)}"
        shows = f"{say.along(step)} {say.counted(step.effects)}"
        reproduce = f"study.paths.steps[{number}].effects.top(10)"
        drawn.append(_effects(step.effects, title, shows, reproduce, limit))
    return drawn
