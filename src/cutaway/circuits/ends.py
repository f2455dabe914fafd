"""Where edges start and end, and their names.

Names are those of EAP-IG (Hanna et al. 2024): `a0.h3->a2.h1<q>`, `input->m0`, `m1->logits`. In a
graph that is split, a single neuron writes as `m1.n17`, beside what the rest of its MLP writes,
`m1.rest`; and a reader's name says at which positions it reads: `a2.h1<q>@S2`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

WriterKind = Literal["input", "head", "mlp", "neuron"]
ReaderKind = Literal["q", "k", "v", "kr", "mlp", "logits"]

_END = re.compile(
    r"(?P<whole>input|logits)|m(?P<mlp>\d+)(\.(?P<rest>rest)|\.n(?P<neuron>\d+))?|"
    r"a(?P<layer>\d+)(\.(?P<part>h|kv)(?P<index>\d+))?(<(?P<kind>q|k|v|kr)>)?"
)


@dataclass(frozen=True, order=True)
class Writer:
    """A part that adds to the residual stream."""

    kind: WriterKind
    """Which kind of part it is."""
    layer: int | None = None
    """Its layer; None for the input."""
    head: int | None = None
    """Its head, for heads."""
    neuron: int | None = None
    """Its neuron, for single neurons."""
    rest: bool = False
    """Whether it is an MLP without those of its neurons that stand alone."""

    @property
    def part(self) -> str:
        """The whole part of a layer that it belongs to: `a3`, `m3`, or `input`."""
        if self.kind == "input":
            return "input"
        return f"{'a' if self.kind == 'head' else 'm'}{self.layer}"

    def __str__(self) -> str:
        if self.kind == "head":
            return f"{self.part}.h{self.head}"
        if self.kind == "neuron":
            return f"{self.part}.n{self.neuron}"
        return f"{self.part}.rest" if self.rest else self.part


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
    at: str | None = None
    """The label of the positions at which it reads; None for all, and for the logits."""

    def __str__(self) -> str:
        where = "" if self.at is None else f"@{self.at}"
        if self.kind == "logits":
            return f"logits{where}"
        if self.kind == "mlp":
            return f"m{self.layer}{where}"
        part = "" if self.index is None else f".{'kv' if self.shared else 'h'}{self.index}"
        return f"a{self.layer}{part}<{self.kind}>{where}"


@dataclass(frozen=True, order=True)
class Edge:
    """From a writer to a reader that comes after it."""

    writer: Writer
    """Where it starts."""
    reader: Reader
    """Where it ends."""

    def __str__(self) -> str:
        return f"{self.writer}->{self.reader}"


def read(text: str) -> Edge | None:
    """The edge that a name says; None for what is not a name."""
    start, arrow, end = text.partition("->")
    end, at_sign, label = end.partition("@")
    ends = [_END.fullmatch(part.strip()) for part in (start, end)]
    if not arrow or ends[0] is None or ends[1] is None or bool(at_sign) != bool(label.strip()):
        return None
    writer, reader = _writer(ends[0]), _reader(ends[1], label.strip() or None)
    return None if writer is None or reader is None else Edge(writer, reader)


def _writer(found: re.Match[str]) -> Writer | None:
    if found["whole"] == "input":
        return Writer("input")
    if found["neuron"]:
        return Writer("neuron", int(found["mlp"]), neuron=int(found["neuron"]))
    if found["mlp"]:
        return Writer("mlp", int(found["mlp"]), rest=bool(found["rest"]))
    if found["part"] == "h" and not found["kind"]:
        return Writer("head", int(found["layer"]), int(found["index"]))
    return None


def _reader(found: re.Match[str], at: str | None) -> Reader | None:
    if found["whole"] == "logits":
        return Reader("logits", at=at)
    if found["mlp"]:
        return None if found["rest"] or found["neuron"] else Reader("mlp", int(found["mlp"]), at=at)
    kinds: dict[str, ReaderKind] = {"q": "q", "k": "k", "v": "v", "kr": "kr"}
    kind = kinds.get(found["kind"] or "")
    if kind is None or (kind == "kr") != (found["index"] is None):
        return None
    index = None if found["index"] is None else int(found["index"])
    return Reader(kind, int(found["layer"]), index, found["part"] == "kv", at)
