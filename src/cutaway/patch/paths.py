"""Path patching: change what one part writes as one other part reads it, and nothing else.

Wang et al. 2022, "Interpretability in the Wild", appendix B; Goldowsky-Dill et al. 2023,
"Localizing Model Behavior with Path Patching". For senders S and receivers R:

1. run the base and the source prompts, and keep what every head and MLP writes;
2. run the base prompts with the senders as in the source and every other head and MLP held at the
   base run: what senders changed goes on through the residual stream alone. Mediators (`through`)
   are not held, so that paths through them (any chain of them) count too. Keep what the receivers
   read: the model's own norms and projections have made it from the changed stream;
3. run the base prompts with the receivers' inputs as just kept and everything else left to
   compute; measure. For the logits as the only receiver, step 2 has measured it already; beside
   others, what step 2 added to the final stream is added.

Heads are held at `z`, so that biases, post-norms and residual multipliers are the model's own;
receivers do not pass on to one another in step 2, as in the paper. A part that writes after a
receiver has read has no path to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import xarray as xr

from cutaway.behaviours.behaviour import Behaviour
from cutaway.behaviours.metrics import Metric
from cutaway.measure.batches import Progress, batch_size_for, batches, named_positions
from cutaway.measure.result import provenance
from cutaway.model.edits import Edit, add, replace
from cutaway.model.model import Model
from cutaway.model.run import Run
from cutaway.model.sites import Site
from cutaway.patch.cells import Coordinate, SweepError
from cutaway.patch.effects import Effects
from cutaway.patch.ends import Ends, check_direction, metric_of
from cutaway.patch.sources import Mode

Sender = str | Site
"""`head_out.L.H`, `head_out.L` (all its heads), `mlp_out.L` or `embed`."""
Senders = str | Sequence[Sender | Sequence[Sender]]
"""A kind ("head_out", "mlp_out") for each of its parts, or senders, one cell each; a sender that is
itself a list is patched together as one cell (none at all changes nothing)."""
Positions = Sequence[Coordinate] | Coordinate | None

_SENDERS, _RECEIVERS = ("embed", "head_out", "mlp_out"), ("q", "k", "v", "mlp_in", "logits")


def path_patch(
    model: Model,
    behaviour: Behaviour,
    senders: Senders,
    receivers: Sequence[str | Site] | str | Site = "logits",
    *,
    through: Sequence[Sender] = (),
    mode: Mode = "denoise",
    metric: str | Metric | None = None,
    positions: Positions = None,
    receiver_positions: Positions = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Effects:
    """The effect of each sender along its paths into the receivers, all receivers together.

    `receivers` are `q.L.H`, `k.L.G`, `v.L.G` (without an index: all heads), `mlp_in.L` and
    `logits`; `through` are mediators, written as senders are. Senders change at `positions` and
    receivers at `receiver_positions` (everywhere, when not given). The cell axes are `layer` and
    `head` when a kind of sender is given (parts without a path change nothing), else `sender`.
    Raises `SweepError` or `SiteError` for what does not exist or has no path.
    """
    check_direction(mode)
    chosen = metric_of(behaviour, metric)
    plan = _planned(model, behaviour, senders, receivers, through, positions, receiver_positions)
    size = batch_size_for(model, behaviour, batch_size)
    n, done, total = len(behaviour), 0, len(plan.cells) * -(-len(behaviour) // size)
    values, clean, corrupt = np.empty((len(plan.cells), n)), np.empty(n), np.empty(n)
    for where, rows in batches(behaviour, size):
        ends = Ends(model, rows, where.start, chosen, plan.kept(model))
        clean[where], corrupt[where] = ends.measure(ends.clean), ends.measure(ends.corrupt)
        unchanged = corrupt if mode == "denoise" else clean
        for cell, together in enumerate(plan.cells):
            reach = [site for site in together if plan.reaches(model, site)]
            values[cell, where] = (
                ends.measure(_patched(model, ends.base(mode), ends.source(mode), plan, reach))
                if reach
                else unchanged[where]
            )
            done += 1
            if progress is not None:
                progress(done, total)
    shape = (*(len(along) for along in plan.axes.values()), n)
    return Effects(
        values=xr.DataArray(
            values.reshape(shape), {axis: list(along) for axis, along in plan.axes.items()},
            (*plan.axes, "example"), chosen.name,
        ),
        clean=xr.DataArray(clean, dims="example", name=chosen.name),
        corrupt=xr.DataArray(corrupt, dims="example", name=chosen.name),
        site=str(plan), mode=mode, metric=chosen.name,
        provenance=provenance(
            model, behaviour, {"paths": str(plan), "mode": mode, "metric": chosen.name}
        ),
    )  # fmt: skip


@dataclass(frozen=True)
class _Plan:
    axes: Mapping[str, Sequence[int] | Sequence[str]]
    cells: tuple[tuple[Site, ...], ...]
    receivers: tuple[Site, ...]
    through: tuple[Site, ...]
    positions: tuple[Coordinate, ...] | None
    receiver_positions: tuple[Coordinate, ...] | None

    def kept(self, model: Model) -> list[Site]:
        """What both plain runs keep."""
        return [
            site for site in model.sites if site.kind in ("embed", "z", "mlp_out", "resid_final")
        ]

    def reaches(self, model: Model, sender: Site) -> bool:
        """Whether any receiver reads after the sender has written."""
        return any(_writes(sender) < _reads(model, receiver) for receiver in self.receivers)

    def __str__(self) -> str:
        into = ", ".join(map(str, self.receivers))
        by_way = f" through {', '.join(map(str, self.through))}" if self.through else ""
        at = f" at {list(self.positions)}" if self.positions is not None else ""
        ends = self.receiver_positions
        return f"{' × '.join(self.axes)}{at} → {into}{f' at {list(ends)}' if ends else ''}{by_way}"


def _planned(
    model: Model, behaviour: Behaviour, senders: Senders, receivers: object,
    through: Sequence[Sender], positions: Positions, receiver_positions: Positions,
) -> _Plan:  # fmt: skip
    """Everything asked for, checked."""
    axes, cells = _cells(model, senders)
    into = [receivers] if isinstance(receivers, (str, Site)) else receivers
    assert isinstance(into, Sequence)
    plan = _Plan(
        axes=axes,
        cells=cells,
        receivers=tuple(_part(model, each, "receiver", _RECEIVERS) for each in into),
        through=tuple(_part(model, each, "mediator", _SENDERS[1:]) for each in through),
        positions=None if positions is None else named_positions(behaviour.clean, positions),
        receiver_positions=None if receiver_positions is None
        else named_positions(behaviour.clean, receiver_positions),
    )  # fmt: skip
    if not plan.receivers:
        raise SweepError("There is no receiver; give at least one, for example 'logits'.")
    asked = () if isinstance(senders, str) and senders in _SENDERS[1:] else cells
    named = [site for cell in asked for site in cell]
    for site in (*named, *plan.through):
        if not plan.reaches(model, site):
            raise SweepError(
                f"{str(site)!r} writes after {', '.join(repr(str(r)) for r in plan.receivers)} "
                "has read, so there is no path; choose an earlier part, or a later receiver."
            )
    shared = set(_split(model, plan.through)) & set(_split(model, named))
    if shared:
        raise SweepError(
            f"{str(min(shared))!r} is both a sender and a mediator; a sender is set to what the "
            "source run has, so leave it out of through."
        )
    return plan


def _cells(
    model: Model, senders: Senders
) -> tuple[dict[str, Sequence[int] | Sequence[str]], tuple[tuple[Site, ...], ...]]:
    """The cell axes, and what each cell sends."""
    layers, heads = range(model.n_layers), range(model.n_heads)
    if senders == "head_out":
        pairs = product(layers, heads)
        return {"layer": layers, "head": heads}, tuple((Site("head_out", *at),) for at in pairs)
    if senders == "mlp_out":
        return {"layer": layers}, tuple((Site("mlp_out", layer),) for layer in layers)
    listed: Sequence[Sender | Sequence[Sender]] = (
        [senders] if isinstance(senders, str) else list(senders)
    )
    if not listed:
        raise SweepError("There is no sender; give a kind ('head_out'), or a list of senders.")
    cells = tuple(
        tuple(
            _part(model, site, "sender", _SENDERS)
            for site in ([each] if isinstance(each, (str, Site)) else each)
        )
        for each in listed
    )
    names = [" + ".join(map(str, cell)) or "nothing" for cell in cells]
    return {"sender": names}, cells


def _part(model: Model, site: str | Site, role: str, kinds: Sequence[str]) -> Site:
    """A site that exists and can play its role."""
    parsed = Site.parse(site)
    if parsed.kind not in kinds:
        raise SweepError(
            f"{str(site)!r} cannot be a {role}; give one of the kinds {', '.join(kinds)}."
        )
    return model.check_site(parsed)


def _split(model: Model, sites: Sequence[Site]) -> Iterator[Site]:
    """Sites with every head by itself."""
    for site in sites:
        if site.kind == "head_out" and site.index is None:
            yield from (Site("head_out", site.layer, head) for head in range(model.n_heads))
        else:
            yield site


def _writes(site: Site) -> int:
    """When a sender has written: four steps a layer (attention reads, writes; MLP the same)."""
    if site.layer is None:
        return -1
    return 4 * site.layer + (1 if site.kind == "head_out" else 3)


def _reads(model: Model, site: Site) -> int:
    """When a receiver reads; side by side with the attention in parallel layers."""
    if site.layer is None:
        return 4 * model.n_layers
    return 4 * site.layer + (2 if site.kind == "mlp_in" and not model.parallel else 0)


def _patched(
    model: Model, base: Run, source: Run, plan: _Plan, senders: Sequence[Site]
) -> Run:  # fmt: skip
    """The base run with the receivers' inputs as the senders' changes make them."""
    final, logits = Site("resid_final"), Site("logits")
    inner = [site for site in plan.receivers if site != logits]
    keep = [*(site.whole for site in inner), *([final] if len(inner) < len(plan.receivers) else [])]
    held = _held(model, base, plan, min(site.layer or 0 for site in senders))
    sent = [_sent(site, source, plan.positions) for site in senders]
    changed = model.run(base.tokens, edits=[*held, *sent], keep=keep)
    if not inner:
        return changed
    edits = [
        replace(site, from_=changed, position=plan.receiver_positions) for site in inner
    ]  # fmt: skip
    if final in keep:
        edits.append(add(final, changed[final] - base[final]))
    return model.run(base.tokens, edits=edits)


def _held(model: Model, base: Run, plan: _Plan, first: int) -> list[Edit]:
    """Every head and MLP from a layer on held at the base run, except mediators."""
    free = set(_split(model, plan.through))
    edits: list[Edit] = []
    for layer in range(first, model.n_layers):
        heads = [h for h in range(model.n_heads) if Site("head_out", layer, h) not in free]
        if heads:
            every = len(heads) == model.n_heads
            edits.append(replace(Site("z", layer), from_=base, head=None if every else heads))
        if Site("mlp_out", layer) not in free:
            edits.append(replace(Site("mlp_out", layer), from_=base))
    return edits


def _sent(site: Site, source: Run, positions: tuple[Coordinate, ...] | None) -> Edit:
    """A sender as in the source run; a head by its z."""
    place = Site("z", site.layer, site.index) if site.kind == "head_out" else site
    return replace(place, from_=source, position=positions)
