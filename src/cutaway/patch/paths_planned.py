"""Path patching without a forward pass per cell; exact.

With every other part held, what senders change goes on through the residual stream alone. So:

1. what senders write is changed by Δ (`sent`), and the stream at a later receiver is the base run's
   plus the Δ of all senders that write before it. No layer is run for that;
2. a receiver's new input is made by the model's own norm and projection: its layer is given that
   stream and stopped once the input has passed (`model.resume`). A layer with mediators is run with
   every other head held, up to what they write, whose change is added to Δ;
3. from the earliest receiver that changed, and the first changed position on, the model's own
   layers run with the receivers' inputs put in. For the logits, Δ is added to the last stream.

Many cells go in one batch, as many as memory allows; prompts in which no sender differs keep the
base run's metric.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from cutaway.behaviours.behaviour import Behaviour
from cutaway.behaviours.metrics import Metric
from cutaway.measure.batches import Progress, batches
from cutaway.measure.finite import check_streams
from cutaway.model.memory import free_memory
from cutaway.model.model import Model
from cutaway.model.resume import has_halves, probed, resume, run_base
from cutaway.model.run import Recorder
from cutaway.model.select import positions_of
from cutaway.model.sites import Site
from cutaway.patch.cells import Coordinate
from cutaway.patch.costs import Costs, costs_of, site_bytes
from cutaway.patch.readout import Put, Readout, Values, in_pieces, most_rows, to_end
from cutaway.patch.routes import Routes, reads, writes
from cutaway.patch.sent import Sent, Window
from cutaway.patch.sources import Mode

_STREAM_PARTS = ("resid_pre", "attn_out", "mlp_out", "resid_post")


_KEPT_BYTES = 512 * 2**20
"""How much memory what a batch's two runs keep may take."""


def rows_for(model: Model, behaviour: Behaviour, asked: Routes) -> int:
    """How many pairs a batch may have, for what its two runs keep."""
    width = int(behaviour.clean.ids.shape[1])
    each = sum(site_bytes(model, site, width) for site in _kept(model, asked))
    each += width * costs_of(model).keys * model.n_layers
    return max(1, _KEPT_BYTES // (2 * each))


def why_not(model: Model, behaviour: Behaviour) -> str | None:
    """Why a model's path patching cannot be planned; None when it can.

    Measured: the model's forward can be taken up in its middle, and on the first prompt every layer
    hands on stream + attn_out + mlp_out.
    """
    _, reason = probed(model)
    if reason is not None:
        return reason
    kept = [site for site in model.sites if site.kind in _STREAM_PARTS]
    run = model.run(behaviour.clean.rows([0]), keep=kept)
    for layer in range(model.n_layers):
        before, attention, mlp, after = (run[Site(kind, layer)] for kind in _STREAM_PARTS)
        if bool((before + attention + mlp - after).norm() > 1e-2 * after.norm()):
            return f"layer {layer} hands on more than its stream and what its parts add"
    return None


def run_cells(
    model: Model,
    behaviour: Behaviour,
    asked: Routes,
    *,
    mode: Mode,
    metric: Metric,
    batch_size: int,
    memory: int | None,
    progress: Progress | None,
) -> Values:
    """Measure every cell; `progress` counts cells per batch of examples."""
    n, count, costs = len(behaviour), len(asked.cells), costs_of(model)
    found = Values(patched=np.empty((count, n)), clean=np.empty(n), corrupt=np.empty(n))
    done, total = 0, count * -(-n // batch_size)
    for where, rows in batches(behaviour, batch_size):
        batch = _Batch(model, rows, where.start, asked, mode, metric, costs, memory)
        found.clean[where], found.corrupt[where] = batch.ends
        plain = found.corrupt if mode == "denoise" else found.clean
        found.patched[:, where] = plain[where]
        groups = batch.groups()
        done += count - sum(len(entries) for entries in groups.values())
        for (begin, start), entries in groups.items():
            batch.run(begin, start, entries, found.patched[:, where])
            done += len(entries)
            if progress is not None:
                progress(done, total)
        if progress is not None and not groups:
            progress(done, total)
    return found


_Entries = list[tuple[int, Tensor]]
"""Cells, each with the pairs that it changes."""


class _Batch:
    """Some pairs: their two runs, and the cells on them."""

    def __init__(
        self, model: Model, rows: Behaviour, first_row: int, asked: Routes, mode: Mode,
        metric: Metric, costs: Costs, memory: int | None,
    ) -> None:  # fmt: skip
        self.model, self.asked, self.costs = model, asked, costs
        self.budget = free_memory(model.device) // 2 if memory is None else memory
        kept = _kept(model, asked)
        both = [rows.clean, rows.corrupt] if mode == "noise" else [rows.corrupt, rows.clean]
        # Both in the same way, so that what cannot differ does not differ by rounding either.
        self.base = run_base(model, both[0], kept, logits=False)
        source = run_base(model, both[1], kept, logits=False).run
        clean, corrupt = (
            (source, self.base.run) if mode == "denoise" else (self.base.run, source)
        )  # fmt: skip
        check_streams(model, clean, first_row, "clean")
        check_streams(model, corrupt, first_row, "corrupt")
        final = Site("resid_final")
        self.readout = Readout(model, rows, first_row, metric, clean[final])
        every = torch.arange(len(rows), device=model.device)
        self.ends = tuple(
            self.readout(every, self.readout.at_end(run[final])) for run in (clean, corrupt)
        )
        tokens = self.base.run.tokens
        self.width = int(tokens.ids.shape[1])
        steps = torch.arange(self.width, device=model.device)
        until_end = tokens.mask & (steps <= self.readout.end[:, None])
        self.received = until_end & self._at(asked.receiver_positions)
        chosen = until_end & self._at(asked.positions)
        self.sent = Sent(model, self.base, source, asked.positions, chosen)
        self.halves = bool(asked.inner) and not model.parallel and has_halves(model, self.base)

    def _at(self, positions: tuple[Coordinate, ...] | None) -> Tensor:
        """(batch, position): positions as a mask."""
        mask = torch.full_like(self.base.run.tokens.mask, positions is None)
        if positions is not None:
            where = positions_of(positions, self.base.run.tokens)
            mask.scatter_(1, where.to(mask.device), value=True)
        return mask

    def groups(self) -> dict[tuple[int | None, int], _Entries]:
        """The cells by the layer of the first receiver that they reach (None for the logits alone)
        and the first position that they change."""
        found: dict[tuple[int | None, int], _Entries] = defaultdict(list)
        for cell, senders in enumerate(self.asked.cells):
            reach = self.asked.reach(self.model, senders)
            first = self.sent.first(reach)
            rows = (first < self.width).nonzero().flatten()
            if len(rows):
                read = [
                    site.layer for site in self.asked.inner if site.layer is not None
                    and any(writes(sender) < reads(self.model, site) for sender in reach)
                ]  # fmt: skip
                key = (min(read, default=None), int(first[rows].min()))
                found[key].append((cell, rows))
        return dict(found)

    def run(self, begin: int | None, start: int, entries: _Entries, out: np.ndarray) -> None:
        """Measure the cells of a group into (cell, example)."""
        at = torch.tensor([cell for cell, rows in entries for _ in rows])
        rows = torch.cat([rows for _, rows in entries])

        def piece(part: slice) -> np.ndarray:
            pack = _Pack(self, begin, start, at[part], rows[part])
            return self.readout(rows[part], pack.last_stream())

        values = in_pieces(len(rows), self._most(begin, start), piece)
        out[at.numpy(), rows.cpu().numpy()] = values

    def _most(self, begin: int | None, start: int) -> int:
        """How many prompts of cells go together."""
        only_end = begin is None and not self.asked.through
        width = 1 if only_end else self.width - start
        sites = 2 + 2 * len(self.asked.inner) + len(self.asked.through)
        return most_rows(
            self.costs, self.budget, self.width - width, width, sites * self.costs.stream
        )  # fmt: skip


class _Pack:
    """Prompts of several cells that are run together."""

    def __init__(
        self, batch: _Batch, begin: int | None, start: int, cells: Tensor, rows: Tensor
    ) -> None:  # fmt: skip
        self.batch, self.begin, self.start, self.rows = batch, begin, start, rows
        self.model, self.asked, self.sent = batch.model, batch.asked, batch.sent
        self.free = self.asked.mediators(self.model)
        only_end = begin is None and not self.free
        self.window: Window = self._end if only_end else self._rest
        self.parts: list[tuple[frozenset[Site], slice]] = []
        edges = [0, *((cells[1:] != cells[:-1]).nonzero().flatten() + 1).tolist(), len(cells)]
        for first, after in pairwise(edges):
            senders = self.asked.reach(self.model, self.asked.cells[int(cells[first])])
            self.parts.append((frozenset(senders), slice(first, after)))
        self.read: dict[Site, Tensor] = {}

    def _rest(self, x: Tensor) -> Tensor:
        return x[:, self.start :]

    def _end(self, x: Tensor) -> Tensor:
        return self.batch.readout.at_end(x)[:, None]

    def _base(self, kind: str, layer: int) -> Tensor:
        return self.window(self.batch.base.run[Site(kind, layer)])[self.rows]

    def last_stream(self) -> Tensor:
        """(row, d_model): the stream leaving the last layer at each row's end."""
        readout, rows = self.batch.readout, self.rows
        delta = self._changes()
        if self.begin is None:
            last = readout.at_end(self.batch.base.run[Site("resid_final")])[rows]
        else:
            taps = [Put(site, values, self._received(site)) for site, values in self.read.items()]
            last = to_end(
                self.model, self.batch.base, rows, readout.end, self.begin, self.start,
                self._base("resid_pre", self.begin), taps, halves=self.batch.halves,
            )  # fmt: skip
        if not self.asked.to_logits:
            return last
        if delta.shape[1] == 1:
            return last + delta[:, 0]
        at = torch.arange(len(rows), device=delta.device)
        return last + delta[at, (readout.end[rows] - self.start).to(delta.device)]

    def _received(self, site: Site) -> Tensor:
        """(row, position) or (row, position, head): where the receivers of a site read."""
        chosen = self.window(self.batch.received)[self.rows]
        heads = [each.index for each in self.asked.inner if each.whole == site]
        indices = [index for index in heads if index is not None]
        if len(indices) < len(heads):
            return chosen
        among = self.read[site].shape[2]
        here = torch.zeros(among, dtype=torch.bool, device=chosen.device)
        here[indices] = True
        return chosen[:, :, None] & here

    def _changes(self) -> Tensor:
        """The change of the stream, followed to the last receiver; what receivers read is kept."""
        delta = torch.zeros_like(self._base("resid_pre", 0))
        for senders, where in self.parts:
            if Site("embed") in senders:
                delta[where] += self.sent.embedding(self.rows[where], self.window)
        last = max(reads(self.model, site) for site in self.asked.receivers) // 4
        for layer in range(min(last + 1, self.model.n_layers)):
            delta = self._through(layer, delta)
        return delta

    def _through(self, layer: int, delta: Tensor) -> Tensor:
        """The change leaving a layer, from the one entering it."""
        seen = self._seen(layer, delta)
        attention, mlp = Site("attn_out", layer), Site("mlp_out", layer)
        if attention in seen:  # senders held in it
            delta = delta + (seen.pop(attention) - self._base("attn_out", layer))
        else:
            for heads, where in self._sending(layer):
                delta[where] += self.sent.heads(layer, heads, self.rows[where], self.window)
        if mlp in seen:
            change = seen.pop(mlp) - self._base("mlp_out", layer)
        else:
            change = torch.zeros_like(delta)
        for senders, where in self.parts:
            if mlp in senders:
                change[where] = self.sent.mlp(layer, self.rows[where], self.window)
        self.read |= seen
        return delta + change

    def _sending(self, layer: int) -> list[tuple[set[int], slice]]:
        """The heads of a layer that are sent, by where."""
        found: list[tuple[set[int], slice]] = []
        for senders, where in self.parts:
            here = [site for site in senders if site.kind == "head_out" and site.layer == layer]
            heads = {site.index for site in here if site.index is not None}
            if any(site.index is None for site in here):
                heads = set(range(self.model.n_heads))
            if heads:
                found.append((heads, where))
        return found

    def _seen(self, layer: int, delta: Tensor) -> dict[Site, Tensor]:
        """What a layer's receivers read and its mediators write when the change enters it."""
        wanted = {
            site.whole for site in self.asked.inner
            if site.layer == layer and self.begin is not None and layer >= self.begin
        } | {
            Site("attn_out" if site.kind == "head_out" else "mlp_out", layer)
            for site in self.free if site.layer == layer
        }  # fmt: skip
        if not wanted:
            return {}
        recorder = Recorder(wanted)
        taps = [recorder]
        if any(site.kind in ("mlp_in", "mlp_out", "attn_out") for site in wanted):
            taps = [self._held(layer), recorder]
        stream = self._base("resid_pre", layer) + delta
        until = self._until(layer, wanted)
        resume(
            self.model, self.batch.base, self.rows, layer, self.start, stream, until, taps
        )  # fmt: skip
        width = stream.shape[1]
        return {site: x[:, -width:] for site, x in recorder.kept.items()}

    def _held(self, layer: int) -> Put:
        """Every head of a layer at the base run, senders at the source's; mediators are free."""
        values = self._base("z", layer)
        held = torch.ones(values.shape[:3], dtype=torch.bool, device=values.device)
        heads = range(self.model.n_heads)
        held[:, :, [head for head in heads if Site("head_out", layer, head) in self.free]] = False
        for sent, where in self._sending(layer):
            values[where] = self.sent.z(layer, sent, self.rows[where], self.window)
            held[where, :, list(sent)] = True
        return Put(Site("z", layer), values, held)

    def _until(self, layer: int, wanted: set[Site]) -> Site:
        """Where all that is wanted of a layer has passed."""
        if len(wanted) == 1:
            return next(iter(wanted))
        if self.model.parallel:
            return Site("resid_post", layer)
        for kind in ("mlp_out", "mlp_in", "attn_out"):
            if Site(kind, layer) in wanted:
                return Site(kind, layer)
        return Site("z", layer)


def _kept(model: Model, asked: Routes) -> list[Site]:
    """What both runs keep."""
    sent: Sequence[Site] = [site for cell in asked.cells for site in cell]
    kept = {Sent.place(site).whole for site in sent} | {Site("resid_pre", 0)}
    for site in (*asked.inner, *asked.through):
        assert site.layer is not None
        kept.add(Site("resid_pre", site.layer))
        if site.kind in ("head_out", "mlp_out", "mlp_in"):
            kept |= {Site(kind, site.layer) for kind in ("z", "attn_out", "mlp_out")}
    if asked.inner:  # what has_halves looks at
        kinds = ("resid_pre",) if model.parallel else ("resid_mid", "resid_post")
        kept |= {site for site in model.sites if site.kind in kinds}
    return sorted(kept, key=str)
