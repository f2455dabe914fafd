"""Changes: what an edit does to the part of a tensor that it touches.

Each is a small frozen value with one method that computes the part's new value and one that
refuses, before anything runs, what cannot be done. A change that would need another prompt's or
another run's positions has nothing to say about tokens that are being generated, and leaves them
alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from cutaway.errors import SiteError
from cutaway.model.ports import Passing
from cutaway.model.select import Selection, Where, positions_of
from cutaway.model.sites import KINDS, Site
from cutaway.model.tokens import Tokens


class Source(Protocol):
    """A finished run, as far as an edit needs to know it."""

    @property
    def tokens(self) -> Tokens:
        """What it ran on."""
        ...

    @property
    def sites(self) -> Sequence[Site]:
        """What it kept."""
        ...

    def __getitem__(self, site: Site | str) -> Tensor:
        """A kept tensor."""
        ...


class Change(Protocol):
    """What an edit does to the part it touches."""

    def __call__(self, part: Tensor, selection: Selection, now: Passing) -> Tensor | None:
        """The part's new value, of the same shape; None to leave it (nothing to say here)."""
        ...

    def check(self, selection: Selection) -> None:
        """Refuse what cannot be done to this selection."""
        ...


def _like(value: Tensor, part: Tensor) -> Tensor:
    return value.to(device=part.device, dtype=part.dtype)


@dataclass(frozen=True, eq=False)
class Value:
    """A number or tensor that broadcasts to the part, combined with it."""

    value: Tensor
    """What to combine."""
    combine: Literal["set", "add", "multiply"]
    """How."""

    def __call__(self, part: Tensor, selection: Selection, now: Passing) -> Tensor | None:
        value = _like(self.value, part)
        if now.past and _varies_by_position(value, selection):
            return None
        try:
            # A copy of its own: some families add to what they are given in place.
            value = torch.broadcast_to(value, part.shape).clone()
        except RuntimeError:
            raise SiteError(
                f"The value for {str(selection.site)!r} has the shape {tuple(value.shape)}, which "
                f"does not broadcast to the part it should fill: {tuple(part.shape)}."
            ) from None
        if self.combine == "add":
            return part + value
        return part * value if self.combine == "multiply" else value

    def check(self, selection: Selection) -> None:
        """Shapes are checked against what passes."""


def _varies_by_position(value: Tensor, selection: Selection) -> bool:
    axes = KINDS[selection.site.kind].axes
    spans = [axes[-value.ndim :][i] for i in range(value.ndim) if value.shape[i] > 1]
    return any(axis.endswith("position") for axis in spans) and selection.where.position is None


@dataclass(frozen=True, eq=False)
class FromRun:
    """The same part of another run; optionally another site or position of it, or other rows."""

    run: Source
    """Where the values come from."""
    source: Site
    """The whole site to read."""
    position: tuple[int | str, ...] | None
    """The positions to read; None for the edit's own."""
    rows: Tensor | None = None
    """(batch,) which row of the run each row reads; None for its own."""

    def check(self, selection: Selection) -> None:
        """The run must have kept the site, and its prompts must line up."""
        if self.source not in self.run.sites:
            kept = ", ".join(str(site) for site in self.run.sites) or "nothing"
            raise SiteError(
                f"The run given as from_ did not keep {str(self.source)!r} (it kept {kept}); "
                f"run it with keep=[{str(self.source)!r}]."
            )
        mine, theirs = selection.tokens, self.run.tokens
        if len(theirs) not in (1, len(mine)) and self.rows is None:
            raise SiteError(
                f"The run given as from_ has {len(theirs)} prompts and this one {len(mine)}; "
                "give as many, or a single one."
            )
        wanted = self.position or selection.where.position
        if wanted is not None:
            positions_of(wanted, theirs)
        if self.position is not None and len(self.position) != len(selection.where.position or ()):
            raise SiteError("from_position needs as many positions as position names.")
        square = "key_position" in KINDS[self.source.kind].axes
        across = wanted is None or (square and selection.where.key_position is None)
        if across and not _same_layout(mine, theirs if self.rows is None else self._drawn(theirs)):
            raise SiteError(
                f"The prompts of the run given as from_ do not line up with these token by token "
                f"({tuple(theirs.ids.shape)} against {tuple(mine.ids.shape)}, or padded "
                "differently); name the positions to take."
            )

    def _drawn(self, theirs: Tokens) -> Tokens:
        assert self.rows is not None
        return theirs.rows(self.rows.to(theirs.ids.device))

    def __call__(self, part: Tensor, selection: Selection, now: Passing) -> Tensor | None:
        where = selection.where
        if now.past and where.position is None:
            return None
        tokens = self.run.tokens
        theirs = Passing(batch=len(tokens), width=int(tokens.ids.shape[1]))
        reading = Selection(
            self.source,
            Where(
                index=where.index,
                position=self.position or where.position,
                key_position=where.key_position,
            ),
            tokens,
            selection.all_keys,
        )
        values = self.run[self.source]
        indices = reading.indices(values, theirs)
        assert indices is not None
        values = values[indices] if indices else values
        if self.rows is not None:
            values = values[self.rows.to(values.device)]
        beams = now.batch // len(selection.tokens)
        if values.shape[0] > 1:
            if where.row is not None:
                values = values[torch.tensor(where.row, device=values.device)]
            values = values.repeat_interleave(beams, dim=0)
        return _like(values, part).expand(part.shape).clone()


def _same_layout(one: Tokens, other: Tokens) -> bool:
    """Whether prompts line up, column by column; a single prompt must line up with every other."""
    if one.ids.shape[1] != other.ids.shape[1]:
        return False
    return bool((one.mask.cpu() == other.mask.cpu()).all())


def _lined_up(tokens: Tokens) -> bool:
    return _same_layout(tokens, tokens.rows([0]))


@dataclass(frozen=True, eq=False)
class Project:
    """Removes what lies in the span of some directions."""

    basis: Tensor
    """(directions, width), orthonormal."""

    def __call__(self, part: Tensor, selection: Selection, now: Passing) -> Tensor | None:
        basis = _like(self.basis, part)
        if basis.shape[1] != part.shape[-1]:
            raise SiteError(
                f"The directions to project out of {str(selection.site)!r} have the width "
                f"{basis.shape[1]}, and what passes there {part.shape[-1]}; give as wide ones."
            )
        return part - (part @ basis.T) @ basis

    def check(self, selection: Selection) -> None:
        """The width is checked against what passes."""


@dataclass(frozen=True, eq=False)
class Function:
    """Any function of the part."""

    fn: Callable[[Tensor], Tensor]
    """Takes and returns a tensor of the part's shape."""

    def __call__(self, part: Tensor, selection: Selection, now: Passing) -> Tensor | None:
        # A copy, so that a function that writes into what it is given does no more than say so.
        new = self.fn(part.clone())
        shape: tuple[int, ...] | None = getattr(new, "shape", None)
        if shape != part.shape:
            what = repr(new) if shape is None else f"the shape {tuple(shape)}"
            raise SiteError(
                f"The function applied at {str(selection.site)!r} returned {what} for a tensor of "
                f"the shape {tuple(part.shape)}; return one of the same shape."
            )
        return new

    def check(self, selection: Selection) -> None:
        """A function is taken as it is."""


@dataclass(frozen=True, eq=False)
class OwnBatch:
    """The mean over this very batch (the rows chosen), or other rows of it."""

    mode: Literal["mean", "resample"]
    """Which."""
    per_position: bool
    """Whether each position has its own mean."""
    seed: int
    """For the draw of rows."""

    def __call__(self, part: Tensor, selection: Selection, now: Passing) -> Tensor | None:
        if now.past:
            return None
        tokens = _chosen(selection)
        beams = part.shape[0] // len(tokens)
        if self.mode == "resample":
            drawn = draw_rows(len(tokens), len(tokens), self.seed)
            return part[(drawn[:, None] * beams + torch.arange(beams)).flatten().to(part.device)]
        everywhere = selection.where.position is None
        real = tokens.mask.repeat_interleave(beams, dim=0) if everywhere else None
        return _mean(part, selection.site, real, self.per_position).expand(part.shape)

    def check(self, selection: Selection) -> None:
        """Padding may not stand in for another prompt's tokens, nor a prompt for itself."""
        tokens, where = _chosen(selection), selection.where
        square = "key_position" in KINDS[selection.site.kind].axes
        by_place = self.per_position or self.mode == "resample" or square
        what = "Resampling" if self.mode == "resample" else "This mean"
        if by_place and (where.position is None or square) and not _lined_up(tokens):
            ask = "choose another ablation" if square else "name the positions"
            raise SiteError(
                f"{what} needs prompts of one length, or positions that all of them have; {ask}."
            )
        if len(tokens) == 1 and (by_place or len(where.position or ()) == 1):
            raise SiteError(
                f"{what} over a single prompt would leave everything as it is; give more prompts, "
                "or a reference run (over=…)."
            )


def _chosen(selection: Selection) -> Tokens:
    """The prompts whose rows an edit touches."""
    rows = selection.where.row
    return selection.tokens if rows is None else selection.tokens.rows(rows)


def _mean(values: Tensor, site: Site, real: Tensor | None, per_position: bool) -> Tensor:
    axes = KINDS[site.kind].axes
    pooled = [0, 1] if axes[1] == "position" and not per_position else [0]
    if real is None or axes[1] != "position":
        return values.mean(dim=pooled, keepdim=True)
    weight = real.to(values.device, values.dtype).reshape(*real.shape, *[1] * (values.ndim - 2))
    return (values * weight).sum(dim=pooled, keepdim=True) / weight.sum(
        dim=pooled, keepdim=True
    ).clamp(min=1)


def draw_rows(rows: int, among: int, seed: int) -> Tensor:
    """For each of `rows`, another row out of `among`, seeded; its own only if there is no other."""
    generator = torch.Generator().manual_seed(seed)
    if among == 1:
        return torch.zeros(rows, dtype=torch.long)
    steps = torch.randint(1, among, (rows,), generator=generator)
    return (torch.arange(rows) + steps) % among


@dataclass(frozen=True, eq=False)
class MeanOf:
    """The mean of a reference run, over its prompts and real positions."""

    run: Source
    """The reference."""
    source: Site
    """The site averaged."""
    per_position: bool
    """Whether each position has its own mean."""

    def check(self, selection: Selection) -> None:
        """Means per position need prompts that line up, and so do scores and patterns."""
        theirs, where = self.run.tokens, selection.where
        if self._by_place and not _lined_up(theirs):
            raise SiteError("A mean per position needs reference prompts of one length.")
        across = self._by_place and (where.position is None or self._square)
        if across and not _same_layout(selection.tokens, theirs.rows([0])):
            raise SiteError(
                "A mean per position needs prompts that line up with the reference's token by "
                f"token ({theirs.ids.shape[1]} tokens against "
                f"{sorted(set(selection.tokens.lengths.tolist()))}, or padded differently); "
                "choose another reference or ablation."
            )

    @property
    def _square(self) -> bool:
        return "key_position" in KINDS[self.source.kind].axes

    @property
    def _by_place(self) -> bool:
        """Whether each position has a mean of its own; scores and patterns pool only prompts."""
        return self.per_position or self._square

    def __call__(self, part: Tensor, selection: Selection, now: Passing) -> Tensor | None:
        values = self.run[self.source]
        mean = _mean(values, self.source, self.run.tokens.mask, self.per_position)
        if now.past and self._by_place:
            return None
        mean = mean.expand(1, values.shape[1] if self.per_position else -1, *[-1] * (mean.ndim - 2))
        rows = Passing(batch=1, width=int(mean.shape[1]))
        where = Where(
            index=selection.where.index,
            position=selection.where.position if self._by_place else None,
            key_position=selection.where.key_position,
        )
        reading = Selection(self.source, where, self.run.tokens.rows([0]), selection.all_keys)
        indices = reading.indices(mean, rows)
        assert indices is not None
        return _like(mean[indices] if indices else mean, part).expand(part.shape)


@dataclass(frozen=True, eq=False)
class Resampled:
    """What other prompts of a reference run have there, drawn with a seed."""

    run: Source
    """The reference."""
    source: Site
    """The site."""
    seed: int
    """For the draw."""

    def _drawn(self, selection: Selection) -> FromRun:
        rows = draw_rows(len(selection.tokens), len(self.run.tokens), self.seed)
        return FromRun(self.run, self.source, None, rows)

    def check(self, selection: Selection) -> None:
        """The drawn rows must line up with these."""
        self._drawn(selection).check(selection)

    def __call__(self, part: Tensor, selection: Selection, now: Passing) -> Tensor | None:
        return self._drawn(selection)(part, selection, now)
