"""The graph of a decoder: who writes into the residual stream, and who reads what was written.

Every part of a decoder reads the stream, which is the sum of what earlier parts wrote. So there is
an edge from each writer to each reader that comes after it (Elhage et al. 2021), and nothing else:

- writers: `input` (the stream as it enters the first layer: token and position embeddings, with
  whatever scaling or norm the family puts on them), each head `a3.h1`, each MLP `m3`;
- readers: each head's query, key and value input `a3.h1<q>`, `a3.h1<k>`, `a3.h1<v>`; where heads
  share keys and values, the shared ones `a3.kv0<k>`, `a3.kv0<v>`; in latent attention also the
  rotary key that all heads share, `a3<kr>`; each MLP `m3`; and `logits`.

In a sequential layer the MLP reads its own layer's heads; in a parallel one it does not. Writers
stand in the order in which they write, so a reader's writers are always the first few of them:
`reach` says how many, and masks and scores are dense (reader, writer) matrices whose valid entries
are each row's first `reach`.

Where an edge starts and ends: it ends in the stream, before the reader's own norm, which is made
afresh from the changed input. It starts at what the part adds to the stream. For an MLP that is
after any post-norm and residual multiplier. A post-norm on the attention (OLMo 2, Gemma 2, GLM 4)
spans the heads, so there a head's edge starts before it, and each reader sees the post-norm of its
own mixture of heads (see `masked`).

Names are those of EAP-IG (Hanna et al. 2024): `a0.h3->a2.h1<q>`, `input->m0`, `m1->logits`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray

from cutaway.errors import CutawayError
from cutaway.model.model import Model

WriterKind = Literal["input", "head", "mlp"]
ReaderKind = Literal["q", "k", "v", "kr", "mlp", "logits"]
Granularity = Literal["edges", "nodes", "layers"]
"""What is switched together: single edges; all edges out of a head or MLP; all edges out of a whole
attention or MLP."""

_END = re.compile(
    r"(?P<whole>input|logits)|m(?P<mlp>\d+)|"
    r"a(?P<layer>\d+)(\.(?P<part>h|kv)(?P<index>\d+))?(<(?P<kind>q|k|v|kr)>)?"
)


class CircuitError(CutawayError):
    """A circuit, mask or edge that does not fit the model or the behaviour."""


@dataclass(frozen=True, order=True)
class Writer:
    """A part that adds to the residual stream."""

    kind: WriterKind
    """Which kind of part it is."""
    layer: int | None = None
    """Its layer; None for the input."""
    head: int | None = None
    """Its head, for heads."""

    def __str__(self) -> str:
        if self.kind == "input":
            return "input"
        return f"m{self.layer}" if self.kind == "mlp" else f"a{self.layer}.h{self.head}"


@dataclass(frozen=True, order=True)
class Reader:
    """A place where the residual stream is read."""

    kind: ReaderKind
    """What reads: a head's query, key or value, the shared rotary key, an MLP, or the logits."""
    layer: int | None = None
    """Its layer; None for the logits."""
    index: int | None = None
    """The head (or the group of heads that shares keys and values)."""
    shared: bool = False
    """Whether `index` counts groups of heads."""

    def __str__(self) -> str:
        if self.kind == "logits":
            return "logits"
        if self.kind == "mlp":
            return f"m{self.layer}"
        part = "" if self.index is None else f".{'kv' if self.shared else 'h'}{self.index}"
        return f"a{self.layer}{part}<{self.kind}>"


@dataclass(frozen=True, order=True)
class Edge:
    """From a writer to a reader that comes after it."""

    writer: Writer
    """Where it starts."""
    reader: Reader
    """Where it ends."""

    def __str__(self) -> str:
        return f"{self.writer}->{self.reader}"


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Every edge that an architecture has."""

    n_layers: int
    """Number of layers."""
    n_heads: int
    """Query heads in a layer."""
    n_kv_heads: int
    """Key and value inputs in a layer: as many as heads, or groups of heads that share them."""
    parallel: bool
    """Whether attention and MLP read the stream side by side."""
    shared_key: bool = False
    """Whether all heads also share a rotary key (latent attention)."""

    @classmethod
    def of(cls, model: Model) -> Graph:
        """The graph of an opened model."""
        latent = model.anatomy.d_key is not None
        return cls(
            n_layers=model.n_layers,
            n_heads=model.n_heads,
            n_kv_heads=model.n_heads if latent else model.n_kv_heads,
            parallel=model.parallel,
            shared_key=latent,
        )

    @cached_property
    def writers(self) -> tuple[Writer, ...]:
        """In the order in which they write."""
        found = [Writer("input")]
        for layer in range(self.n_layers):
            found += [Writer("head", layer, head) for head in range(self.n_heads)]
            found.append(Writer("mlp", layer))
        return tuple(found)

    @cached_property
    def readers(self) -> tuple[Reader, ...]:
        """In the order in which they read."""
        shared = self.n_kv_heads != self.n_heads
        found: list[Reader] = []
        for layer in range(self.n_layers):
            found += [Reader("q", layer, head) for head in range(self.n_heads)]
            for kind in ("k", "v"):
                found += [Reader(kind, layer, head, shared) for head in range(self.n_kv_heads)]
            if self.shared_key:
                found.append(Reader("kr", layer))
            found.append(Reader("mlp", layer))
        return (*found, Reader("logits"))

    def rows(self, layer: int | None, kind: ReaderKind) -> slice:
        """Where the readers of one kind in one layer stand among `readers`."""
        first = self._place[next(r for r in self.readers if r.layer == layer and r.kind == kind)]
        many = {"q": self.n_heads, "k": self.n_kv_heads, "v": self.n_kv_heads}
        return slice(first, first + many.get(kind, 1))

    def before(self, layer: int) -> int:
        """How many writers have written before a layer."""
        return 1 + layer * (self.n_heads + 1)

    def reaches(self, reader: Reader) -> int:
        """How many writers a reader reads."""
        if reader.layer is None:
            return len(self.writers)
        later = reader.kind == "mlp" and not self.parallel
        return self.before(reader.layer) + (self.n_heads if later else 0)

    @cached_property
    def reach(self) -> Int[ndarray, " reader"]:
        """How many writers each reader reads; they are the first of `writers`."""
        return np.array([self.reaches(reader) for reader in self.readers])

    @cached_property
    def valid(self) -> Bool[ndarray, "reader writer"]:
        """Which entries of a matrix are edges."""
        return np.arange(len(self.writers)) < self.reach[:, None]

    @cached_property
    def ends(self) -> Int[ndarray, "edge 2"]:
        """Each edge's row and column, readers in order, and each reader's writers in order."""
        return np.argwhere(self.valid)

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        """Every edge, in the order of `ends`."""
        return tuple(Edge(self.writers[w], self.readers[r]) for r, w in self.ends)

    def __len__(self) -> int:
        return int(self.reach.sum())

    @cached_property
    def _place(self) -> dict[Reader | Writer, int]:
        return {end: at for ends in (self.readers, self.writers) for at, end in enumerate(ends)}

    def at(self, edge: str | Edge) -> tuple[int, int]:
        """An edge's row and column. Raises `CircuitError` for one that does not exist."""
        found = self.parse(edge)
        return self._place[found.reader], self._place[found.writer]

    def parse(self, edge: str | Edge) -> Edge:
        """The edge that a name means, checked to exist here."""
        found = edge if isinstance(edge, Edge) else self._read(edge)
        row, column = self._place.get(found.reader), self._place.get(found.writer)
        if row is None or column is None:
            end, known = (
                (str(found.reader), self.readers) if row is None
                else (str(found.writer), self.writers)
            )  # fmt: skip
            names = [str(each) for each in known]
            close = difflib.get_close_matches(end, names, n=1, cutoff=0)[0]
            raise CircuitError(
                f"There is no edge {str(edge)!r}: this graph has no {end!r}; its nearest is "
                f"{close!r}."
            )
        if column >= self.reach[row]:
            raise CircuitError(
                f"There is no edge {str(edge)!r}: {found.reader} has read before {found.writer} "
                "writes; choose an earlier writer, or a later reader."
            )
        return found

    def _read(self, text: str) -> Edge:
        ends = [_END.fullmatch(part.strip()) for part in text.split("->")]
        if len(ends) == 2 and ends[0] is not None and ends[1] is not None:
            writer, reader = _writer(ends[0]), _reader(ends[1])
            if writer is not None and reader is not None:
                return Edge(writer, reader)
        raise CircuitError(
            f"{text!r} is not an edge; write 'WRITER->READER', for example 'a0.h1->a1.h0<q>', "
            "'input->m0' or 'm0->logits'."
        )

    def units(
        self, granularity: Granularity = "edges"
    ) -> tuple[tuple[str, ...], Int[ndarray, "reader writer"]]:
        """The names of what is switched together, and each edge's unit (−1 where no edge is)."""
        if granularity not in get_args(Granularity):
            raise CircuitError(
                f"There is no granularity {granularity!r}; choose edges, nodes or layers."
            )
        found = np.full(self.valid.shape, -1)
        if granularity == "edges":
            found[self.valid] = np.arange(len(self))
            return tuple(map(str, self.edges)), found
        names = [
            f"a{writer.layer}" if granularity == "layers" and writer.kind == "head" else str(writer)
            for writer in self.writers
        ]
        known = list(dict.fromkeys(names))
        column = np.array([known.index(name) for name in names])
        return tuple(known), np.where(self.valid, column, -1)

    def mask(self, edges: Sequence[str | Edge]) -> Bool[ndarray, "reader writer"]:
        """The matrix that is True at these edges."""
        found = np.zeros(self.valid.shape, dtype=bool)
        for edge in edges:
            found[self.at(edge)] = True
        return found

    def named(self, mask: Bool[ndarray, "reader writer"]) -> Iterator[Edge]:
        """The edges at which a matrix is True."""
        for row, column in np.argwhere(np.asarray(mask) & self.valid):
            yield Edge(self.writers[column], self.readers[row])


def led_to(graph: Graph, reader: Reader) -> list[int]:
    """The columns of the writers that are made from what a reader reads."""
    if reader.layer is None:
        return []
    first = graph.before(reader.layer)
    if reader.kind == "mlp":
        return [first + graph.n_heads]
    if reader.index is None:
        return list(range(first, first + graph.n_heads))
    group = graph.n_heads // graph.n_kv_heads if reader.shared else 1
    return list(range(first + reader.index * group, first + (reader.index + 1) * group))


def _writer(found: re.Match[str]) -> Writer | None:
    if found["whole"] == "input":
        return Writer("input")
    if found["mlp"]:
        return Writer("mlp", int(found["mlp"]))
    if found["part"] == "h" and not found["kind"]:
        return Writer("head", int(found["layer"]), int(found["index"]))
    return None


def _reader(found: re.Match[str]) -> Reader | None:
    if found["whole"] == "logits":
        return Reader("logits")
    if found["mlp"]:
        return Reader("mlp", int(found["mlp"]))
    kinds: dict[str, ReaderKind] = {"q": "q", "k": "k", "v": "v", "kr": "kr"}
    kind = kinds.get(found["kind"] or "")
    if kind is None or (kind == "kr") != (found["index"] is None):
        return None
    index = None if found["index"] is None else int(found["index"])
    return Reader(kind, int(found["layer"]), index, found["part"] == "kv")
