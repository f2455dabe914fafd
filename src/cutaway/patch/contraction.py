"""What a cell's edit changes at the base run, contracted with a gradient there.

Cells of one site that touch the same positions differ only in their head, neuron or expert, and
the product of change and gradient, summed over every other axis, gives all of them at once:

1. carry out the edit of every index together on the base run's own tensor, outside of any forward
   pass; the change is the edited tensor less the old one;
2. multiply by the gradient, sum over all axes but the example's and the index's.

With the QK fix (Kramár et al. 2024, section 3.1.1) the change of a query or a key is read where it
arrives, in the attention weights: the layer's own attention runs again with the edit, so that
rotary, masks, soft caps and the softmax are exact, and only what follows is linear. Heads do not
see one another there, except where a norm spans them: then each cell runs alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cutaway.model.edits import BoundEdit
from cutaway.model.model import Model
from cutaway.model.resume import Base, resume
from cutaway.model.run import Recorder
from cutaway.model.sites import KINDS, Site
from cutaway.patch.cells import Cell
from cutaway.patch.slopes import Gradients, Slopes
from cutaway.patch.sources import Source

QK = frozenset({"q", "k", "q_rot", "k_rot"})
"""The sites that the QK fix is for."""


@dataclass(frozen=True)
class Group:
    """Cells of one site that touch the same positions."""

    every: Cell
    """The cell of all their indices together; their own, when it is a single one."""
    numbers: Mapping[int, int | None]
    """Each cell's number in the grid and its index; None when it is the whole."""


def groups(cells: Sequence[Cell], *, alone: bool) -> list[Group]:
    """The cells by site and positions; `alone` leaves each one by itself."""
    found: dict[tuple[object, ...], Group] = {}
    for number, cell in enumerate(cells):
        if alone:
            found[number,] = Group(cell, {number: None})
            continue
        where, index = cell.where, cell.where.index
        key = (cell.site, where.position, where.key_position)
        if key not in found:
            found[key] = Group(replace(cell, where=replace(where, index=None)), {})
        numbers = {**found[key].numbers, number: None if index is None else index[0]}
        found[key] = Group(found[key].every, numbers)
    return list(found.values())


class Contraction:
    """Contracts the changes of one batch's cells."""

    def __init__(self, slopes: Slopes, source: Source, every: Sequence[Group], *, fix: bool):
        self.slopes, self.source, self.groups = slopes, source, every
        self.model: Model = slopes.model
        self.fix = fix

    def bound(self, group: Group) -> BoundEdit:
        """The group's edit, for this batch."""
        return self.model.bind([self.source.edit(group.every)], self.slopes.base.tokens)[0]

    def along_sites(self, steps: int) -> Gradients:
        """The mean gradients on the path of each site from base to source, site by site."""
        edits: dict[Site, list[BoundEdit]] = {}
        for group in self.groups:
            edits.setdefault(group.every.site, []).append(self.bound(group))
        found: Gradients = {}
        for site, listed in edits.items():
            found |= self.slopes.along_site(site, listed, steps)
        return found

    def estimates(self, gradients: Sequence[Gradients]) -> Iterator[tuple[int, Tensor]]:
        """Each cell's number and, for each set of gradients, its sums: (set, example)."""
        for group in self.groups:
            site, changed = self._change(group)
            sums = torch.stack([self._sums(site, changed, each[site]) for each in gradients])
            whole = sums.sum(dim=2) if sums.ndim > 2 else sums
            split = self._per_index(group.every.site, sums)
            for number, index in group.numbers.items():
                yield number, whole if index is None else split[..., index]

    def _change(self, group: Group) -> tuple[Site, Tensor]:
        """Where the change is read, and the change there."""
        site, base = group.every.site, self.slopes.base
        if not self.fix:
            new = self.bound(group)(site, base[site], self.slopes.now)
            return site, new.float() - base[site].float()
        assert site.layer is not None
        pattern = Site("pattern", site.layer)
        recorder = Recorder([pattern])
        rows = torch.arange(len(base.tokens), device=base.tokens.ids.device)
        entering = base[Site("resid_pre", site.layer)]
        taps = [self.bound(group), recorder]
        resume(
            self.model, Base(run=base, keys=()), rows, site.layer, 0, entering,
            Site("z", site.layer), taps,
        )  # fmt: skip
        return pattern, recorder.kept[pattern].float() - base[pattern].float()

    @staticmethod
    def _sums(site: Site, change: Tensor, gradient: Tensor) -> Tensor:
        """The product summed to (example, index), or (example,) for sites without an index."""
        product = change * gradient.float()
        known = KINDS[site.kind]
        if known.indexed is None:
            return product.flatten(1).sum(dim=1)
        kept = (0, known.axes.index(known.indexed))
        return product.sum(dim=[axis for axis in range(product.ndim) if axis not in kept])

    def _per_index(self, site: Site, sums: Tensor) -> Tensor:
        """Heads that share a key-value head, added up where that is what cells name."""
        shares = self.fix and "kv_head" in KINDS[site.kind].axes
        if not shares or self.model.anatomy.d_key is not None:
            return sums
        return sums.unflatten(-1, (self.model.n_kv_heads, -1)).sum(dim=-1)
