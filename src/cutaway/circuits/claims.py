"""The tree of a hypothesis: what each reader takes in, drawn and computed from the logits back.

`Tree.source` carries out the steps of `scrubbing` depth first, so that what is held at once grows
with the depth of the hypothesis and not with the number of its paths. Stretches of it in which no
claim is put to the test are what the model itself computes on the reference, and are looked up.
"""

from __future__ import annotations

import difflib

from jaxtyping import Int
from torch import Tensor

from cutaway.circuits.features import Feature
from cutaway.circuits.graph import CircuitError, Graph, Reader, Writer
from cutaway.circuits.hypotheses import REST, Hypothesis, Kind, Node
from cutaway.circuits.recomputing import Parts, Recomputing, Source
from cutaway.circuits.stand_ins import StandIns

Rows = Int[Tensor, " row"]
_ANY = Feature(())


class Tree:
    """One draw of a hypothesis's tree for some references."""

    def __init__(
        self, on: Recomputing, hypothesis: Hypothesis, stand_ins: StandIns, draws: slice,
        total: int, tested: str | None, unimportant: str,
    ) -> None:  # fmt: skip
        """The references are the draws `draws` of `total`; only the claim `tested` is, or all."""
        self.on, self.hypothesis, self.stand_ins = on, hypothesis, stand_ins
        self.draws, self.total = draws, total
        self.tested, self.apart = tested, unimportant == "apart"

    def source(self, references: Rows) -> Source:
        """What the logits read."""
        every = len(self.on.graph.writers)
        return self._reads(self.hypothesis.logits, references, "logits", every)

    def _reads(self, names: tuple[str, ...], rows: Rows, path: str, reach: int) -> Source:
        """What a reader reads at these references; `reach` is how many writers it could."""
        if not self._live(names):
            return self.on.seen(rows), {}
        rest = self.on.seen(self._drawn(REST, _ANY, rows, path))
        parts: dict[Writer, Tensor] = {}
        for name in names:
            node, here = self.hypothesis.node(name), f"{path} ← {name}"
            parts |= self._node(node, self._drawn(name, node.feature, rows, here), here)
        if self.apart and self.tested in (None, REST):
            for writer in self.on.graph.writers[:reach]:
                if writer not in parts:
                    any_other = self._drawn(REST, _ANY, rows, f"{path} ← {writer}")
                    parts[writer] = self.on.seen(any_other).own(writer)
        return rest, parts

    def _node(self, node: Node, rows: Rows, path: str) -> Parts:
        writers, own = parsed(self.on.graph, node), self.on.seen(rows)
        claimed: dict[Kind, tuple[str, ...]] = {
            kind: names for kind, names in node.reads.items() if self._live(names)
        }
        if not claimed:
            return {writer: own.own(writer) for writer in writers}
        whole: Source = (own, {})
        inputs: dict[Kind, Source] = {"q": whole, "k": whole, "v": whole, "mlp": whole}
        for kind, names in claimed.items():
            reach = max(map(self.on.graph.reaches, readers(self.on.graph, node, kind)))
            inputs[kind] = self._reads(names, rows, f"{path}<{kind}>", reach)
        found = {writer: own.own(writer) for writer in writers if writer.layer is None}
        later = [writer for writer in writers if writer.layer is not None]
        return self.on.computed(later, inputs, found)

    def _live(self, names: tuple[str, ...]) -> bool:
        """Whether a reader of these nodes puts anything to the test."""
        return self.tested in (None, REST) or self.tested in self.hypothesis.below(names)

    def _drawn(self, claim: str, feature: Feature, rows: Rows, path: str) -> Rows:
        if self.tested not in (None, claim):
            return rows
        return self.stand_ins(feature, rows, path, self.draws, self.total)


def parsed(graph: Graph, node: Node) -> tuple[Writer, ...]:
    """A node's parts, in the order in which they write. Raises `CircuitError` for unknown ones."""
    known = {str(writer): writer for writer in graph.writers}
    for name in node.parts:
        if name not in known:
            close = difflib.get_close_matches(name, list(known), n=1, cutoff=0)[0]
            raise CircuitError(
                f"The node {node.name!r} names the part {name!r}, which this model does not have; "
                f"its nearest is {close!r}."
            )
        if node.parts.count(name) > 1:
            raise CircuitError(f"The node {node.name!r} names {name!r} twice; name it once.")
    return tuple(writer for writer in graph.writers if str(writer) in node.parts)


def readers(graph: Graph, node: Node, kind: Kind) -> list[Reader]:
    """The readers of one kind that a node's parts have."""
    part = "mlp" if kind == "mlp" else "head"
    layers = {writer.layer for writer in parsed(graph, node) if writer.kind == part}
    return [one for one in graph.readers if one.kind == kind and one.layer in layers]


def depth(hypothesis: Hypothesis) -> int:
    """How many nodes the longest path from the logits goes through."""
    found: dict[str, int] = {}

    def of(names: tuple[str, ...]) -> int:
        return max((one(name) for name in names), default=0)

    def one(name: str) -> int:
        if name not in found:
            found[name] = 1 + max(map(of, hypothesis.node(name).reads.values()), default=0)
        return found[name]

    return of(hypothesis.logits)


def check(graph: Graph, hypothesis: Hypothesis) -> None:
    """Raises `CircuitError` for a hypothesis that does not fit a model."""
    for node in hypothesis.nodes:
        parsed(graph, node)
    logits = [one for one in graph.readers if one.layer is None]
    _check_reader(graph, hypothesis, hypothesis.logits, logits, "the logits", ())
    for node in hypothesis.nodes:
        for kind, names in node.reads.items():
            reading = readers(graph, node, kind)
            if not reading:
                what = "MLP" if kind == "mlp" else "head"
                raise CircuitError(
                    f"The node {node.name!r} ({', '.join(node.parts)}) says what its {kind} reads, "
                    f"but has no {what}; leave {kind!r} out."
                )
            where = f"the node {node.name!r} ({kind})"
            _check_reader(graph, hypothesis, names, reading, where, parsed(graph, node))


def _check_reader(
    graph: Graph, hypothesis: Hypothesis, names: tuple[str, ...], reading: list[Reader],
    where: str, own: tuple[Writer, ...],
) -> None:  # fmt: skip
    """Everything that is read here is written before, and only once."""
    reach = max(map(graph.reaches, reading))
    seen = set(own)
    for name in names:
        for writer in parsed(graph, hypothesis.node(name)):
            if writer in seen:
                raise CircuitError(
                    f"{writer} stands twice among what {where} reads (parts of one node see one "
                    "another as well); name it once."
                )
            seen.add(writer)
            if graph.writers.index(writer) >= reach:
                raise CircuitError(
                    f"The node {name!r} cannot matter to {where}: {writer} writes after it has "
                    "read; choose an earlier part."
                )
