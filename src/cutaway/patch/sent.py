"""What senders write into the residual stream when they are as in another run, less what they wrote.

| a sender | changes the stream by |
|---|---|
| a head | Δz · W_O; through the post-norm where there is one, for all of its layer's senders at once, since a norm is not linear |
| an MLP | the difference of `mlp_out` |
| the embedding | the difference of what enters layer 0 (it may be scaled, normed, or given positions on its way) |
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cutaway.model.edits import replace
from cutaway.model.model import Model
from cutaway.model.resume import Base, resume
from cutaway.model.run import Run
from cutaway.model.sites import Site
from cutaway.patch.cells import Coordinate
from cutaway.patch.streams import heads_change

Window = Callable[[Tensor], Tensor]
"""Takes the positions of interest out of a (batch, position, …) tensor."""


@dataclass(frozen=True, eq=False)
class Sent:
    """The senders of one batch: the base run, and what the source run has in their place."""

    model: Model
    """The model."""
    base: Base
    """The run that is changed."""
    source: Run
    """The run that senders are taken from."""
    positions: tuple[Coordinate, ...] | None
    """Where senders change; None for everywhere."""
    chosen: Bool[Tensor, "batch position"]
    """The same as a mask, without padding and what comes after `end`."""

    def first(self, senders: Iterable[Site]) -> Int[Tensor, " batch"]:
        """The first position at which any of some senders differs; the width where none does."""
        found = torch.zeros_like(self.chosen)
        for site in senders:
            found |= self._differs(site)
        width = found.shape[1]
        steps = torch.arange(width, device=found.device)
        return torch.where(found, steps, width).amin(dim=1)

    def _differs(self, site: Site) -> Tensor:
        place = self.place(site)
        old, new = self.base.run[place], self.source[place]
        return self.chosen & (old != new).flatten(2).any(dim=2).to(self.chosen.device)

    @staticmethod
    def place(site: Site) -> Site:
        """Where a sender is read; heads at their z."""
        return Site("z", site.layer, site.index) if site.kind == "head_out" else site

    def z(
        self, layer: int, heads: Iterable[int], rows: Int[Tensor, " row"], window: Window
    ) -> Float[Tensor, "row position head d_head"]:
        """A layer's z with some heads as in the source run."""
        site = Site("z", layer)
        old, new = (window(run[site])[rows] for run in (self.base.run, self.source))
        here = torch.zeros(old.shape[2], dtype=torch.bool, device=old.device)
        here[list(heads)] = True
        chosen = window(self.chosen)[rows].to(old.device)[:, :, None, None] & here[:, None]
        return torch.where(chosen, new, old)

    def heads(
        self, layer: int, heads: Iterable[int], rows: Int[Tensor, " row"], window: Window
    ) -> Float[Tensor, "row position d_model"]:
        """The change by some heads of one layer, all together."""
        listed = sorted(heads)
        old = window(self.base.run[Site("z", layer)])[rows]
        return heads_change(self.model, layer, old, self.z(layer, listed, rows, window), listed)

    def mlp(
        self, layer: int, rows: Int[Tensor, " row"], window: Window
    ) -> Float[Tensor, "row position d_model"]:
        """The change by an MLP."""
        site = Site("mlp_out", layer)
        return self._chosen(self.source[site] - self.base.run[site], rows, window)

    def embedding(
        self, rows: Int[Tensor, " row"], window: Window
    ) -> Float[Tensor, "row position d_model"]:
        """The change by the embedding, where it enters layer 0."""
        edit = replace("embed", from_=self.source, position=self.positions)
        tokens, entering = self.base.run.tokens, Site("resid_pre", 0)
        taps = self.model.bind([edit], tokens)
        old = self.base.run[entering]
        # The pass ends before layer 0, so that the stream given to layer 1 is never read.
        every = torch.arange(len(tokens), device=old.device)
        new = resume(self.model, self.base, every, 1, 0, old, entering, taps)
        return self._chosen(new - old, rows, window)

    def _chosen(self, change: Tensor, rows: Tensor, window: Window) -> Tensor:
        chosen = window(self.chosen)[rows].to(change.device)
        return torch.where(chosen[:, :, None], window(change)[rows], 0.0)
