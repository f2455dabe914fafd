"""Value or pointer: does a head hand on which token it was, or where that token stood?

Wang et al. 2022, "Interpretability in the Wild", appendix A ("token and positional signals"). Two
tokens compete for the answer: the right one and a wrong one. A head that helps to decide may say
which token it is about, or at which place; on one prompt these are the same thing. They come apart
on other prompts, which are made from the clean one token by token:

| source | what is exchanged | "when A and B went, B gave" becomes |
|---|---|---|
| value | the two tokens, wherever they stand | when B and A went, A gave |
| pointer | the two tokens where they stand first | when B and A went, B gave |
| both | both of these: the later mentions | when A and B went, A gave |

In the value source everything is about the other token, at the same places; in the pointer source
about the same token, at the other place. So:

1. the model runs on the three sources. It must answer as they say: with the other token in the
   first and the last, with the same one in the second;
2. one head's output at `position` in the clean run is replaced by that in a source, and the clean
   answer's logit difference falls by some amount. Given later heads (`into`), only their queries
   there see the change, by whichever path;
3. `leaning` is the fall by the value source less that by the pointer source: a head that hands on a
   value has it positive, one that hands on a pointer negative, since each is deaf to the other's
   source. A head that works against the answer has all signs turned (by the fall from `both`);
4. the verdict, with intervals that are widened for the number of heads (Bonferroni): "both" when
   both falls are sure and the smaller is at least a fifth of the larger; else "value" or "pointer"
   by a sure leaning together with a sure fall; else "undecided". The fall from `both` must be sure
   for any verdict: a head that only says what stands first falls by the other two alone, which
   exchange first mentions, and has decided nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from cutaway.behaviours.behaviour import Behaviour
from cutaway.behaviours.interval import bootstrap
from cutaway.behaviours.metrics import METRICS
from cutaway.errors import InputError, SiteError
from cutaway.measure.batches import Progress, batch_size_for, batches
from cutaway.measure.result import Result, provenance
from cutaway.model import edits
from cutaway.model.model import Model
from cutaway.model.run import Run
from cutaway.model.select import positions_of
from cutaway.model.sites import Site
from cutaway.model.tokens import Tokens
from cutaway.observe.heads import Head, layer_and_head
from cutaway.observe.roles import before_end

SOURCES = ("value", "pointer", "both")
"""The prompts that heads are patched from."""
_MINOR, _LEVEL = 0.2, 0.95


@dataclass(frozen=True, kw_only=True, eq=False)
class Moved(Result):
    """What heads hand on: a value, a pointer, both, or nothing that could be told."""

    values: xr.DataArray
    """(head, source, example): by how much the logit difference falls; `head` holds
    "layer.head"."""
    clean: xr.DataArray
    """(example,): the logit difference of the clean prompts."""
    sources: xr.DataArray
    """(source, example): the clean answer's logit difference on the prompts patched from."""
    provenance: Mapping[str, Any] = field(repr=False)
    """Versions, model, data and settings."""

    @property
    def leaning(self) -> xr.DataArray:
        """(head, example): the fall by the value source less that by the pointer source."""
        return self._turned.sel(source="value", drop=True) - self._turned.sel(
            source="pointer", drop=True
        )

    @property
    def _turned(self) -> xr.DataArray:
        """The falls, with the signs of heads that work against the answer turned."""
        whole = self.values.sel(source="both", drop=True).mean("example")
        return self.values * xr.where(whole < 0, -1.0, 1.0)

    @property
    def verdicts(self) -> dict[str, str]:
        """For each head "value", "pointer", "both" or "undecided"."""
        return {str(row.head): str(row.verdict) for row in self.table().itertuples()}

    def table(self) -> pd.DataFrame:
        """head; the mean falls; the leaning with its 95 % interval; the verdict."""
        names = [str(name) for name in self.values["head"].to_numpy()]
        widened = 1 - (1 - _LEVEL) / len(names)
        turned = self._turned.transpose("example", "head", "source")
        sure = bootstrap(turned.to_numpy(), confidence=widened).low > 0
        falls = turned.mean("example").to_numpy()
        leaning = self.leaning.transpose("example", "head").to_numpy()
        shown, wide = bootstrap(leaning), bootstrap(leaning, confidence=widened)
        rows = self.values.mean("example").to_numpy()
        found: list[dict[str, object]] = []
        for number, name in enumerate(names):
            ends = (float(wide.low[number]), float(wide.high[number]))
            found.append(
                {
                    "head": name,
                    **dict(zip(SOURCES, rows[number].tolist(), strict=True)),
                    "leaning": float(shown.mean[number]),
                    "low": float(shown.low[number]),
                    "high": float(shown.high[number]),
                    "verdict": _verdict(falls[number], sure[number], ends),
                }
            )
        return pd.DataFrame(found)

    def to_dataset(self) -> xr.Dataset:
        """All arrays in one."""
        arrays = {"values": self.values, "clean": self.clean, "sources": self.sources}
        return xr.Dataset(arrays, attrs={"provenance": self.provenance})

    @classmethod
    def from_dataset(cls, data: xr.Dataset) -> Self:
        """The inverse of `to_dataset`."""
        arrays = {name: data[name] for name in ("values", "clean", "sources")}
        plain = {name: each.reset_coords(drop=True) for name, each in arrays.items()}
        return cls(
            values=plain["values"], clean=plain["clean"].drop_vars("source", errors="ignore"),
            sources=plain["sources"], provenance=data.attrs["provenance"],
        )  # fmt: skip


def _verdict(falls: np.ndarray, sure: np.ndarray, leaning: tuple[float, float]) -> str:
    """From a head's falls by source, whether each is sure, and the leaning's interval."""
    if not sure[2]:
        return "undecided"
    if sure[0] and sure[1] and min(falls[:2]) >= _MINOR * max(falls[:2]):
        return "both"
    if leaning[0] > 0 and sure[0]:
        return "value"
    return "pointer" if leaning[1] < 0 and sure[1] else "undecided"


def value_or_pointer(
    model: Model,
    behaviour: Behaviour,
    heads: Sequence[Head],
    *,
    position: str = "end",
    into: Sequence[Head] | None = None,
    exchanged: Sequence[tuple[str, str]] | None = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Moved:
    """Test each head by itself; see the module.

    The two tokens are the answer and the first wrong answer in the prompt. `exchanged` names pairs
    of labels whose tokens change places in the pointer source (where the two stand first, when not
    given), for behaviours in which places are told by other tokens than these. Examples in which
    value and pointer do not come apart are left out. Raises `InputError` when that is all of them,
    and when the model does not answer the sources as the test needs it to.
    """
    chosen = _heads(model, heads, "heads")
    readers = None if into is None else _heads(model, into, "into")
    _check_order(chosen, readers)
    rows, sources = _apart(behaviour, exchanged)
    size = batch_size_for(model, rows, batch_size)
    clean, others = np.empty(len(rows)), np.empty((len(SOURCES), len(rows)))
    for where, some in batches(rows, size):
        clean[where] = _measured(some, model.run(some.clean))
        for number, name in enumerate(SOURCES):
            others[number, where] = _measured(some, model.run(sources[name].rows(where)))
    _check_answers(model, behaviour, others)
    falls = np.empty((len(chosen), len(SOURCES), len(rows)))
    keep = [Site("z", layer) for layer in sorted({layer for layer, _ in chosen})]
    for where, some in batches(rows, size, progress):
        for number, name in enumerate(SOURCES):
            run = model.run(sources[name].rows(where), keep=keep)
            for row, head in enumerate(chosen):
                patched = _patched(model, some, run, head, position, readers)
                falls[row, number, where] = clean[where] - _measured(some, patched)
    names = [f"{layer}.{head}" for layer, head in chosen]
    settings = {"method": "value or pointer", "position": position, "examples": len(rows),
                "into": None if into is None else [str(each) for each in into]}  # fmt: skip
    coords = {"head": names, "source": list(SOURCES)}
    return Moved(
        values=xr.DataArray(falls, coords, ("head", "source", "example"), "fall"),
        clean=xr.DataArray(clean, dims="example", name="clean"),
        sources=xr.DataArray(others, {"source": list(SOURCES)}, ("source", "example"), "sources"),
        provenance=provenance(model, behaviour, settings),
    )


def _heads(model: Model, heads: Sequence[Head], what: str) -> list[tuple[int, int]]:
    found = [layer_and_head(head) for head in heads]
    if not found:
        raise SiteError(f"No head was given as {what}; give at least one, for example (1, 3).")
    for layer, head in found:
        model.check_site(Site("q", layer, head))
    return found


def _check_order(heads: Sequence[tuple[int, int]], into: Sequence[tuple[int, int]] | None) -> None:
    last = max(layer for layer, _ in heads)
    early = next((head for head in into or () if head[0] <= last), None)
    if early is not None:
        raise SiteError(
            f"Head {early[0]}.{early[1]} cannot see what a head of layer {last} writes; `into` "
            "takes heads of later layers."
        )


def _measured(rows: Behaviour, run: Run) -> np.ndarray:
    return METRICS["logit_diff"](rows.end_logits(run.logits), rows).cpu().numpy()


def _patched(
    model: Model, rows: Behaviour, source: Run, head: tuple[int, int], position: str,
    into: Sequence[tuple[int, int]] | None,
) -> Run:  # fmt: skip
    """The clean run with one head as in the source, for everybody or for some heads' queries."""
    layer, index = head
    edit = edits.replace(f"z.{layer}", from_=source, head=index, position=position)
    if into is None:
        return model.run(rows.clean, edits=[edit])
    keep = sorted({f"q.{layer}" for layer, _ in into})
    changed = model.run(rows.clean, edits=[edit], keep=keep)
    seen = [
        edits.replace(f"q.{layer}", from_=changed, head=index, position=position)
        for layer, index in into
    ]
    return model.run(rows.clean, edits=seen)


# ── the prompts that are patched from ────────────────────────────────────────────────────────


def _apart(
    behaviour: Behaviour, exchanged: Sequence[tuple[str, str]] | None
) -> tuple[Behaviour, dict[str, Tokens]]:
    """The examples in which value and pointer come apart, and the sources for them."""
    ids, earlier = behaviour.clean.ids, before_end(behaviour)
    value, pointer = ids.clone(), ids.clone()
    labels = [each for two in exchanged or () for each in two]
    named = positions_of(labels, behaviour.clean).tolist() if labels else []
    kept: list[int] = []
    for row in range(len(behaviour)):
        pair = _pair(behaviour, row, earlier[row])
        if pair is None:
            continue
        value[row] = _swapped(ids[row], *pair)
        first = [int(((ids[row] == token) & earlier[row]).nonzero()[0]) for token in pair]
        places = named[row] if labels else first
        for one, other in zip(places[::2], places[1::2], strict=True):
            pointer[row, [one, other]] = pointer[row, [other, one]]
        if not torch.equal(value[row], pointer[row]):
            kept.append(row)
    if not kept:
        raise InputError(
            f"Value and pointer do not come apart in {behaviour.name!r}: no prompt has its answer "
            "and a wrong answer, one of them said again; name labels whose tokens change places "
            "(exchanged=[(…, …)]), or give other prompts."
        )
    both = pointer.clone()
    for row in kept:
        pair = _pair(behaviour, row, earlier[row])
        assert pair is not None
        both[row] = _swapped(pointer[row], *pair)
    made = {"value": value, "pointer": pointer, "both": both}
    sources = {name: replace(behaviour.clean, ids=each).rows(kept) for name, each in made.items()}
    return behaviour.rows(kept), sources


def _pair(behaviour: Behaviour, row: int, earlier: Tensor) -> tuple[int, int] | None:
    """The answer and the wrong answer that stand first in a prompt; None where one does not."""
    spoken: list[int] = behaviour.clean.ids[row][earlier].tolist()
    found = [
        next((token for token in spoken if token in listed), None)
        for listed in (behaviour.answers[row], behaviour.wrong_answers[row])
    ]
    right, wrong = found
    return None if right is None or wrong is None else (right, wrong)


def _swapped(ids: Tensor, one: int, other: int) -> Tensor:
    """A prompt with two tokens exchanged wherever they stand."""
    return torch.where(ids == one, other, torch.where(ids == other, one, ids))


def _check_answers(model: Model, behaviour: Behaviour, others: np.ndarray) -> None:
    """Refuse sources that the model does not answer as the test supposes."""
    means = dict(zip(SOURCES, others.mean(axis=1).tolist(), strict=True))
    if means["value"] < 0 < means["pointer"] and means["both"] < 0:
        return
    said = ", ".join(f"{name} {number:+.2f}" for name, number in means.items())
    raise InputError(
        f"{model.name} does not answer the exchanged prompts of {behaviour.name!r} as the test "
        "needs (the clean answer's mean logit difference must be negative, positive, negative; "
        f"found {said}), so what its heads hand on cannot be told apart here; where other tokens "
        "than the answers tell places, name their labels (exchanged=[(…, …)])."
    )
