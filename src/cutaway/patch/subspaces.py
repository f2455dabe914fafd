"""Interchange within a subspace: replace only what lies in the span of some directions.

With B an orthonormal basis (rows) of the span, x what passes in the base run and s what the source
run has there, what passes on is

    x + (s − x) Bᵀ B

so that the component in the span is the source's and everything across it stays the base's (the
distributed interchange intervention of Geiger et al. 2023, "Finding Alignments Between
Interpretable Causal Variables and Distributed Neural Representations"). With a full basis this is
activation patching; with no difference along the span it is nothing.

The span may come from vectors one has (a difference of means, a probe's weights, a dictionary's
decoder), from the principal components of the activations, or be learnt (`alignment`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from cutaway.behaviours.behaviour import Behaviour
from cutaway.behaviours.metrics import Metric
from cutaway.errors import SiteError
from cutaway.measure.batches import Progress, batch_size_for, batches, named_positions
from cutaway.measure.result import provenance
from cutaway.model.changes import FromRun, Source
from cutaway.model.edits import Edit
from cutaway.model.model import Model
from cutaway.model.ports import Passing
from cutaway.model.select import Position, Selection, Where, positions_of, several
from cutaway.model.sites import KINDS, Site
from cutaway.patch.cells import Coordinate, SweepError
from cutaway.patch.effects import Effects
from cutaway.patch.ends import Ends, check_direction, metric_of
from cutaway.patch.sources import Mode

_SMALLEST = 1e-5


@dataclass(frozen=True, kw_only=True, eq=False)
class Swap:
    """Takes the component in a span from another run, and leaves the rest."""

    source: FromRun
    """Where the component comes from."""
    basis: Float[Tensor, "direction width"]
    """Orthonormal rows."""

    def check(self, selection: Selection) -> None:
        """The run must have kept the site, and its prompts must line up."""
        self.source.check(selection)

    def __call__(self, part: Tensor, selection: Selection, now: Passing) -> Tensor | None:
        """The part with its component replaced; gradients reach the basis."""
        theirs = self.source(part, selection, now)
        if theirs is None:
            return None
        if part.shape[-1] != self.basis.shape[-1]:
            raise SiteError(
                f"The directions are {self.basis.shape[-1]} wide, but {str(selection.site)!r} is "
                f"{part.shape[-1]} wide; give directions of that width."
            )
        basis = self.basis.to(part.device, part.dtype)
        return part + ((theirs - part) @ basis.T) @ basis


def orthonormal(
    directions: Float[Tensor, "*direction width"],
) -> Float[Tensor, "independent width"]:
    """An orthonormal basis (rows) of the span of one or several directions; none may be redundant.

    Raises `SweepError` when they are not finite, zero, or linearly dependent.
    """
    rows = directions.detach().reshape(-1, directions.shape[-1]).float()
    if rows.numel() == 0 or not bool(torch.isfinite(rows).all()):
        raise SweepError("The directions of a subspace must be finite numbers, and at least one.")
    lengths = rows.norm(dim=1, keepdim=True)
    basis, corner = torch.linalg.qr((rows / lengths.clamp_min(1e-30)).T)
    if rows.shape[0] > rows.shape[1] or bool((corner.diagonal().abs() < _SMALLEST).any()):
        raise SweepError(
            f"The {rows.shape[0]} directions do not span as many dimensions (one is zero, or a "
            "combination of the others); leave out those that add nothing."
        )
    return basis.T.contiguous()


def swap(
    site: str | Site,
    directions: Float[Tensor, "*direction width"],
    *,
    from_: Source,
    position: Position | None = None,
) -> Edit:
    """The edit that takes the component of a site (or of one head) in a span from another run."""
    return swapped(site, orthonormal(directions), from_, several(position))


def swapped(
    site: str | Site,
    basis: Float[Tensor, "direction width"],
    run: Source,
    position: tuple[Coordinate, ...] | None,
) -> Edit:
    """`swap` with a basis that is orthonormal already, and may be one that is being learnt."""
    parsed = Site.parse(site)
    if parsed.axes[-1] not in ("d_model", "d_head", "neuron"):
        raise SweepError(f"{str(parsed)!r} holds no vectors, so it has no subspace to exchange.")
    if parsed.index is not None and "d_" not in parsed.axes[-1]:
        raise SweepError(f"{str(parsed)!r} is a single number; name {str(parsed.whole)!r}.")
    where = Where(index=None if parsed.index is None else (parsed.index,), position=position)
    named = f'"{parsed.whole}", {basis.shape[0]} directions, from_=run, {where}'
    return Edit(
        site=parsed.whole, where=where, text=f"swap({named.removesuffix(', ')})",
        change=Swap(source=FromRun(run, parsed.whole, None), basis=basis),
    )  # fmt: skip


def interchange(
    model: Model,
    behaviour: Behaviour,
    site: str | Site,
    directions: Float[Tensor, "*direction width"],
    *,
    mode: Mode = "denoise",
    metric: str | Metric | None = None,
    positions: Sequence[Coordinate] | Coordinate | None = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Effects:
    """The effect (site, example) of exchanging only a subspace of a site between the prompts.

    `site` is a whole site or one head of it; `positions` are exchanged together (all, when not
    given). Raises `SweepError` or `SiteError`.
    """
    check_direction(mode)
    chosen, place = metric_of(behaviour, metric), model.check_site(site)
    basis = orthonormal(directions)
    named = None if positions is None else named_positions(behaviour.clean, positions)
    n = len(behaviour)
    values, clean, corrupt = np.empty((1, n)), np.empty(n), np.empty(n)
    for where, rows in batches(behaviour, batch_size_for(model, behaviour, batch_size), progress):
        ends = Ends(model, rows, where.start, chosen, [place.whole])
        edit = swapped(place, basis, ends.source(mode), named)
        clean[where], corrupt[where] = ends.measure(ends.clean), ends.measure(ends.corrupt)
        values[0, where] = ends.measure(model.run(ends.base(mode).tokens, edits=[edit]))
    settings = {
        "site": str(place), "directions": basis.shape[0], "mode": mode, "metric": chosen.name,
        "positions": None if named is None else list(named),
    }  # fmt: skip
    return Effects(
        values=xr.DataArray(values, {"site": [str(place)]}, ("site", "example"), chosen.name),
        clean=xr.DataArray(clean, dims="example", name=chosen.name),
        corrupt=xr.DataArray(corrupt, dims="example", name=chosen.name),
        site=str(place), mode=mode, metric=chosen.name,
        provenance=provenance(model, behaviour, settings),
    )  # fmt: skip


def principal_directions(
    model: Model,
    behaviour: Behaviour,
    site: str | Site,
    k: int,
    *,
    positions: Sequence[Coordinate] | Coordinate | None = None,
    batch_size: int | None = None,
) -> Float[Tensor, "direction width"]:
    """The `k` principal components of a site's activations, the largest first.

    Over clean and corrupt prompts together, less their mean; at `positions` (every real token, when
    not given). Raises `SweepError` when there are fewer components than asked for.
    """
    place = model.check_site(site)
    named = None if positions is None else named_positions(behaviour.clean, positions)
    found: list[Tensor] = []
    for _, rows in batches(behaviour, batch_size_for(model, behaviour, batch_size)):
        for tokens in (rows.clean, rows.corrupt):
            values = model.run(tokens, keep=[place.whole])[place].float().cpu()
            if KINDS[place.kind].axes[1] != "position" or values.ndim != 3:
                raise SweepError(
                    f"{str(place)!r} is not one vector per position; name one head, or another "
                    "site."
                )
            if named is None:
                found.append(values[tokens.mask.cpu()])
            else:
                at = positions_of(named, tokens).cpu()
                found.append(values[torch.arange(len(tokens))[:, None], at].flatten(0, 1))
    stacked = torch.cat(found)
    parts = torch.linalg.svd(stacked - stacked.mean(dim=0), full_matrices=False)
    least = _SMALLEST * float(parts.S[0].clamp_min(1e-30))
    there = int(parts.S.gt(least).sum())
    if not 1 <= k <= there:
        raise SweepError(
            f"{str(place)!r} has {there} principal components over these {len(stacked)} vectors; "
            f"ask for 1 to {there} (found {k})."
        )
    return parts.Vh[:k].contiguous()
