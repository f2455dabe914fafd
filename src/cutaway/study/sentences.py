"""What the numbers say, in sentences computed from them.

One small function per claim. A sentence names what is strongest and its interval, and says so when
nothing stands out, so that no report claims more than its numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from cutaway.observe import AttentionTo, Attribution
from cutaway.study.blackbox import BlackBox
from cutaway.study.lens import Lenses
from cutaway.study.places import place_name
from cutaway.study.words import listed, percent, plain, with_ends
from cutaway.views.text import number

# ── black box ────────────────────────────────────────────────────────────────────────────────


def accuracy(box: BlackBox) -> str:
    """How often the answer wins, and by how much."""
    right = round(float(box.each("accuracy").sum()))
    share = box.interval("accuracy")
    ends = f" (95 % CI {percent(float(share.low))} to {percent(float(share.high))})"
    return (
        f"The correct answer gets a larger logit than the wrong one on {right} of {box.n} clean "
        f"prompts{ends if box.n > 1 else ''}; the mean logit difference is "
        f"{with_ends(box.interval('logit_diff'))}."
    )


def held_out(box: BlackBox) -> str:
    """How it does on examples from names, templates or sequences kept aside."""
    if not 0 < box.n_held_out < box.n:
        return ""
    return (
        f"On the {box.n_held_out} held-out prompts the accuracy is "
        f"{with_ends(box.interval('accuracy', held_out=True), as_percent=True)} and the logit "
        f"difference {with_ends(box.interval('logit_diff', held_out=True))}."
    )


def corruption(box: BlackBox) -> str:
    """What the corruption does to the answer."""
    clean = float(box.interval("logit_diff").mean)
    found = box.interval("logit_diff", "corrupt")
    corrupt = float(found.mean)
    if abs(clean - corrupt) < 0.1 * abs(clean):
        what = "hardly changes it, so there is little for patching to move"
    elif corrupt * clean < 0 and abs(corrupt) > 0.25 * abs(clean):
        what = "turns the answer round"
    else:
        what = "takes it away"
    return (
        "With the same answers, the corrupt prompts have a logit difference of "
        f"{with_ends(found)}: the corruption {what}."
    )


def records(table: pd.DataFrame, metric: str) -> list[dict[str, Any]]:
    """A breakdown's rows of one metric, each with its values by column."""
    columns = {str(name): table[name].tolist() for name in table.columns}
    return [
        {name: values[row] for name, values in columns.items()}
        for row in range(len(table))
        if columns["metric"][row] == metric
    ]


_FEW = 5


def by_variation(table: pd.DataFrame) -> str:
    """Where the behaviour is weakest and strongest."""
    every = [row for row in records(table, "logit_diff") if row["variation"] != "all"]
    # the mean of one or two prompts is an extreme by chance
    rows = [row for row in every if row["n"] >= _FEW] or every
    if not rows:
        return "These prompts have no variation to break the result down by."
    low = min(rows, key=lambda row: row["mean"])
    high = max(rows, key=lambda row: row["mean"])
    apart = "" if low["high"] < high["low"] else " Their intervals overlap."
    return (
        f"The logit difference is smallest for {low['variation']} {_quoted(low['value'])} "
        f"({plain(float(low['mean']))}, n = {low['n']}) and largest for {high['variation']} "
        f"{_quoted(high['value'])} ({plain(float(high['mean']))}, n = {high['n']}).{apart}"
    )


def spread(box: BlackBox) -> str:
    """How single examples spread."""
    clean, corrupt = box.each("logit_diff"), box.each("logit_diff", "corrupt")
    return (
        f"{int((clean > 0).sum())} of {box.n} clean prompts and {int((corrupt > 0).sum())} of "
        f"{box.n} corrupt ones have a logit difference above zero; the clean ones run from "
        f"{plain(float(clean.min()))} to {plain(float(clean.max()))}."
    )


def _quoted(value: object, limit: int = 70) -> str:
    text = str(value)
    return f"“{text if len(text) <= limit else text[: limit - 1] + '…'}”"


# ── lens ─────────────────────────────────────────────────────────────────────────────────────


def stage_name(site: object) -> str:
    """A reading of the lens as a person names it: `embeddings`, `after layer 3`."""
    kind, _, layer = str(site).partition(".")
    return "embeddings" if kind == "resid_pre" else f"after layer {layer}"


def _since(site: object) -> str:
    kind, _, layer = str(site).partition(".")
    return "from the embeddings on" if kind == "resid_pre" else f"from layer {layer} on"


def lens(lenses: Lenses) -> str:
    """Where the answer becomes readable at the last position."""
    at_end = lenses.clean.mean.isel(position=-1)
    final = float(at_end[-1])
    if abs(final) < 0.1:
        return f"The model's own output at the last position has no answer ({plain(final)})."
    ahead = np.flatnonzero(at_end.to_numpy() * np.sign(final) >= abs(final) / 2)
    first = int(ahead[0])
    name = stage_name(at_end["layer"].to_numpy()[first])
    before = f", from {plain(float(at_end[first - 1]))} just before" if first else ""
    return (
        f"Half of the final logit difference ({plain(final)}) is first readable at the last "
        f"position {name}: {plain(float(at_end[first]))} there{before}."
    )


def lens_rank(lenses: Lenses) -> str:
    """When the correct answer becomes the model's first choice."""
    top = (lenses.clean.rank.isel(position=-1) == 0).mean("example")
    layers = top["layer"].to_numpy()
    most = np.flatnonzero(top.to_numpy() > 0.5)
    if not most.size:
        return "The correct answer is never the likeliest token on more than half of the prompts."
    return (
        f"Of the whole vocabulary, the correct answer is the likeliest token on more than half of "
        f"the prompts {_since(layers[most[0]])}, and on {percent(float(top[-1]))} of them at the "
        "output."
    )


# ── attribution ──────────────────────────────────────────────────────────────────────────────


def component_name(name: str) -> str:
    """A component as a person names it: `head 3.5`, `MLP 4`."""
    kind, _, rest = name.partition(".")
    words = {"head_out": "head", "mlp_out": "MLP", "attn_out": "attention", "layer": "layer"}
    words |= {"attn_bias": "attention bias", "embed": "embedding", "pos_embed": "positions"}
    words |= {"norm_bias": "norm bias", "unembed_bias": "unembedding bias"}
    return f"{words.get(kind, kind)} {rest}".strip()


def attribution(found: Attribution, most: int = 3) -> str:
    """The parts that write most of the answer."""
    total = float(found.target.mean())
    top = found.top(most)
    parts = [
        f"{component_name(str(row['component']))} ({plain(float(row['mean']))})"
        for row in top.to_dict("records")
    ]
    return f"Of the logit difference of {plain(total)}, the largest parts are {listed(parts)}."


def head_attribution(found: Attribution, most: int = 3) -> str:
    """The heads that write most of the answer, and what all heads write together."""
    mean = found.heads.mean("example")
    order = np.argsort(-np.abs(mean.to_numpy()), axis=None, kind="stable")[:most]
    heads = [
        f"{layer}.{head} ({plain(float(mean.to_numpy()[layer, head]))})"
        for layer, head in zip(*np.unravel_index(order, mean.shape), strict=True)
    ]
    total = float(found.target.mean())
    return (
        f"All heads together add {plain(float(mean.sum()))} of {plain(total)}; the largest are "
        f"heads {listed(heads)}."
    )


def attribution_sum(found: Attribution) -> str:
    """The check that the parts add up."""
    total, target = float(found.total.mean()), float(found.target.mean())
    capped = ", before the soft cap on this model's logits," if found.before_cap else ""
    return (
        f"The parts add up to {number(total, 4)}; the logit difference{capped} is "
        f"{number(target, 4)} "
        f"(relative error {found.relative_error:.1e} over all examples)."
    )


# ── attention ────────────────────────────────────────────────────────────────────────────────


def looks(to: AttentionTo, head: str) -> str:
    """Where one head looks from the last position, averaged over examples."""
    layer, index = (int(part) for part in head.split("."))
    mean = to.mean.sel(layer=layer, head=index)
    best = int(mean.to_numpy().argmax())
    place = place_name(mean["position"].to_numpy()[best])
    return (
        f"From {to.query}, head {head} looks most at {place}, among the positions named here: "
        f"{number(float(mean[best]))} on average over {to.values.sizes['example']} prompts."
    )


def looks_here(pattern: Float[np.ndarray, "query key"], tokens: Sequence[str], head: str) -> str:
    """Where one head looks from the last token of one prompt."""
    best = int(pattern[-1].argmax())
    return (
        f"From the last token, “{tokens[-1].strip()}”, head {head} looks most at "
        f"“{tokens[best].strip()}” (token {best + 1}): {number(float(pattern[-1, best]))}."
    )
