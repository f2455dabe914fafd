"""JSON: the head of a record, the edges' names in a list, and their scores in another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cutaway.circuits.exports.record import Record, dumped


def write(record: Record) -> str:
    """The JSON text of a record."""
    scores = list(record.edges.values())
    scored = {"edge_scores": scores} if scores and None not in scores else {}
    return dumped({**record.head, "edges": list(record.edges), **scored}, indent=1) + "\n"


def read(value: Mapping[str, Any]) -> Record:
    """The record of a JSON object."""
    names = value["edges"]
    scores = value.get("edge_scores", [None] * len(names))
    head = {key: part for key, part in value.items() if key not in ("edges", "edge_scores")}
    if len(set(names)) != len(names):
        raise ValueError("it names an edge twice")
    return Record.of(head, dict(zip(names, scores, strict=True)))
