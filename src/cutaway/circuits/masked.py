"""The masked forward: every edge of a run switched on or off, or anywhere between.

    input of a reader = stream + Σ_writers (1 − kept) · (replacement − current)

where the sum runs over the writers that the reader reads, `current` is what a writer writes in this
very pass, and `kept` is 1 for an edge that is on. With every edge on this is the model's own pass;
with every edge off each reader sees the replacement run alone; with one edge off it is path
patching of that edge (Goldowsky-Dill et al. 2023). It is one tap over the untouched model:

1. where the stream enters a layer it is kept, and each reader's input is made from it by one matrix
   product of (reader, writer) with (writer, row · position · d_model), per layer of writers;
2. the readers' norms and projections turn those into the sites `q`, `k`, `v` and `mlp_in` (see
   `reading`), which the model goes on with: attention, rotary, masks and MLPs are its own;
3. where a part has written, its change (replacement − current) is kept for later readers;
4. the pass stops at the last stream; the logits' input is made at each prompt's end only.

A post-norm N on the attention spans the heads, so what a reader sees of that layer is
N(Σ_head mixture) of its own mixture, not a sum over heads: there the pass adds
N(own mixture) − N(current) to the stream instead. The norm's scale is never frozen.

Cost over a plain pass, for W writers and R readers in L layers: R·W/2 · d_model multiply-adds per
position for the mixing (a third of GPT-2 small's own), R norms, and each reader's share of the
projection it has anyway. Memory without gradients, per mask, row and position: W · d_model for
the changes and 3 · R/L · d_model for one layer's inputs. With gradients the backward pass needs the
inputs of all layers and what the norms made of them, 3 to 8 times R · d_model by family: that is
measured on one row (`retained`). Masks and rows are run in pieces that keep this within a budget;
with gradients, pieces are run again when their turn comes in the backward pass, so that only one of
them is held (Chen et al. 2016, arXiv:1604.06174).

A pass whose readers below some layer are all on differs from the clean run only from there on, and
only from the first position at which a replacement differs: `Resumed` says which part is run
(see `model.resume`).
"""

from __future__ import annotations

from contextlib import nullcontext, suppress
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from cutaway.circuits.checks import whole_number
from cutaway.circuits.graph import CircuitError, Graph
from cutaway.circuits.places import Places
from cutaway.circuits.reading import Reading, Readings
from cutaway.circuits.retained import retained
from cutaway.circuits.writing import Change, heads_change, mlp_change, part_change
from cutaway.circuits.written import Written
from cutaway.model.memory import free_memory
from cutaway.model.model import Model
from cutaway.model.ports import Passing
from cutaway.model.resume import Base, resume
from cutaway.model.sites import Site
from cutaway.model.tokens import Tokens

_MOST = 2**30


class _Done(Exception):  # noqa: N818
    """Ends a pass once the last stream is known."""


@dataclass(frozen=True, kw_only=True)
class Resumed:
    """Where a pass is taken up, given that every reader before is on."""

    base: Base
    """The clean run, with the streams that enter its layers."""
    written: Written
    """What its writers wrote."""
    rows: Int[Tensor, " row"]
    """Which of its rows are run."""
    layer: int
    """The first layer that has an edge off."""
    start: int
    """The first position at which a replacement differs from the clean run."""


class Masked:
    """A model with its edges to switch."""

    def __init__(
        self, model: Model, graph: Graph | None = None, *, memory: int | None = None
    ) -> None:
        """`graph` are the edges to switch: those of `Graph.of(model)`, or of a graph that is split.

        `memory` bounds what the changes and inputs of one piece may take, in bytes. Raises
        `CircuitError` for another model's graph, and for a model whose readers cannot be
        understood.
        """
        self.model, self.graph = model, Graph.of(model) if graph is None else graph
        self.graph.check(model)
        self.readings = Readings(model, self.graph)
        most = min(_MOST, free_memory(model.device) // 2)
        self.memory = most if memory is None else whole_number("memory", memory, 1)
        self._retained: dict[tuple[int, int], int] = {}

    @classmethod
    def of(
        cls, model: Model | Masked, graph: Graph | None = None, *, memory: int | None = None
    ) -> Masked:
        """What is given, when it has these edges to switch within this memory; else made anew."""
        if not isinstance(model, Masked):
            return cls(model, graph, memory=memory)
        wanted = model.graph if graph is None else graph
        bound = model.memory if memory is None else memory
        if (wanted, bound) == (model.graph, model.memory):
            return model
        return cls(model.model, wanted, memory=bound)

    def end_logits(
        self,
        tokens: Tokens,
        kept: Float[Tensor, "mask reader writer"],
        replacement: Written,
        end: Int[Tensor, " row"],
        resumed: Resumed | None = None,
    ) -> Float[Tensor, "mask row vocab"]:
        """The logits at each prompt's `end` under each mask, differentiable in `kept`.

        `kept` is 1 for an edge that is on and 0 for one that is off; entries that are no edges do
        not count. `resumed` says what part of the pass is to be run (all of it, when not given).
        Raises `CircuitError` for a mask of another shape.
        """
        shape = self.graph.valid.shape
        if kept.ndim != 3 or tuple(kept.shape[1:]) != shape:
            raise CircuitError(
                f"A mask of this model has the shape (mask, {shape[0]} readers, {shape[1]} "
                f"writers); found {tuple(kept.shape)}."
            )
        grown = torch.is_grad_enabled() and (
            kept.requires_grad or any(x.requires_grad for x in replacement.tensors())
        )
        each = self.bytes_per_row(_width(tokens, resumed))
        if grown:
            # What is kept, and gradients of as much in the backward pass.
            each += 2 * self._bytes_retained(tokens, kept, replacement, end, resumed)
        most = max(1, self.memory // each)
        rows, some = _pieces(len(end), most), _pieces(len(kept), max(1, most // len(end)))

        def piece(where: slice, masks: slice) -> Tensor:
            if not grown or len(rows) * len(some) == 1:
                return self._run(tokens, kept[masks], replacement, end, resumed, where)
            return checkpoint(
                self._run, tokens, kept[masks], replacement, end, resumed, where,
                use_reentrant=False, preserve_rng_state=False,
            )  # fmt: skip

        return torch.cat([
            torch.cat([piece(where, masks) for where in rows], dim=1) for masks in some
        ])  # fmt: skip

    def bytes_per_row(self, width: int) -> int:
        """What one row of one mask takes without gradients, in bytes."""
        graph, size = self.graph, torch.empty((), dtype=self.model.dtype).element_size()
        readers = 3 * (graph.n_heads + graph.n_kv_heads) + 12
        return width * self.model.d_model * (len(graph.writers) + readers) * size

    def _bytes_retained(
        self, tokens: Tokens, kept: Tensor, replacement: Written, end: Tensor,
        resumed: Resumed | None,
    ) -> int:  # fmt: skip
        """What one row of one mask keeps for the backward pass, in bytes."""
        at = _width(tokens, resumed), 0 if resumed is None else resumed.layer
        if at not in self._retained:
            first = slice(0, 1)
            self._retained[at] = retained(
                lambda: self._run(tokens, kept[first], replacement, end, resumed, first),
                [*self.model.hf.parameters(), *replacement.tensors()],
            )
        return self._retained[at]

    def _run(
        self, tokens: Tokens, kept: Tensor, replacement: Written, end: Tensor,
        resumed: Resumed | None, rows: slice,
    ) -> Tensor:  # fmt: skip
        model, many = self.model, len(kept)
        chosen = torch.arange(len(end))[rows]
        grown = torch.is_grad_enabled() and (
            kept.requires_grad or any(x.requires_grad for x in replacement.tensors())
        )
        start = 0 if resumed is None else resumed.start
        places = Places.of(self.graph, tokens.rows(chosen).to(model.device), start)
        tap = _Pass(
            self, kept, replacement.rows(rows), end[rows], resumed, rows, places, grown=grown
        )
        with nullcontext() if grown else torch.no_grad():
            if resumed is None:
                batch = tokens.rows(chosen.repeat(many)).to(model.device)
                with suppress(_Done), model.connected([tap]):
                    model.forward(batch, use_cache=False)
            else:
                self._resume(resumed, tap, rows, many)
            assert tap.last is not None
            read = model.anatomy.final_norm.forward(tap.last[:, None])
            return model.unembed(read)[:, 0].unflatten(0, (many, len(chosen)))

    def _resume(self, resumed: Resumed, tap: _Pass, rows: slice, many: int) -> None:
        chosen = resumed.rows[rows].repeat(many)
        stream = resumed.base.run[Site("resid_pre", resumed.layer)]
        stream = stream[chosen.to(stream.device), resumed.start :]
        with suppress(_Done):
            resume(
                self.model, resumed.base, chosen, resumed.layer, resumed.start, stream,
                Site("logits"), [tap],
            )  # fmt: skip


class _Pass:
    """The tap of one masked forward: `many` masks, the rows of one after those of another.

    Streams and changes are kept with their tokens sorted by group (see `places`).
    """

    def __init__(
        self, owner: Masked, kept: Tensor, replacement: Written, end: Tensor,
        resumed: Resumed | None, rows: slice, places: Places, *, grown: bool,
    ) -> None:  # fmt: skip
        model = owner.model
        self.model, self.graph, self.readings = model, owner.graph, owner.readings
        self.off = (1 - kept).to(model.device, model.dtype)
        self.many, self.grown, self.places = len(kept), grown, places
        self.first = 0 if resumed is None else resumed.layer
        start = 0 if resumed is None else resumed.start
        self.replacement = replacement.after(start).map(places.spread)
        self.ends = places.at(end.to(model.device) - start)
        self.streams: dict[Site, Tensor] = {}
        self.posts: dict[int, Tensor] = {}
        self.last: Tensor | None = None
        """(mask · row, d_model): what the logits read."""
        self.changes: list[Change] = []
        self.block: Tensor | None = None
        if resumed is not None:
            before = resumed.written.rows(resumed.rows[rows]).after(start)
            self._known(before.map(lambda x: x.repeat(self.many, *[1] * (x.ndim - 1))))

    def _known(self, current: Written) -> None:
        """The changes of the writers before the first layer that runs."""
        self._wrote(Site("resid_pre", 0), current.input)
        for layer in range(self.first):
            if layer in current.post:
                self.posts[layer] = self._by_mask(current.post[layer])
            self._wrote(Site("z", layer), current.z[layer])
            self._wrote(Site("mlp_out", layer), current.mlp[layer])

    def wants(self, site: Site) -> bool:
        """Streams, what is read and what is written, from the first layer that runs on."""
        if site.layer is None:
            return site.kind == "resid_final"
        if site.layer < self.first:
            return False
        if site.kind == "mlp_post":
            return site.layer in self.graph.alone
        return site in self.readings.by_site or site.kind in (
            "resid_pre", "resid_mid", "z", "mlp_out",
        )  # fmt: skip

    def __call__(self, site: Site, x: Tensor, now: Passing) -> Tensor:
        """Keep streams and changes; give readers their own inputs; stop at the end."""
        if site.kind == "resid_final":
            self.last = self._at_end(x)
            raise _Done
        reading = self.readings.by_site.get(site)
        if reading is not None:
            return self._read(reading, x)
        if site.kind in ("resid_pre", "resid_mid"):
            self.streams[site] = self._by_mask(x.clone())
        if site.kind == "mlp_post" and site.layer is not None:
            self.posts[site.layer] = self._by_mask(x)
        if site.kind in ("z", "mlp_out") or (site == Site("resid_pre", 0) and not self.changes):
            self._wrote(site, x)
        return x

    def _by_mask(self, x: Tensor) -> Tensor:
        return self.places.sorted(x.unflatten(0, (self.many, -1)))

    def _read(self, reading: Reading, x: Tensor) -> Tensor:
        off, reach = self.off[:, reading.rows], int(self.graph.reach[reading.rows.start])
        # With a shared key, what passes here was made from that key's own input.
        as_it_is = not self.grown and not self.graph.shared_key
        if as_it_is and not bool(off[:, :, :reach].any()):
            return x
        stream = self.streams[self.readings.stream_site(reading)]
        earlier = [change.until(reach) for change in self.changes]
        changes = [change for change in earlier if change]
        by_group = off.unflatten(1, (reading.many, -1)).unbind(dim=2)
        mixed = [
            self._mixed(stream[:, :, where], share, [change.part(where) for change in changes])
            for where, share in zip(self.places.parts, by_group, strict=True)
        ]
        found = self.places.restored(reading(mixed[0] if len(mixed) == 1 else torch.cat(mixed, 3)))
        ahead = x.shape[1] - found.shape[1]  # latent attention's keys of earlier positions
        return torch.cat([x[:, :ahead], found], dim=1) if ahead else found

    def _mixed(self, stream: Tensor, off: Tensor, changes: list[Change]) -> Tensor:
        """(mask, reader, row, position, d_model): each reader's own input."""
        mixed = stream[:, None].expand(-1, off.shape[1], *[-1] * (stream.ndim - 1))
        for change in changes:
            share = off[:, :, change.columns]
            if self.grown or bool(share.any()):
                mixed = change.added(mixed, share)
        return mixed

    def _wrote(self, site: Site, x: Tensor) -> None:
        graph, layer = self.graph, site.layer or 0
        now, instead = self._by_mask(x), self.replacement
        if site.kind == "z":
            columns = graph.columns(layer, "head")
            change = heads_change(self.model, layer, columns, now, instead.z[layer])
        elif site.kind == "mlp_out":
            post = self.posts.get(layer), instead.post.get(layer)
            change = mlp_change(self.model, graph, layer, now, instead.mlp[layer], *post)
        else:
            change = part_change(slice(0, 1), now, instead.input)
        self.changes.append(change if self.grown else self._together(change))

    def _together(self, change: Change) -> Change:
        """One change with the one before, in one block of memory, where neither has a post-norm.

        So that a reader's input is one matrix product, and not one for every layer before it.
        """
        if change.norm is not None:
            return change
        columns, values = change.columns, change.values
        if self.block is None:
            many, writers = values.shape[0], len(self.graph.writers)
            self.block = values.new_empty(many, writers, *values.shape[2:])
        self.block[:, columns] = values
        first = columns.start
        if self.changes and self.changes[-1].norm is None:
            first = self.changes.pop().columns.start
        columns = slice(first, columns.stop)
        return Change(columns=columns, values=self.block[:, columns])

    def _at_end(self, x: Tensor) -> Tensor:
        rows, position = self.ends
        stream = self._by_mask(x)[:, rows, position]
        changes = [change.at(rows, position) for change in self.changes]
        return self._mixed(stream, self.off[:, -1:], changes).flatten(0, 2)


def _pieces(many: int, most: int) -> list[slice]:
    return [slice(start, min(start + most, many)) for start in range(0, many, most)]


def _width(tokens: Tokens, resumed: Resumed | None) -> int:
    return tokens.ids.shape[1] - (0 if resumed is None else resumed.start)
