"""Where hypotheses are tested: every experiment that a role asks for, on the same prompts.

Parts are moved together, whichever they are: the clean run with what the corrupt run has there
(`noise`: are they needed?), or the other way round (`denoise`: are they enough?), heads by their
`z` as in path patching. What every experiment gives is one number per example, in the metric's own
unit, positive where the parts support the behaviour.

Beside each part stand controls: other parts of its kind, drawn at random from those that no
hypothesis names, as many together as the hypothesis has. They are held against the part example by
example, by the middle one of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import xarray as xr
from jaxtyping import Float
from numpy import ndarray

from cutaway.behaviours import METRICS, Behaviour
from cutaway.measure.batches import batch_size_for, batches
from cutaway.model import Model, Site
from cutaway.model.edits import replace
from cutaway.observe import Attribution, attribute
from cutaway.observe.confirming import Cut
from cutaway.observe.relations import Mask
from cutaway.patch import Mode, path_patch
from cutaway.patch.ends import Ends
from cutaway.patch.routes import reads, writes
from cutaway.study.discovery import graded

Parts = tuple[str, ...]
Each = Float[ndarray, " example"]
_CONTROLS, _FEWEST = 8, 3


class Bench:
    """One model and some prompts."""

    def __init__(
        self, model: Model, rows: Behaviour, *, named: Sequence[str] = (), seed: int = 0
    ) -> None:
        self.model, self.rows, self.seed = model, rows, seed
        self.named = frozenset(named)
        self.metric = graded(rows) or rows.metric
        self._moved: dict[tuple[Parts, str], Each] = {}

    @cached_property
    def _ends(self) -> list[tuple[slice, Ends]]:
        """Both plain runs of every batch, with all that parts write."""
        kept = [site for site in self.model.sites if site.kind in ("z", "mlp_out")]
        size = batch_size_for(self.model, self.rows, None)
        return [
            (where, Ends(self.model, some, where.start, METRICS[self.metric], kept))
            for where, some in batches(self.rows, size)
        ]

    def _measured(self, run: Callable[[Ends], Each]) -> Each:
        found = np.empty(len(self.rows))
        for where, ends in self._ends:
            found[where] = run(ends)
        return found

    @cached_property
    def clean(self) -> Each:
        """The metric on the clean prompts."""
        return self._measured(lambda ends: ends.measure(ends.clean))

    @cached_property
    def gap(self) -> Each:
        """How much of it the corruption takes away."""
        return self.clean - self._measured(lambda ends: ends.measure(ends.corrupt))

    def moved(self, parts: Parts, mode: Mode) -> Each:
        """What is lost when parts are corrupted (`noise`), or brought back when they alone are
        clean (`denoise`).
        """
        if (parts, mode) not in self._moved:
            places = [_place(Site.parse(part)) for part in parts]

            def run(ends: Ends) -> Each:
                edits = [replace(place, from_=ends.source(mode)) for place in places]
                return ends.measure(self.model.run(ends.base(mode).tokens, edits=edits))

            values = self._measured(run)
            lost = self.clean - values if mode == "noise" else values - (self.clean - self.gap)
            self._moved[parts, mode] = lost
        return self._moved[parts, mode]

    def cut(self, parts: Parts, looks: Callable[[Behaviour], Mask]) -> Each:
        """What is lost when heads may not look where a mask says."""

        def run(ends: Ends) -> Each:
            mask, sites = looks(ends.rows), [Site.parse(part) for part in parts]
            taps = [
                Cut(site.whole, site.index, mask)
                for site in (Site("pattern", one.layer, one.index) for one in sites)
                if site.index is not None
            ]
            return ends.measure(self.model.run(ends.clean.tokens, taps=taps))

        return self.clean - self._measured(run)

    @cached_property
    def attribution(self) -> Attribution:
        """What every part adds to the logit difference directly."""
        return attribute(self.model, self.rows)

    def adds(self, parts: Parts) -> Each:
        """What parts together add to the logit difference directly."""
        return self.attribution.values.sel(component=list(parts)).sum("component").to_numpy()

    def sent(self, cells: Sequence[Parts], receivers: Sequence[str]) -> xr.DataArray:
        """(sender, example): what is lost when parts send the receivers what they send in the
        corrupt run.
        """
        found = path_patch(
            self.model, self.rows, [list(cell) for cell in cells], list(receivers), mode="noise",
            metric=self.metric,
        )  # fmt: skip
        return -found.effect

    def others(self, parts: Parts, *, before: Sequence[str] = ()) -> list[Parts]:
        """As many unnamed parts of the same kinds, drawn some times; none where there are fewer
        than three to be had.

        With `before`, of those that write before these receivers read.
        """
        pools = {kind: self.unnamed(kind, before) for kind in ("head_out", "mlp_out")}
        many = {kind: sum(part.startswith(kind) for part in parts) for kind in pools}
        if any(len(pools[kind]) < many[kind] for kind in pools):
            return []
        draw = random.Random(self.seed)
        # in the order in which they were drawn: the first in the order of names would be the
        # first layers' parts
        drawn = dict.fromkeys(
            tuple(
                one
                for kind, pool in pools.items()
                for one in sorted(draw.sample(pool, many[kind]))
            )
            for _ in range(3 * _CONTROLS)
        )  # fmt: skip
        return list(drawn)[:_CONTROLS] if len(drawn) >= _FEWEST else []

    def unnamed(self, kind: str, before: Sequence[str] = ()) -> list[str]:
        """The parts of a kind that no hypothesis names."""
        layers = range(self.model.n_layers)
        sites = (
            [Site(kind, layer, head) for layer in layers for head in range(self.model.n_heads)]
            if kind == "head_out"
            else [Site(kind, layer) for layer in layers]
        )
        until = max((reads(self.model, Site.parse(one)) for one in before), default=None)
        return [
            str(site)
            for site in sites
            if str(site) not in self.named and (until is None or writes(site) < until)
        ]

    def middle(self, found: Sequence[Each]) -> Each | None:
        """The middle one of some controls, example by example; None where there are too few."""
        return np.median(np.stack(found), axis=0) if len(found) >= _FEWEST else None


def inputs_of(model: Model, part: str, kind: str | None = None) -> list[str]:
    """What a head or an MLP reads, as receivers: all of it, or one of q, k and v."""
    site = Site.parse(part)
    if site.index is None:
        return [str(Site("mlp_in", site.layer))]
    group = 1 if model.anatomy.d_key is not None else model.n_heads // model.n_kv_heads
    each = {"q": site.index, "k": site.index // group, "v": site.index // group}
    return [str(Site(one, site.layer, each[one])) for one in ([kind] if kind else each)]


def _place(part: Site) -> Site:
    """Where a part is moved: a head by its z."""
    return part if part.index is None else Site("z", part.layer, part.index)
