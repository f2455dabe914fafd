"""Parts of a model computed again, each reader from a stream put together for it alone.

A reader's stream is that of some prompts, with what chosen writers write replaced (see `writing`
for post-norms). A part is computed from its readers' streams by the model's own layer: the readers'
norms and projections are those of `reading`, and attention and MLP are run by `model.resume` from
that layer on, up to what the part writes; by the whole forward where a model cannot be taken up.

All prompts are run once and kept where that fits in `memory`: (4 layers + 2) · d_model numbers for
each of their tokens. Otherwise they are run again when they are drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cutaway.circuits.graph import Reader, Writer
from cutaway.circuits.hypotheses import Kind
from cutaway.circuits.masked import Masked
from cutaway.circuits.reading import Reading
from cutaway.circuits.writing import heads_change
from cutaway.circuits.written import sites
from cutaway.measure.finite import check_streams
from cutaway.model.ports import Passing
from cutaway.model.resume import Base, finish, probed, resume, run_streams
from cutaway.model.run import Run
from cutaway.model.sites import Site
from cutaway.model.tokens import Tokens

Parts = Mapping[Writer, Float[Tensor, "row position _"]]
"""What writers write: a head's z (d_head), anything else what it adds to the stream (d_model)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """Some prompts as the model computes them."""

    rows: Int[Tensor, " row"]
    """Which of the prompts."""
    kept: Mapping[Site, Tensor]
    """What passes at the sites that writers write and readers read."""

    def own(self, writer: Writer) -> Tensor:
        """What a writer writes on these prompts."""
        if writer.layer is None:
            return self.kept[Site("resid_pre", 0)]
        if writer.kind == "mlp":
            return self.kept[Site("mlp_out", writer.layer)]
        return self.kept[Site("z", writer.layer)][:, :, writer.head]


Source = tuple[Seen, Parts]
"""Which prompts a stream is that of, and what is replaced in it."""


class Recomputing:
    """A model and some prompts, with all that is needed to compute parts again."""

    def __init__(self, on: Masked, tokens: Tokens, *, batch_size: int, memory: int) -> None:
        """Raises `SiteError` where activations are not finite."""
        self.model, self.graph, self.readings = on.model, on.graph, on.readings
        model = on.model
        self.tokens = tokens.to(model.device)
        streams = [self.readings.stream_site(one) for one in self.readings.by_site.values()]
        self._sites = list(dict.fromkeys([*sites(model), *streams, Site("resid_final")]))
        none = torch.empty(len(tokens), 0, model.d_vocab)
        whole = Run(logits=none, tokens=self.tokens, kept={})
        self._base = Base(run=whole, keys=())
        self._resumes = probed(model)[1] is None
        self._all: Mapping[Site, Tensor] | None = None
        if self.bytes_kept(self.tokens.ids.numel()) <= memory:
            starts = range(0, len(tokens), batch_size)
            everyone = torch.arange(len(tokens))
            parts = [self._run(everyone[start : start + batch_size]) for start in starts]
            self._all = {site: torch.cat([part[site] for part in parts]) for site in self._sites}

    def bytes_kept(self, tokens: int) -> int:
        """What keeping so many tokens takes, in bytes."""
        each = (4 * self.model.n_layers + 2) * self.model.d_model
        return tokens * each * torch.empty((), dtype=self.model.dtype).element_size()

    def seen(self, rows: Int[Tensor, " row"]) -> Seen:
        """Some of the prompts, run or kept."""
        if self._all is None:
            return Seen(rows=rows, kept=self._run(rows))
        at = rows.to(self.model.device)
        return Seen(rows=rows, kept=_Picked(self._all, at))

    def computed(
        self, writers: Sequence[Writer], inputs: Mapping[Kind, Source], known: Parts
    ) -> Parts:
        """What parts (in the order of writing) write, each kind of reader with its own stream.

        Each part also reads what is `known`, and what those before it were computed to write.
        """
        found = dict(known)
        for (layer, kind), group in groupby(writers, key=lambda one: (one.layer, one.kind)):
            assert layer is not None
            if kind == "mlp":
                found[next(group)] = self._layer(layer, ("mlp",), inputs, found, "mlp_out")
                continue
            z = self._layer(layer, ("q", "k", "v"), inputs, found, "z")
            for writer in group:
                assert writer.head is not None
                found[writer] = z[:, :, writer.head]
        return found

    def logits(self, source: Source, end: Int[Tensor, " row"]) -> Float[Tensor, "row vocab"]:
        """The logits at the prompts' ends."""
        stream = self._stream(Site("resid_final"), Reader("logits"), source)
        last = stream[torch.arange(len(stream), device=stream.device), end.to(stream.device)]
        with torch.no_grad():
            return self.model.unembed(finish(self.model, last)[:, None])[:, 0]

    def _run(self, rows: Int[Tensor, " row"]) -> Mapping[Site, Tensor]:
        run = run_streams(self.model, self.tokens.rows(rows.to(self.model.device)), self._sites)
        check_streams(self.model, run, int(rows[0]), "clean")
        return run.kept

    def _layer(
        self, layer: int, kinds: Sequence[Kind], inputs: Mapping[Kind, Source],
        found: Parts, until: str,
    ) -> Tensor:  # fmt: skip
        """What passes at a site of a layer whose readers read these streams."""
        given: dict[Site, Tensor] = {}
        for reading in self.readings.of(layer):
            kind = _kind(reading)
            if kind not in kinds:
                continue
            seen, parts = inputs[kind]
            first = self.graph.readers[reading.rows.start]
            site, many = self.readings.stream_site(reading), reading.rows.stop - reading.rows.start
            own = self._stream(site, first, (seen, {**parts, **found}))
            with torch.no_grad():
                given[reading.site] = reading(own.expand(1, many, -1, -1, -1))
        seen = inputs[kinds[0]][0]
        entry = Site("resid_pre", layer)
        if self._resumes:
            return resume(
                self.model, self._base, seen.rows, layer, 0, seen.kept[entry], Site(until, layer),
                [_Given(given)],
            )  # fmt: skip
        given[entry] = seen.kept[entry]
        return resume(
            self.model, self._base, seen.rows, 0, 0, seen.kept[Site("resid_pre", 0)],
            Site(until, layer), [_Given(given)],
        )  # fmt: skip

    def _stream(self, site: Site, reader: Reader, source: Source) -> Tensor:
        """(row, position, d_model): a reader's stream on these prompts, with parts replaced."""
        seen, parts = source
        stream = seen.kept[site]
        read = self.graph.writers[: self.graph.reaches(reader)]
        for (layer, kind), group in groupby(
            (one for one in read if one in parts), key=lambda one: (one.layer, one.kind)
        ):
            writers = list(group)
            if kind != "head":
                stream = stream + (parts[writers[0]] - seen.own(writers[0]))
                continue
            assert layer is not None
            stream = self._with_heads(stream, layer, writers, source)
        return stream

    def _with_heads(
        self, stream: Tensor, layer: int, writers: Sequence[Writer], source: Source
    ) -> Tensor:
        seen, parts = source
        now = seen.kept[Site("z", layer)]
        instead = now.clone()
        for writer in writers:
            assert writer.head is not None
            instead[:, :, writer.head] = parts[writer]
        everyone = slice(0, self.graph.n_heads)
        with torch.no_grad():
            change = heads_change(self.model, layer, everyone, now[None], instead)
            share = stream.new_ones(1, 1, self.graph.n_heads)
            return change.added(stream[None, None], share)[0, 0]


def _kind(reading: Reading) -> Kind:
    """Which claims a reading belongs to: the rotary key that heads share goes with their keys."""
    if reading.kind == "kr":
        return "k"
    assert reading.kind != "logits"
    return reading.kind


class _Picked(Mapping[Site, Tensor]):
    """Rows of what is kept, taken when they are asked for."""

    def __init__(self, kept: Mapping[Site, Tensor], rows: Tensor) -> None:
        self._kept, self._rows = kept, rows

    def __getitem__(self, site: Site) -> Tensor:
        return self._kept[site][self._rows]

    def __iter__(self):
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)


class _Given:
    """The tap that gives readers what was made for them."""

    def __init__(self, values: Mapping[Site, Tensor]) -> None:
        self.values = values

    def wants(self, site: Site) -> bool:
        return site in self.values

    def __call__(self, site: Site, x: Tensor, now: Passing) -> Tensor:
        return self.values[site]
