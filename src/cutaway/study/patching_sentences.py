"""What patching found, in sentences: exact effects, estimates and paths.

A cell is named only when it is more than chance: its p-value, corrected for the number of cells, is
below 0.05; with so few examples that no p-value can be, when its interval leaves zero out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cutaway.behaviours.metrics import METRICS
from cutaway.patch import Effects, Estimates, PathStep
from cutaway.study.patching import Patching
from cutaway.study.paths import Paths
from cutaway.study.places import place_name
from cutaway.study.words import listed, percent, plain
from cutaway.views.text import number, p_value

LEVEL = 0.05
_ENOUGH = 6
"""Fewer examples cannot have a p-value below the level, whichever way they point."""


def cell_name(effects: Effects, row: Mapping[Any, Any]) -> str:
    """A cell as a person names it: `head 3.5`, `MLP 2 at end`, `S2 entering layer 4`."""
    at = f" at {place_name(row['position'])}" if "position" in effects.axes else ""
    if "head" in effects.axes:
        return f"head {row['layer']}.{row['head']}{at}"
    if effects.site == "mlp_out":
        return f"MLP {row['layer']}{at}"
    return f"{place_name(row['position'])} entering layer {row['layer']}"


def measured(effects: Effects) -> str:
    """What patching was measured by: the behaviour's metric, in words."""
    return METRICS[effects.metric].label


def clear(effects: Effects, row: Mapping[Any, Any]) -> bool:
    """Whether a row of `effects.top` is more than chance."""
    if effects.values.sizes["example"] >= _ENOUGH:
        return bool(row["p_corrected"] < LEVEL)
    return bool(row["low"] > 0 or row["high"] < 0)


def counted(effects: Effects) -> str:
    """How many cells are more than chance."""
    examples, cells = effects.values.sizes["example"], effects.mean.size
    if examples < _ENOUGH:
        return f"{examples} examples are too few for p-values below {LEVEL}."
    count = int((effects.p_corrected < LEVEL).sum())
    return (
        f"{count} of {cells} cells change it by more than chance (p < {LEVEL}, corrected for "
        f"all {cells})."
    )


def strongest(effects: Effects, most: int = 3) -> str:
    """The cells that change the metric most, with the share of the gap they move."""
    return f"{_start(effects)} {_most(effects, most)}"


def _start(effects: Effects) -> str:
    denoise = effects.mode == "denoise"
    base, source = ("corrupt", "clean") if denoise else ("clean", "corrupt")
    part = "the stream"
    if effects.site == "mlp_out":
        part = "one MLP’s output"
    if "head" in effects.axes:
        part = "one head’s output"
    where = " at one place" if "position" in effects.axes else ""
    return f"Putting {part}{where} from the {source} run into the {base} run"


def _most(effects: Effects, most: int) -> str:
    rows = [row for row in effects.top(most).to_dict("records") if clear(effects, row)]
    if not rows:
        chance = "its interval" if effects.values.sizes["example"] < _ENOUGH else "chance"
        return f"changes the {measured(effects)} nowhere by more than {chance}."
    named = [
        f"{cell_name(effects, row)} ({plain(row['effect'])}{_share(effects, row['recovery'])})"
        for row in rows
    ]
    return f"changes the {measured(effects)} most for {listed(named)}."


def _share(effects: Effects, recovery: float) -> str:
    """The share of the gap between clean and corrupt, where there is a gap to speak of."""
    if not np.isfinite(recovery) or abs(effects.gap) < 0.1:
        return ""
    return f", {percent(recovery)} of the gap"


def path_of_stream(effects: Effects) -> str:
    """Where along the prompt the answer's information is, layer by layer."""
    mean = effects.mean.transpose("layer", "position")
    towards = mean * np.sign(effects.gap) * (1 if effects.mode == "denoise" else -1)
    best = towards.to_numpy().argmax(axis=1)
    if float(towards.max()) < 0.1 * abs(effects.gap) or effects.gap == 0:
        return "No single place carries a tenth of the gap between clean and corrupt."
    runs: list[tuple[str, int, int]] = []
    for layer, place in zip(mean["layer"].to_numpy(), best, strict=True):
        name = place_name(mean["position"].to_numpy()[place])
        if runs and runs[-1][0] == name:
            runs[-1] = (name, runs[-1][1], int(layer))
        else:
            runs.append((name, int(layer), int(layer)))
    told = [
        f"{name} (layer{'s' * (a != b)} {a if a == b else f'{a} to {b}'})" for name, a, b in runs
    ]
    return f"The place that carries most of it, by the layer that reads it: {', then '.join(told)}."


def main_heads(found: Patching) -> str:
    """The summary's sentence about heads."""
    heads = [f"{layer}.{head}" for layer, head in found.strongest(3)]
    effects = found.heads_denoise
    best = effects.top(1).to_dict("records")[0]
    if not clear(effects, best):
        chance = "its interval" if found.n < _ENOUGH else "chance"
        return f"Patching single heads moves the answer nowhere by more than {chance}."
    p = f", {p_value(float(best['p_corrected']))} corrected" if found.n >= _ENOUGH else ""
    return (
        f"Patching names heads {listed(heads)} as the strongest; put back alone, "
        f"{cell_name(effects, best)} changes the {measured(effects)} by {plain(best['effect'])}"
        f"{_share(effects, best['recovery'])} ({found.n} examples{p})."
    )


# ── estimates ────────────────────────────────────────────────────────────────────────────────


def agreement(found: Estimates) -> str:
    """How well the estimates agree with the cells that were patched exactly."""
    effects, table = found.effects, found.misses(1)
    cells, sampled = effects.mean.size, 0 if found.exact is None else found.exact.sizes["cell"]
    which = "all" if sampled == cells else f"{sampled} of"
    rank = found.agreement
    said = "there is no rank to compare, since effects are equal"
    if rank is not None and np.isfinite(rank):
        said = f"rank correlation {number(rank)}"
    row = table.to_dict("records")[0]
    return (
        f"Checked by patching {which} {cells} cells exactly: {said}; the worst miss is "
        f"{cell_name(effects, row)}, estimated {plain(row['estimate'])} where patching gives "
        f"{plain(row['exact'])}."
    )


def estimated(found: Estimates, most: int = 3) -> str:
    """Where the estimates are largest."""
    effects = found.effects
    rows = [row for row in effects.top(most).to_dict("records") if clear(effects, row)]
    if not rows:
        return f"By its gradient, nothing changes the {measured(effects)} by more than chance."
    named = [f"{cell_name(effects, row)} ({plain(row['effect'])})" for row in rows]
    return f"By its gradient, the {measured(effects)} depends most on {listed(named)}."


# ── paths ────────────────────────────────────────────────────────────────────────────────────

_INPUTS = {"q": "queries", "k": "keys", "v": "values"}


def received(receivers: Sequence[str]) -> str:
    """Receivers as a person names them: `the logits`, `queries 9.6 and 10.0`."""
    if list(receivers) == ["logits"]:
        return "the logits"
    kind = receivers[0].partition(".")[0]
    return f"{_INPUTS[kind]} {listed([each.partition('.')[2] for each in receivers])}"


def along(step: PathStep) -> str:
    """Which heads work along these paths."""
    effects = step.effects
    start = f"Corrupting one head’s direct paths into {received(step.receivers)} alone"
    return f"{start} {_most(effects, 3)}"


def trail(found: Paths) -> str:
    """The summary's sentence about paths."""
    direct = found.steps[0].effects
    rows = [row for row in direct.top(3).to_dict("records") if clear(direct, row)]
    if not rows:
        return "No single head’s direct path to the logits matters by more than chance."
    heads = listed([f"{row['layer']}.{row['head']}" for row in rows])
    back: list[str] = []
    for step in found.steps[1:]:
        best = step.effects.top(1).to_dict("records")[0]
        if clear(step.effects, best):
            kind = _INPUTS[step.receivers[0].partition(".")[0]]
            effect = f"head {best['layer']}.{best['head']} ({plain(best['effect'])})"
            back.append(f"through their {kind} most by {effect}")
    reached = f"; these are reached {listed(back)}" if back else ""
    return f"Heads {heads} write to the logits directly{reached} ({found.n} examples)."
