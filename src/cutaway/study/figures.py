"""From a study's results to the report's figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from cutaway.behaviours import Interval, bootstrap
from cutaway.observe import Attribution, Lens
from cutaway.study import sentences as say
from cutaway.study.attention import Attention
from cutaway.study.blackbox import BlackBox
from cutaway.study.lens import Lenses
from cutaway.study.places import place_name
from cutaway.views import (
    Estimate,
    Figure,
    Series,
    Total,
    Variation,
    attention,
    bars,
    breakdown,
    distribution,
    heatmap,
    lens_curve,
)
from cutaway.views import lens as lens_map


def estimate(found: Interval) -> Estimate:
    """A mean with its interval, as figures take it."""
    return Estimate(float(found.mean), float(found.low), float(found.high))


# ── black box ────────────────────────────────────────────────────────────────────────────────


def variations(
    box: BlackBox, table: pd.DataFrame, title: str = "Does it hold for every variation?"
) -> Figure | None:
    """Accuracy and logit difference for each value of each variation; None without any."""
    both = [say.records(table, name) for name in ("accuracy", "logit_diff")]
    pairs = [rows for rows in zip(*both, strict=True) if rows[0]["variation"] != "all"]
    if not pairs:
        return None
    return breakdown(
        [
            Variation(
                kind=str(share["variation"]), value=str(share["value"]), n=int(share["n"]),
                accuracy=_of_row(share), logit_difference=_of_row(difference),
            )
            for share, difference in pairs
        ],
        title=title,
        shows=say.by_variation(table),
        overall_accuracy=float(box.interval("accuracy").mean),
        overall_logit_difference=float(box.interval("logit_diff").mean),
        reproduce="study.blackbox.values",
    )  # fmt: skip


def _of_row(row: Mapping[str, Any]) -> Estimate:
    mean, low, high = (float(row[name]) for name in ("mean", "low", "high"))
    return Estimate(mean, low, high)


def examples(box: BlackBox) -> Figure:
    """Every example's logit difference, clean and corrupt."""
    clean, corrupt = box.each("logit_diff"), box.each("logit_diff", "corrupt")
    return distribution(
        clean, corrupt, shows=say.spread(box),
        reproduce='study.blackbox.each("logit_diff"), study.blackbox.each("logit_diff", "corrupt")',
    )  # fmt: skip


# ── lens ─────────────────────────────────────────────────────────────────────────────────────


def lens_grid(lenses: Lenses) -> Figure:
    """The logit difference by layer and place, clean prompts."""
    found = lenses.clean.interval()
    return lens_map(
        found["mean"].to_numpy(),
        [say.stage_name(site) for site in found["layer"].to_numpy()],
        [place_name(place) for place in found["position"].to_numpy()],
        title="What each layer would answer, place by place",
        shows=say.lens(lenses),
        lows=found["low"].to_numpy(),
        highs=found["high"].to_numpy(),
        reproduce="study.lens.clean.interval()",
    )


def lens_lines(lenses: Lenses) -> Figure:
    """The logit difference at the last position by layer, clean and corrupt."""
    layers = [say.stage_name(site) for site in lenses.clean.logit_diff["layer"].to_numpy()]
    return lens_curve(
        [Series(name=name, estimates=_at_end(lens)) for name, lens in _both(lenses)],
        [name.removeprefix("after layer ") for name in layers],
        title="The answer at the last position, layer by layer",
        shows=say.lens_rank(lenses),
        axis="after layer",
        reproduce="study.lens.clean.interval(), study.lens.corrupt.interval()",
    )


def _both(lenses: Lenses) -> Iterator[tuple[str, Lens]]:
    yield "clean", lenses.clean
    yield "corrupt", lenses.corrupt


def _at_end(lens: Lens) -> tuple[Estimate, ...]:
    found = lens.interval().isel(position=-1)
    ends = (found[name].to_numpy() for name in ("mean", "low", "high"))
    return tuple(Estimate(*map(float, each)) for each in zip(*ends, strict=True))


# ── attribution ──────────────────────────────────────────────────────────────────────────────


def components(found: Attribution) -> Figure:
    """Each attention and MLP's contribution, with the sum checked."""
    grouped = found.grouped("component")
    names = [str(name) for name in grouped["component"].to_numpy()]
    interval = bootstrap(grouped.to_numpy())
    gaps = np.abs((found.total - found.target).to_numpy())
    return bars(
        [say.component_name(name) for name in names],
        interval.mean,
        interval.low,
        interval.high,
        title="What each layer’s attention and MLP adds",
        shows=say.attribution_sum(found),
        groups=[_band(name) for name in names],
        short=[_short(name) for name in names],
        total=Total(
            parts=estimate(bootstrap(found.total.to_numpy())),
            measured=estimate(bootstrap(found.target.to_numpy())),
            largest_gap=float(gaps.max()),
        ),
        reproduce='study.attribution.grouped("component")',
    )


def _band(name: str) -> str:
    kind, _, layer = name.partition(".")
    return f"layer {layer}" if layer else kind


def _short(name: str) -> str:
    return {"attn_out": "A", "mlp_out": "M"}.get(name.partition(".")[0], "")


def head_contributions(found: Attribution) -> Figure:
    """Each head's direct contribution."""
    return _grid(
        found.heads,
        title="What each head adds directly",
        shows=say.head_attribution(found),
        measure="contribution to the logit difference",
        ends=("wrong", "correct"),
        reproduce="study.attribution.heads",
    )


def _grid(
    values: xr.DataArray, *, title: str, shows: str, measure: str, ends: tuple[str, str],
    reproduce: str,
) -> Figure:  # fmt: skip
    """A heatmap of values (example, layer, something)."""
    found = bootstrap(values.to_numpy())
    axis = str(values.dims[2])
    return heatmap(
        found.mean,
        [str(layer) for layer in values["layer"].to_numpy()],
        [place_name(each) if axis == "position" else str(each) for each in values[axis].to_numpy()],
        title=title,
        shows=shows,
        column_axis=axis,
        measure=measure,
        ends=ends,
        lows=found.low,
        highs=found.high,
        reproduce=reproduce,
    )


# ── attention ────────────────────────────────────────────────────────────────────────────────


def patterns(found: Attention) -> list[Figure]:
    """The strongest heads' attention over the tokens of real examples."""
    names = [str(head) for head in found.patterns.values["head"].to_numpy()]
    shown = found.patterns.values["example"].to_numpy().tolist()
    prompts = list(zip(shown, found.patterns.tokens, strict=True))
    drawn: list[Figure] = []
    for head in names:
        for number, (example, tokens) in enumerate(prompts, start=1):
            pattern = found.patterns.of(head, example).to_numpy()
            shows = say.looks_here(pattern, tokens, head)
            drawn.append(
                attention(
                    pattern, tokens, title=f"Head {head} on prompt {number}", shows=shows,
                    part="a" + head.replace(".", ".h"),
                    reproduce=f'study.attention.patterns.of("{head}", {example})',
                )
            )  # fmt: skip
    return drawn


def looking(found: Attention) -> Figure:
    """How much the last position attends to each place, for the strongest heads."""
    heads = [str(head) for head in found.patterns.values["head"].to_numpy()]
    pairs = [tuple(map(int, head.split("."))) for head in heads]
    each = np.stack([found.to.values.sel(layer=a, head=b).to_numpy() for a, b in pairs], axis=1)
    interval = bootstrap(each)
    places: Sequence[object] = found.to.values["position"].to_numpy().tolist()
    return heatmap(
        interval.mean,
        heads,
        [place_name(place) for place in places],
        title=f"Where the strongest heads look from {found.to.query}",
        shows=say.looks(found.to, heads[0]),
        row_axis="head",
        column_axis="position",
        measure="attention",
        lows=interval.low,
        highs=interval.high,
        limit=1.0,
        signed=False,
        reproduce="study.attention.to.interval()",
    )
