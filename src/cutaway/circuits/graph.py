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
own mixture of heads (see `masked`). The same holds for single neurons and an MLP's post-norm.

A graph can be split in two ways, and is a graph with more readers, or more writers, all the same:

- by **position label** (`positions`): the stream is read and written at the same position, and only
  attention carries anything from one position to another, inside a head. So each reader becomes
  one reader per label, `a2.h1<q>@S2`, and one for all other positions together, `a2.h1<q>@rest`.
  The logits are read at the prompt's end alone, and stay one reader;
- by **neuron** (`neurons`): an MLP's output is the sum of its neurons' activations times their rows
  of the output projection. Chosen neurons write by themselves, `m3.n17`, and the others of the
  layer, with the bias, as `m3.rest`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray

from cutaway.circuits.ends import Edge, Reader, ReaderKind, Writer, read
from cutaway.errors import CutawayError
from cutaway.model.model import Model
from cutaway.model.ports import plain_weight

Granularity = Literal["edges", "nodes", "layers"]
"""What is switched together: single edges; all edges out of a head, MLP or neuron; all edges out of
a whole attention or MLP. In a graph split by position, those at one label's positions."""

REST = "rest"
"""The label of all positions that have none of their own."""


class CircuitError(CutawayError):
    """A circuit, mask or edge that does not fit the model or the behaviour."""


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
    positions: tuple[str, ...] = ()
    """The position labels by which readers are split; none, where they are not."""
    neurons: tuple[tuple[int, tuple[int, ...]], ...] = ()
    """The layers whose MLP is split, each with the neurons that write by themselves."""

    def __post_init__(self) -> None:
        # What was read from a file has lists.
        object.__setattr__(self, "positions", tuple(self.positions))
        neurons = tuple((int(layer), tuple(chosen)) for layer, chosen in self.neurons)
        object.__setattr__(self, "neurons", neurons)
        for label in self.positions:
            if not label or label == REST or "->" in label or self.positions.count(label) > 1:
                raise CircuitError(
                    f"Positions are split by labels that differ from one another and from {REST!r} "
                    f"and hold no '->'; found {', '.join(map(repr, self.positions))}."
                )

    @classmethod
    def of(
        cls,
        model: Model,
        *,
        positions: Sequence[str] = (),
        neurons: Mapping[int, Sequence[int]] | Sequence[int] = (),
    ) -> Graph:
        """The graph of an opened model.

        `positions` are the labels to split readers by (`behaviour.labels` for all of them).
        `neurons` are the layers whose MLP is split into all its neurons, or for each such layer
        those to split off. Raises `CircuitError` for what the model does not have.
        """
        latent = model.anatomy.d_key is not None
        return cls(
            n_layers=model.n_layers,
            n_heads=model.n_heads,
            n_kv_heads=model.n_heads if latent else model.n_kv_heads,
            parallel=model.parallel,
            shared_key=latent,
            positions=tuple(positions),
            neurons=_chosen(model, neurons),
        )

    @property
    def whole(self) -> Graph:
        """The same architecture's graph without any split."""
        return replace(self, positions=(), neurons=())

    def check(self, model: Model) -> None:
        """Refuse a model that this is not a graph of."""
        if self != Graph.of(model, positions=self.positions, neurons=self.alone):
            raise CircuitError(
                f"This graph is of a model with {self.n_layers} layers of {self.n_heads} heads, "
                f"and {model.name} is built otherwise; open the model that it was made for."
            )

    @property
    def split(self) -> dict[str, object]:
        """How it is split, for provenance; nothing where it is not."""
        found = {"positions": list(self.positions), "neurons": {str(k): v for k, v in self.neurons}}
        return {name: how for name, how in found.items() if how}

    @cached_property
    def labels(self) -> tuple[str | None, ...]:
        """The groups of positions at which readers read; a single None, where they are one."""
        return (*self.positions, REST) if self.positions else (None,)

    @cached_property
    def alone(self) -> Mapping[int, tuple[int, ...]]:
        """The neurons that write by themselves, by layer."""
        return dict(self.neurons)

    @cached_property
    def writers(self) -> tuple[Writer, ...]:
        """In the order in which they write."""
        found = [Writer("input")]
        for layer in range(self.n_layers):
            found += [Writer("head", layer, head) for head in range(self.n_heads)]
            alone = self.alone.get(layer, ())
            found += [Writer("neuron", layer, neuron=neuron) for neuron in alone]
            found.append(Writer("mlp", layer, rest=layer in self.alone))
        return tuple(found)

    @cached_property
    def readers(self) -> tuple[Reader, ...]:
        """In the order in which they read; those of one place by label."""
        shared = self.n_kv_heads != self.n_heads
        found: list[Reader] = []
        for layer in range(self.n_layers):
            found += [Reader("q", layer, head) for head in range(self.n_heads)]
            for kind in ("k", "v"):
                found += [Reader(kind, layer, head, shared) for head in range(self.n_kv_heads)]
            if self.shared_key:
                found.append(Reader("kr", layer))
            found.append(Reader("mlp", layer))
        labelled = [replace(reader, at=label) for reader in found for label in self.labels]
        return (*labelled, Reader("logits"))

    def rows(self, layer: int | None, kind: ReaderKind) -> slice:
        """Where the readers of one kind in one layer stand among `readers`."""
        first = self._place[next(r for r in self.readers if r.layer == layer and r.kind == kind)]
        if kind == "logits":
            return slice(first, first + 1)
        many = {"q": self.n_heads, "k": self.n_kv_heads, "v": self.n_kv_heads}
        return slice(first, first + many.get(kind, 1) * len(self.labels))

    def columns(self, layer: int, kind: Literal["head", "mlp"]) -> slice:
        """Where the heads of a layer, or its MLP with its neurons, stand among `writers`."""
        middle = self.before(layer) + self.n_heads
        if kind == "head":
            return slice(middle - self.n_heads, middle)
        return slice(middle, middle + 1 + len(self.alone.get(layer, ())))

    def before(self, layer: int) -> int:
        """How many writers have written before a layer."""
        neurons = sum(len(chosen) for split, chosen in self.neurons if split < layer)
        return 1 + layer * (self.n_heads + 1) + neurons

    def read_at(self, label: str | None) -> Bool[ndarray, " reader"]:
        """Which readers may read what is written at a label's positions; None for anywhere."""
        if label is None:
            return np.ones(len(self.readers), dtype=bool)
        return self._read_at[label]

    @cached_property
    def _read_at(self) -> Mapping[str, Bool[ndarray, " reader"]]:
        at = np.array([reader.at or "" for reader in self.readers])
        found = {label: at == label for label in self.labels if label is not None}
        for label, where in found.items():
            # Where `end` is no label, the end may be at any of them.
            where[-1] = label == "end" or "end" not in self.positions
        return found

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
        found = edge if isinstance(edge, Edge) else read(str(edge))
        if found is None:
            raise CircuitError(
                f"{edge!r} is not an edge; write 'WRITER->READER', for example "
                "'a0.h1->a1.h0<q>', 'input->m0' or 'm0->logits'."
            )
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
        at = [self._written_at(reader) for reader in self.readers]
        places = list(dict.fromkeys(at))
        parts = [writer.part if granularity == "layers" else str(writer) for writer in self.writers]
        known = list(dict.fromkeys(parts))
        column = np.array([known.index(part) for part in parts])
        row = np.array([places.index(place) for place in at])
        unit = column * len(places) + row[:, None]
        used = np.unique(unit[self.valid])  # the last MLP writes for the logits alone
        names = [part + place for part in known for place in places]
        return (
            tuple(names[one] for one in used),
            np.where(self.valid, np.searchsorted(used, unit), -1),
        )

    def _written_at(self, reader: Reader) -> str:
        """What a writer's name gets where this reader reads it: `@S2`, or nothing."""
        if reader.layer is None and self.positions:
            return f"@{'end' if 'end' in self.positions else REST}"
        return "" if reader.at is None else f"@{reader.at}"

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
    found = _led_to(graph, reader)
    return list(range(found.start, found.stop))


def _led_to(graph: Graph, reader: Reader) -> slice:
    if reader.layer is None:
        return slice(0, 0)
    if reader.kind == "mlp":
        return graph.columns(reader.layer, "mlp")
    first = graph.before(reader.layer)
    if reader.index is None:
        return graph.columns(reader.layer, "head")
    group = graph.n_heads // graph.n_kv_heads if reader.shared else 1
    return slice(first + reader.index * group, first + (reader.index + 1) * group)


def follow(graph: Graph, row: int) -> tuple[Bool[ndarray, " reader"], slice]:
    """The edges that carry on what a reader reads: their rows, and their columns.

    A query and an MLP are read where their part writes; keys and values are read for the sake of
    any position.
    """
    reader = graph.readers[row]
    stays = reader.at is not None and reader.kind in ("q", "mlp")
    return graph.read_at(reader.at if stays else None), _led_to(graph, reader)


def feeders(graph: Graph) -> list[list[tuple[int, Bool[ndarray, " reader"]]]]:
    """For each writer, the readers that it is made from, each with what `follow` says of rows."""
    found: list[list[tuple[int, Bool[ndarray, " reader"]]]] = [[] for _ in graph.writers]
    for row in range(len(graph.readers)):
        rows, columns = follow(graph, row)
        for fed in found[columns]:
            fed.append((row, rows))
    return found


def _chosen(
    model: Model, neurons: Mapping[int, Sequence[int]] | Sequence[int]
) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """Each layer's chosen neurons in order, checked to exist and to write by themselves."""
    wanted = dict(neurons) if isinstance(neurons, Mapping) else dict.fromkeys(neurons)
    found: list[tuple[int, tuple[int, ...]]] = []
    for layer in sorted(wanted):
        if not 0 <= layer < model.n_layers:
            raise CircuitError(
                f"There is no layer {layer} to split into neurons; {model.name} has layers 0 to "
                f"{model.n_layers - 1}."
            )
        down, width = model.anatomy.layers[layer].down, model.axis_sizes(layer)["neuron"]
        if down is None or plain_weight(down) is None:
            why = "is a mixture of experts" if down is None else "ends in no plain linear layer"
            raise CircuitError(
                f"The MLP of layer {layer} cannot be split into neurons, since it {why}; choose "
                "other layers."
            )
        chosen = wanted[layer]
        listed = sorted(range(width) if chosen is None else chosen)
        if not listed or len(set(listed)) < len(listed) or not 0 <= listed[0] <= listed[-1] < width:
            raise CircuitError(
                f"Layer {layer} has neurons 0 to {width - 1}, to be chosen at least one and each "
                f"once; found {listed}."
            )
        found.append((layer, tuple(listed)))
    return tuple(found)
