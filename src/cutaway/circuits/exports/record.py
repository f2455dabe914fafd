"""What any file of a circuit or of scores says: its graph, some edges, and where they came from.

Every format holds a record, so that what is read back is what was written, whichever format it
went through. Its head is a little JSON that each format keeps in a place of its own: the graph, the
provenance, and for scores how they were measured. Edges are held by name, and a name that is no
edge of the graph is refused by the graph itself.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from cutaway.circuits.graph import CircuitError, Graph

FORMAT = 1
Kind = Literal["circuit", "scores"]
"""Whether the edges are a circuit's, or all there are with their scores."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """The content of a file."""

    kind: Kind
    """What the edges are."""
    graph: Graph
    """The edges that there are."""
    edges: Mapping[str, float | None]
    """The edges held, by name, in the graph's order, each with its score where there is one."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """What else there is to say, as JSON can hold it; `provenance` is in it."""

    def __post_init__(self) -> None:
        for name, score in self.edges.items():
            if score is not None and not math.isfinite(score):
                raise CircuitError(
                    f"The score of {name} is {score}, which no file of a graph can hold; measure "
                    "it again, or leave the scores out."
                )

    @property
    def provenance(self) -> Mapping[str, Any]:
        """How it came about, on which model."""
        return self.about.get("provenance", {})

    @property
    def head(self) -> dict[str, Any]:
        """All but the edges, as JSON can hold it."""
        return {"format": FORMAT, "kind": self.kind, "graph": asdict(self.graph), **self.about}

    @classmethod
    def of(cls, head: Mapping[str, Any], edges: Mapping[str, float | None]) -> Record:
        """The record of a head and its edges, checked. Raises `CircuitError`."""
        about = {
            key: value for key, value in head.items() if key not in ("format", "kind", "graph")
        }
        if head["format"] != FORMAT:
            raise CircuitError(
                f"it is in format {head['format']}, and this version of Cutaway reads {FORMAT}"
            )
        graph = Graph(**head["graph"])
        found = {str(graph.parse(name)): score for name, score in edges.items()}
        if len(found) != len(edges):
            raise CircuitError("it names an edge twice")
        order = {str(edge): place for place, edge in enumerate(graph.edges)}
        return cls(
            kind=head.get("kind", "circuit"), graph=graph, about=about,
            edges={name: found[name] for name in sorted(found, key=order.__getitem__)},
        )  # fmt: skip


def dumped(value: Any, indent: int | None = None) -> str:
    """JSON as every format writes it."""
    return json.dumps(value, indent=indent, default=str)
