"""Files of circuits and scores that other programs read, and reading them back.

| format | file | for |
|---|---|---|
| `json` | `.json` | Cutaway, and programs of one's own |
| `graphml` | `.graphml` | Gephi, yEd, Cytoscape, igraph |
| `dot` | `.dot`, `.gv` | Graphviz |
| `attribution` | `.attribution.json` | Neuronpedia, circuit-tracer |

Each is one file of this package: from a `Record` to text and back, the same record. A file is
written beside its final name and moved into place.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple
from xml.etree.ElementTree import ParseError

import networkx as nx

from cutaway.circuits.exports import attribution_graph, dot, graphml, plain
from cutaway.circuits.exports.network import from_network
from cutaway.circuits.exports.network import to_network as to_networkx
from cutaway.circuits.exports.record import Kind, Record
from cutaway.circuits.graph import CircuitError


class Format(NamedTuple):
    """A way to write a record as text and to read it back."""

    endings: tuple[str, ...]
    """What its files' names end in, the usual one first."""
    write: Callable[[Record], str]
    """The text of a record."""
    read: Callable[[str], Record]
    """The record of a text; raises what damaged text leads to."""


def _json(text: str) -> Record:
    """Either JSON format, by what is in it."""
    value = json.loads(text)
    return attribution_graph.read(value) if "links" in value else plain.read(value)


FORMATS: MappingProxyType[str, Format] = MappingProxyType(
    {
        "attribution": Format((".attribution.json",), attribution_graph.write, _json),
        "json": Format((".json",), plain.write, _json),
        "graphml": Format((".graphml",), graphml.write, graphml.read),
        "dot": Format((".dot", ".gv"), dot.write, dot.read),
    }
)
"""Every format by name."""

_DAMAGE = (
    CircuitError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError,
    ParseError, nx.NetworkXException,
)  # fmt: skip

__all__ = [
    "FORMATS",
    "Format",
    "Kind",
    "Record",
    "format_of",
    "from_networkx",
    "read",
    "to_networkx",
    "write",
]


def format_of(path: str | Path) -> Format | None:
    """The format that a file's name ends in, if it is one of these."""
    name = Path(path).name.lower()
    return next((one for one in FORMATS.values() if name.endswith(one.endings)), None)


def write(record: Record, path: str | Path) -> Path:
    """Write a record in the format of the file's name. Raises `CircuitError`."""
    target = Path(path)
    text = _format(target).write(record)
    partial = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, target)
    except OSError as error:
        raise CircuitError(
            f"{target} cannot be written ({error.strerror or error}); choose a place that can be."
        ) from error
    return target


def read(path: str | Path, kind: Kind) -> Record:
    """Read what `write` wrote. Raises `CircuitError` for what is damaged or something else."""
    source = Path(path)
    chosen = _format(source)
    try:
        text = source.read_text(encoding="utf-8")
    except OSError as error:
        raise CircuitError(
            f"{source} cannot be read ({error.strerror or error}); give a file that save wrote."
        ) from error
    except UnicodeDecodeError as error:
        raise CircuitError(f"{source} is no text; give a file that save wrote.") from error
    return _checked(lambda: chosen.read(text), str(source), kind, "save wrote")


def from_networkx(network: nx.DiGraph[str], kind: Kind) -> Record:
    """The record of a directed graph. Raises `CircuitError` where it is not one."""
    return _checked(lambda: from_network(network), "The graph", kind, "to_networkx gave")


def _checked(made: Callable[[], Record], source: str, kind: Kind, giver: str) -> Record:
    what = {"circuit": "circuit", "scores": "set of scores"}
    try:
        record = made()
    except _DAMAGE as error:
        said = type(error) in (CircuitError, ValueError)
        why = str(error).rstrip(".") if said else f"damaged: {type(error).__name__}"
        raise CircuitError(
            f"{source} is not a saved {what[kind]} ({why}); give what {giver}."
        ) from error
    if record.kind != kind:
        raise CircuitError(
            f"{source} is a saved {what[record.kind]} and not a {what[kind]}; load it as what it "
            "is."
        )
    return record


def _format(path: Path) -> Format:
    found = format_of(path)
    if found is None:
        known = ", ".join(ending for one in FORMATS.values() for ending in one.endings)
        raise CircuitError(f"{path} is in no known format; its name must end in {known}.")
    return found
