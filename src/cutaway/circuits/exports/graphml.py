"""GraphML, as networkx writes it: for Gephi, yEd, Cytoscape and igraph."""

from __future__ import annotations

import networkx as nx

from cutaway.circuits.exports.network import from_network, to_network
from cutaway.circuits.exports.record import Record


def write(record: Record) -> str:
    """The XML text of a record."""
    return "\n".join(nx.generate_graphml(to_network(record), prettyprint=True)) + "\n"


def read(text: str) -> Record:
    """The record of such a text."""
    return from_network(nx.parse_graphml(text, node_type=str))
