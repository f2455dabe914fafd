"""Pictures of attention between labels: one head's, or every head's from one label."""

from __future__ import annotations

import numpy as np
import xarray as xr

from cutaway.errors import SiteError
from cutaway.observe.heads import Head, layer_and_head
from cutaway.views.figure import Figure
from cutaway.views.heatmap import heatmap

ELSEWHERE = "elsewhere"
"""What stands for all tokens without a label."""
_MOST = 32


def draw_between(data: xr.Dataset, head: Head | None, query: str) -> Figure:
    """Draw the mean, low and high of weights (layer, head, from, to)."""
    return _every_head(data, query) if head is None else _one_head(data, head)


def _one_head(data: xr.Dataset, head: Head) -> Figure:
    layer, index = layer_and_head(head)
    if not (0 <= layer < data.sizes["layer"] and 0 <= index < data.sizes["head"]):
        raise SiteError(
            f"There is no head {layer}.{index} here; there are {data.sizes['layer']} layers of "
            f"{data.sizes['head']} heads."
        )
    shown = data.sel(layer=layer, head=index).transpose("from", "to")
    return _drawn(
        shown, [str(name) for name in shown["from"].to_numpy()], "from",
        f"What head {layer}.{index} looks at",
        "Mean attention from each labelled position to each.",
    )  # fmt: skip


def _every_head(data: xr.Dataset, query: str) -> Figure:
    known = [str(name) for name in data["from"].to_numpy()]
    if query not in known:
        raise SiteError(f"There is no label {query!r} here; there are {', '.join(known)}.")
    shown = data.sel({"from": query}).stack(each=("layer", "head"))
    labels = [name for name in known if name != query]
    strength = shown["mean"].sel(to=labels).sum("to").to_numpy()
    chosen = np.sort(np.argsort(-strength, kind="stable")[:_MOST])
    shown = shown.isel(each=chosen).transpose("each", "to")
    rows = [f"{layer}.{head}" for layer, head in shown["each"].to_numpy()]
    left = "" if len(strength) <= _MOST else f" The {_MOST} of {len(strength)} that look most."
    return _drawn(
        shown, rows, "head", f"What {query} looks at",
        f"Each head\u2019s mean attention from {query} to each labelled position.{left}",
    )  # fmt: skip


def _drawn(shown: xr.Dataset, rows: list[str], axis: str, title: str, shows: str) -> Figure:
    return heatmap(
        shown["mean"].to_numpy(),
        rows,
        [str(name) for name in shown["to"].to_numpy()],
        title=title, shows=shows, row_axis=axis, column_axis="to", measure="attention",
        lows=shown["low"].to_numpy(), highs=shown["high"].to_numpy(), limit=1.0, signed=False,
    )  # fmt: skip
