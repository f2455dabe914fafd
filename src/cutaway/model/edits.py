"""Edits: changes to a forward pass, as values.

An edit names a site, which part of it (rows, positions, heads, neurons) and what to do there. It
can be printed, checked before anything runs, saved and planned; one that matches nothing is an
error. `apply` takes any function, and therefore cannot be planned.

    ablate("head_out.9.6")                         replace("z.3", from_=run, position="S2")
    add("resid_post.6", vector)                    scale("mlp_out.0", 0.5)
    project_out("resid_mid.4", direction)          freeze("pattern", from_=run)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from cutaway.errors import SiteError
from cutaway.model.changes import (
    Change,
    FromRun,
    Function,
    MeanOf,
    OwnBatch,
    Project,
    Resampled,
    Source,
    Value,
)
from cutaway.model.ports import Passing
from cutaway.model.select import Index, Position, Selection, Where, several
from cutaway.model.sites import KINDS, Site

AblateMode = Literal["zero", "mean", "resample"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Edit:
    """A change at one site."""

    site: Site
    """The whole site."""
    where: Where
    """Which part of it."""
    change: Change
    """What happens there."""
    text: str
    """How a person would write it."""

    def __str__(self) -> str:
        return self.text


Edits = Edit | Sequence["Edit | Sequence[Edit]"]


@dataclass(frozen=True)
class BoundEdit:
    """An edit made definite for a batch: a tap."""

    edit: Edit
    """The edit."""
    selection: Selection
    """Its part, for this batch."""

    def wants(self, site: Site) -> bool:
        """Whether this is the edit's site."""
        return site == self.edit.site

    def __call__(self, site: Site, x: Tensor, now: Passing) -> Tensor:
        """The tensor with the edit's part changed; the others' bits are not touched."""
        indices = self.selection.indices(x, now)
        if indices is None:
            return x
        new = self.edit.change(x[indices] if indices else x, self.selection, now)
        if new is None:
            return x
        if not indices:
            return new.to(x.dtype)
        changed = x.clone(memory_format=torch.contiguous_format)
        changed[indices] = new.to(x.dtype)
        return changed


def _edit(
    name: str,
    site: str | Site,
    change: Change,
    head: Index | None,
    neuron: Index | None,
    position: Position | None,
    key_position: Position | None,
    row: Index | None,
    detail: str = "",
) -> Edit:
    parsed = Site.parse(site)
    given = [several(part) for part in (head, neuron) if part is not None]
    if parsed.index is not None:
        given.append((parsed.index,))
    if len(given) > 1:
        raise SiteError(f"{str(site)!r}: name the head or neuron once, in the site or beside it.")
    if given and KINDS[parsed.kind].indexed is None:
        raise SiteError(f"{str(site)!r}: {parsed.kind!r} has no heads or neurons to choose from.")
    where = Where(
        index=tuple(int(i) for i in given[0]) if given and given[0] is not None else None,
        position=several(position),
        key_position=several(key_position),
        row=tuple(int(i) for i in several(row) or ()) if row is not None else None,
    )
    for part in (where.index, where.position, where.key_position, where.row):
        if part is not None and not part:
            raise SiteError(f"The edit of {str(site)!r} selects nothing: an empty list was given.")
    spelled = ", ".join(part for part in (f'"{parsed.whole}"', detail, str(where)) if part)
    return Edit(site=parsed.whole, where=where, change=change, text=f"{name}({spelled})")


def replace(
    site: str | Site,
    value: Tensor | float | None = None,
    *,
    from_: Source | None = None,
    source: str | Site | None = None,
    from_position: Position | None = None,
    head: Index | None = None,
    neuron: Index | None = None,
    position: Position | None = None,
    key_position: Position | None = None,
    row: Index | None = None,
) -> Edit:
    """Put a value, or the same part of another run, in place of what passes.

    `value` broadcasts to the part chosen; `from_` is a run that kept the site (or `source`, a site
    of the same shape), read at the same positions or at `from_position`.
    """
    if (value is None) == (from_ is None):
        raise SiteError("replace needs either a value or a run (from_=…), and not both.")
    if from_ is None:
        assert value is not None
        change: Change = Value(torch.as_tensor(value), "set")
        detail = "value"
    else:
        read = Site.parse(source).whole if source is not None else Site.parse(site).whole
        change = FromRun(from_, read, several(from_position))
        detail = "from_=run"
    return _edit("replace", site, change, head, neuron, position, key_position, row, detail)


def add(
    site: str | Site,
    value: Tensor | float,
    *,
    head: Index | None = None,
    neuron: Index | None = None,
    position: Position | None = None,
    key_position: Position | None = None,
    row: Index | None = None,
) -> Edit:
    """Add a value that broadcasts to the part chosen (a steering vector, say)."""
    change = Value(torch.as_tensor(value), "add")
    return _edit("add", site, change, head, neuron, position, key_position, row, "value")


def scale(
    site: str | Site,
    factor: Tensor | float,
    *,
    head: Index | None = None,
    neuron: Index | None = None,
    position: Position | None = None,
    key_position: Position | None = None,
    row: Index | None = None,
) -> Edit:
    """Multiply the part chosen by a factor that broadcasts to it."""
    change = Value(torch.as_tensor(factor), "multiply")
    return _edit("scale", site, change, head, neuron, position, key_position, row, "factor")


def ablate(
    site: str | Site,
    mode: AblateMode = "zero",
    *,
    over: Source | None = None,
    per_position: bool = False,
    seed: int = 0,
    head: Index | None = None,
    neuron: Index | None = None,
    position: Position | None = None,
    key_position: Position | None = None,
    row: Index | None = None,
) -> Edit:
    """Take the part away: set it to zero, to a mean, or to what other prompts have there.

    `over` is the reference run for the mean or the draw (this very batch when not given, of it the
    rows that `row` names). The mean
    pools prompts and real positions, or with `per_position` only prompts; scores and patterns pool
    only prompts. `seed` fixes the draw of `resample`.
    """
    if mode not in ("zero", "mean", "resample"):
        raise SiteError(f"There is no ablation {mode!r}; choose zero, mean or resample.")
    whole = Site.parse(site).whole
    change: Change
    if mode == "zero":
        change = Value(torch.tensor(0.0), "set")
    elif over is None:
        change = OwnBatch(mode, per_position, seed)
    elif whole not in over.sites:
        raise SiteError(
            f"The reference run did not keep {str(whole)!r}; run it with keep=[{str(whole)!r}]."
        )
    elif mode == "mean":
        change = MeanOf(over, whole, per_position)
    else:
        change = Resampled(over, whole, seed)
    return _edit("ablate", site, change, head, neuron, position, key_position, row, f'"{mode}"')


def project_out(
    site: str | Site,
    directions: Tensor,
    *,
    head: Index | None = None,
    neuron: Index | None = None,
    position: Position | None = None,
    row: Index | None = None,
) -> Edit:
    """Remove the component in the span of one direction (width) or several (n, width)."""
    stacked = directions.reshape(-1, directions.shape[-1]).double()
    if not bool(torch.isfinite(stacked).all()) or bool((stacked.norm(dim=1) == 0).any()):
        raise SiteError("The directions to project out must be finite and not zero.")
    # The span's own basis: directions that depend on one another must not add any of their own.
    _, sizes, spanning = torch.linalg.svd(
        stacked / stacked.norm(dim=1, keepdim=True), full_matrices=False
    )
    basis = spanning[sizes > 1e-6 * sizes[0]].float()
    return _edit(
        "project_out", site, Project(basis), head, neuron, position, None, row, "directions"
    )


def apply(
    site: str | Site,
    fn: Callable[[Tensor], Tensor],
    *,
    head: Index | None = None,
    neuron: Index | None = None,
    position: Position | None = None,
    key_position: Position | None = None,
    row: Index | None = None,
) -> Edit:
    """Call any function on the part chosen. It cannot be planned, saved or batched."""
    name = getattr(fn, "__name__", "fn")
    return _edit("apply", site, Function(fn), head, neuron, position, key_position, row, name)


def freeze(site: str, *, from_: Source) -> list[Edit]:
    """Hold a site, or every kept site of a kind, at what it was in another run."""
    if site in KINDS:
        held = [kept for kept in from_.sites if kept.kind == site]
        if not held:
            raise SiteError(
                f"The run given as from_ kept no {site!r}; run it with keep=[{site!r}]."
            )
        return [replace(kept, from_=from_) for kept in held]
    return [replace(site, from_=from_)]


def flat(edits: Edits) -> list[Edit]:
    """One edit, or edits given singly or in lists, as one list."""
    listed: list[Edit] = []
    for item in [edits] if isinstance(edits, Edit) else edits:
        listed.extend([item] if isinstance(item, Edit) else item)
    return listed
