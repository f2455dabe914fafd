"""Memorised strings: how much prefix they need, what carries them, and whether it spares the rest.

A string is memorised when the model continues a prefix with exactly what follows (Carlini et al.
2022, "Quantifying Memorization Across Neural Language Models"). The last `suffix` tokens of each
text are what is to be known; of a behaviour, the texts are its clean prompts with their answers.

1. prefix: with the k tokens just before the suffix (behind the text's first token, where that is a
   special one), is the suffix the greedy continuation? That is so exactly when every token of it is
   the likeliest after those before. Control: a suffix that anything would predict is not memorised.
   Of a behaviour, the same suffix is looked for after its corrupt prompts; of strings, other texts
   are asked for their own;
2. sites: every head and every MLP is set to its mean over the other texts, one at a time. `drop` is
   by how much the suffix's log-probability per token falls, `rise` by how much the loss per token
   of the other texts rises;
3. carriers: whole heads and MLPs serve all text, so what is memorised is looked for in neurons
   (`knowledge`). They are chosen on every second text of both kinds, and set to their means
   together on the others (on the same ones, where there is a single text; the result says so);
4. controls: as many random neurons of the same layers, `draws` times. Carriers are *selective* when
   they lower the suffix more than every draw does, and *spare the rest* when the 95 % interval of
   the rise in other texts' loss stays under 0.1 nats per token.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from jaxtyping import Bool
from torch import Tensor

from cutaway.behaviours.behaviour import Behaviour
from cutaway.behaviours.interval import Interval, bootstrap
from cutaway.behaviours.provenance import version
from cutaway.errors import InputError
from cutaway.measure.result import Fields, provenance
from cutaway.mechanisms.ablating import (
    Means,
    Progress,
    heads_of,
    log_probabilities,
    losses,
    mlps_of,
)
from cutaway.mechanisms.knowledge import Neuron, NeuronMeans, alike, carrying
from cutaway.model.edits import Edit
from cutaway.model.model import Model
from cutaway.model.tokens import Tokens, pad
from cutaway.observe.neurons import layers_with_neurons
from cutaway.observe.weights import origin
from cutaway.views.figure import Figure
from cutaway.views.lines import Series, lens_curve
from cutaway.views.text import Estimate

_SPARED = 0.1
"""By how much other texts' loss (nats per token) may rise and still be spared."""
_ALL_UP_TO = 32


@dataclass(frozen=True, kw_only=True, eq=False)
class Memorised(Fields):
    """What it takes to recover some strings, and what carries them."""

    recovered: xr.DataArray
    """(text, prefix): 1 where so many tokens of prefix give the suffix; NaN in shorter texts."""
    control: xr.DataArray
    """(controlled, prefix): the same of the control."""
    control_is: str
    """What the control is, in words."""
    drop: xr.DataArray
    """(part, text): the fall of the suffix's log-probability per token without the part."""
    rise: xr.DataArray
    """(part, other): the rise of the loss per token without the part."""
    memory: xr.DataArray
    """(state, held_text): the suffix's log-probability per token, `before` and `after` the carriers
    are set to their means together."""
    known: xr.DataArray
    """(state, held_text): 1 where the whole suffix is the greedy continuation."""
    rest: xr.DataArray
    """(state, held_other): the loss per token of other texts."""
    random_memory: xr.DataArray
    """(draw,): the mean fall of the suffix's log-probability without random neurons."""
    random_rest: xr.DataArray
    """(draw,): the mean rise of other texts' loss without them."""
    carriers: tuple[str, ...]
    """The neurons chosen, "layer.neuron", the surest first."""
    held_out: bool
    """Whether they were chosen on other texts than they were measured on."""
    suffix: int
    """How many tokens were to be known."""
    provenance: Mapping[str, Any] = field(repr=False)
    """Versions, model and settings."""

    @property
    def needed(self) -> xr.DataArray:
        """(text,): the shortest prefix that gives the suffix; NaN where none does."""
        known = self.recovered == 1
        first = self.recovered["prefix"].to_numpy()[known.argmax("prefix").to_numpy()]
        return xr.DataArray(np.where(known.any("prefix"), first, np.nan), dims="text")

    @property
    def sites(self) -> pd.DataFrame:
        """part, drop with its interval, rise, drop − rise; the most selective first."""
        rows: list[dict[str, object]] = []
        for part in self.drop["part"].to_numpy().tolist():
            fell = bootstrap(self.drop.sel(part=part).to_numpy())
            rose = float(self.rise.sel(part=part).mean())
            rows.append({
                "part": part, "drop": float(fell.mean), "low": float(fell.low),
                "high": float(fell.high), "rise": rose, "drop - rise": float(fell.mean) - rose,
            })  # fmt: skip
        return pd.DataFrame(rows).sort_values("drop - rise", ascending=False, ignore_index=True)

    def change(self, of: xr.DataArray) -> Interval:
        """After less before, of `memory`, `known` or `rest`, with its interval."""
        return bootstrap((of.sel(state="after") - of.sel(state="before")).to_numpy())

    @property
    def selective(self) -> bool:
        """Whether the carriers lower the suffix more than every random draw of parts does."""
        return float(-self.change(self.memory).mean) > float(self.random_memory.max())

    @property
    def spares(self) -> bool:
        """Whether other texts' loss rises by less than 0.1 nats per token, with its interval."""
        rise = self.change(self.rest)
        high = rise.high if np.isfinite(rise.high) else rise.mean
        return float(high) < _SPARED

    def __str__(self) -> str:
        needed = self.needed
        found = int(needed.notnull().sum())
        whole = (self.control == 1).any("prefix").mean()
        lines = [
            f"Memorised: {found} of {needed.size} texts, the last {self.suffix} token(s) of each; "
            f"{self.control_is}, {float(whole):.0%}."
        ]
        if found:
            least, middle, most = (float(needed.quantile(q)) for q in (0, 0.5, 1))
            lines.append(f"Prefix needed: {middle:g} tokens (from {least:g} to {most:g}).")
        layers = sorted({int(each.partition(".")[0]) for each in self.carriers})
        count = {n: sum(each.startswith(f"{n}.") for each in self.carriers) for n in layers}
        lines.append(
            f"{len(self.carriers)} neurons, "
            + ", ".join(f"{many} of layer {layer}" for layer, many in count.items())
            + f", chosen on {'other texts' if self.held_out else 'the same text'}."
        )
        said = {"log-probability per token": self.memory, "greedy continuation right": self.known,
                "loss of other texts": self.rest}  # fmt: skip
        for name, values in said.items():
            before, after = (float(values.sel(state=s).mean()) for s in ("before", "after"))
            change = self.change(values)
            lines.append(f"{name}: {before:.2f} → {after:.2f}, {change}")
        lines.append(
            f"Random neurons, {self.random_memory.size} draws: log-probability falls by "
            f"{float(self.random_memory.mean()):.2f} (at most {float(self.random_memory.max()):.2f}"
            f"), loss of other texts rises by {float(self.random_rest.mean()):.2f}."
        )
        lines.append(
            f"The carriers are {'' if self.selective else 'not '}selective and "
            f"{'spare' if self.spares else 'do not spare'} the rest."
        )
        lines.append("One part at a time, set to its mean over other texts:")
        lines.append(self.sites.head(8).to_string(index=False, float_format="{:.3f}".format))
        return "\n".join(lines)

    def plot(self) -> Figure:
        """The share of texts recovered by length of prefix, beside other texts."""
        names = [str(each) for each in self.recovered["prefix"].to_numpy()]
        series: list[Series] = []
        for name, values in (("these texts", self.recovered), ("control", self.control)):
            found = bootstrap(values.to_numpy())
            ends = zip(found.mean, found.low, found.high, strict=True)
            estimates = tuple(Estimate(*map(float, each)) for each in ends)
            series.append(Series(name=name, estimates=estimates))
        return lens_curve(
            series, names, title="How much prefix it takes", shows=str(self).splitlines()[0],
            measure="share of texts continued exactly", axis="tokens of prefix",
            reproduce="memorised(model, texts, other=other).plot()",
        )  # fmt: skip


def memorised(
    model: Model,
    texts: Behaviour | str | Sequence[str],
    *,
    other: Sequence[str],
    suffix: int = 1,
    neurons: int = 100,
    draws: int = 20,
    seed: int = 0,
    progress: Progress | None = None,
) -> Memorised:
    """Ask how some strings are memorised.

    `texts` are strings, or a behaviour; `other` are ordinary texts that should be spared, at least
    two. `neurons` is how many are taken for carriers; `draws` random sets are the control, drawn
    with `seed`. Raises `InputError` for texts no longer than the suffix, and for
    numbers below 1, and `WeightsError` for a mixture of experts.
    """
    rows, rest = _rows(model, texts), _rows(model, list(other))
    _check(rows, rest, suffix, neurons, draws)
    layers_with_neurons(model)
    tokens, others = (pad(each, pad_id=0) for each in (rows, rest))
    behaviour = texts if isinstance(texts, Behaviour) else None
    controlled = rest if behaviour is None else _answered(behaviour, behaviour.corrupt)
    prefixes = _prefixes(max(map(len, rows)) - suffix)
    asked = {name: xr.DataArray(_recovered(model, each, suffix, prefixes), {"prefix": prefixes},
                                (dim, "prefix"))
             for name, dim, each in (("recovered", "text", rows),
                                     ("control", "controlled", controlled))}  # fmt: skip
    parts, drop, rise = _one_by_one(model, tokens, others, suffix, progress)
    chosen, measured = _taken_out(model, tokens, others, suffix, neurons, draws, seed)
    return Memorised(
        **asked, **measured,
        control_is="of other texts" if behaviour is None else "after the corrupt prompts",
        drop=xr.DataArray(drop, {"part": parts}, ("part", "text")),
        rise=xr.DataArray(rise, {"part": parts}, ("part", "other")),
        carriers=tuple(f"{layer}.{neuron}" for layer, neuron in chosen),
        held_out=len(rows) > 1, suffix=suffix,
        provenance=_origin(model, behaviour, {
            "method": "memorised", "suffix": suffix, "neurons": neurons, "draws": draws,
            "seed": seed, "texts": texts if behaviour is None else len(rows), "other": list(other),
        }),
    )  # fmt: skip


def _origin(
    model: Model, behaviour: Behaviour | None, settings: Mapping[str, object]
) -> dict[str, object]:
    if behaviour is not None:
        return provenance(model, behaviour, settings)
    return {"versions": {"cutaway": version()}, **origin(model, configuration=dict(settings))}


def _taken_out(
    model: Model, tokens: Tokens, others: Tokens, suffix: int, neurons: int, draws: int, seed: int
) -> tuple[list[Neuron], dict[str, xr.DataArray]]:
    """The carriers, chosen on every second text, and what is left without them on the others."""
    first, second = slice(0, None, 2), slice(1, None, 2)
    seen, kept = (tokens, tokens) if len(tokens) == 1 else (tokens.rows(first), tokens.rows(second))
    spared, means = others.rows(second), NeuronMeans.of(model, others)
    chosen = carrying(model, means, seen, _last(seen, suffix), others.rows(first), neurons)
    states = ([], means.edits(chosen))
    measured = [_suffix(model, kept, suffix, edits) for edits in states]
    memory, known = (np.stack([each[n] for each in measured]) for n in (0, 1))
    rest = np.stack([losses(model, spared, edits) for edits in states])
    draw = random.Random(seed)
    random_edits = [means.edits(alike(chosen, means, draw)) for _ in range(draws)]
    fell = [(memory[0] - _suffix(model, kept, suffix, e)[0]).mean() for e in random_edits]
    rose = [(losses(model, spared, edits) - rest[0]).mean() for edits in random_edits]
    state = {"state": ["before", "after"]}
    return chosen, {
        "memory": xr.DataArray(memory, state, ("state", "held_text")),
        "known": xr.DataArray(known, state, ("state", "held_text")),
        "rest": xr.DataArray(rest, state, ("state", "held_other")),
        "random_memory": xr.DataArray(fell, dims="draw"),
        "random_rest": xr.DataArray(rose, dims="draw"),
    }


def _rows(model: Model, texts: Behaviour | str | Sequence[str]) -> list[list[int]]:
    """Each text's tokens."""
    if isinstance(texts, Behaviour):
        return _answered(texts, texts.clean)
    listed = [texts] if isinstance(texts, str) else list(texts)
    if not listed:
        return []
    tokens = model.tokens(listed)
    return [tokens.row_ids(row) for row in range(len(tokens))]


def _answered(behaviour: Behaviour, prompts: Tokens) -> list[list[int]]:
    """Prompts with the clean prompts' answers."""
    rows = [prompts.row_ids(row) for row in range(len(prompts))]
    return [[*ids, answer[0]] for ids, answer in zip(rows, behaviour.answers, strict=True)]


def _one_by_one(
    model: Model, tokens: Tokens, others: Tokens, suffix: int, progress: Progress | None
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Every head and MLP; (part, text): the drop without it; (part, other): the rise."""
    parts, means = [*heads_of(model), *mlps_of(model)], Means.of(model, others)
    said, loss = _suffix(model, tokens, suffix)[0], losses(model, others)
    drop, rise = np.empty((len(parts), len(tokens))), np.empty((len(parts), len(others)))
    for number, part in enumerate(parts):
        edits = means.edits([part])
        drop[number] = said - _suffix(model, tokens, suffix, edits)[0]
        rise[number] = losses(model, others, edits) - loss
        if progress is not None:
            progress(number + 1, len(parts))
    return parts, drop, rise


def _check(
    rows: Sequence[Sequence[int]], rest: Sequence[Sequence[int]], suffix: int, neurons: int,
    draws: int,
) -> None:  # fmt: skip
    if min(suffix, neurons, draws) < 1:
        raise InputError(
            f"suffix, neurons and draws count from 1; found {suffix}, {neurons} and {draws}."
        )
    if not rows or len(rest) < 2:
        raise InputError(
            f"Give one text or more and two other texts or more; found {len(rows)} and {len(rest)}."
        )
    shortest = min(map(len, [*rows, *rest]))
    if shortest < suffix + 2:
        raise InputError(
            f"A text of {shortest} tokens has no prefix before a suffix of {suffix}; give texts "
            f"of at least {suffix + 2} tokens."
        )


def _prefixes(longest: int) -> list[int]:
    """Every length up to 32, and then every power of two and the longest."""
    found = list(range(1, min(longest, _ALL_UP_TO) + 1))
    length = 2 * _ALL_UP_TO
    while length < longest:
        found.append(length)
        length *= 2
    return found if found[-1] == longest else [*found, longest]


def _suffix(
    model: Model, tokens: Tokens, suffix: int, edits: Sequence[Edit] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """(text,): the suffix's log-probability per token, and 1 where all of it is likeliest."""
    said, likeliest = log_probabilities(model, tokens, edits)
    last = _last(tokens, suffix)
    mean = torch.where(last, said, 0.0).sum(dim=1) / suffix
    whole = torch.where(last, likeliest, 1.0).amin(dim=1)
    return mean.double().numpy(), whole.double().numpy()


def _last(tokens: Tokens, suffix: int) -> Bool[Tensor, "text position"]:
    """Where the suffix stands."""
    place = torch.arange(tokens.ids.shape[1])
    return (place <= tokens.last[:, None]) & (place > tokens.last[:, None] - suffix)


def _recovered(
    model: Model, rows: Sequence[Sequence[int]], suffix: int, prefixes: Sequence[int]
) -> np.ndarray:
    """(text, prefix): 1 where so much prefix gives the suffix, NaN where there is not so much."""
    special = set(getattr(model.tokenizer, "all_special_ids", None) or [])
    found = np.full((len(rows), len(prefixes)), np.nan)
    for column, length in enumerate(prefixes):
        long = [n for n, row in enumerate(rows) if len(row) >= length + suffix]
        if long:
            cut = [
                [*(rows[n][:1] if rows[n][0] in special and len(rows[n]) > length + suffix else []),
                 *rows[n][-length - suffix :]]
                for n in long
            ]  # fmt: skip
            found[long, column] = _suffix(model, pad(cut, pad_id=0), suffix)[1]
    return found
