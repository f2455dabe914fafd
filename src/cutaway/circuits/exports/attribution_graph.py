"""Attribution-graph JSON: what Neuronpedia and circuit-tracer's own page draw.

The form is Neuronpedia's schema (`graph-schema.json`, with `metadata`, `qParams`, `nodes` and
`links`) and the classes of circuit-tracer's `graph_models.py`, which agree. It was made for graphs
of features at positions of one prompt; a circuit of heads and MLPs fills it so:

- each node of the layout is a node, with its name in `clerp`; `layer` is the layout's row, since
  the pages draw rows by it: three or four for each of the model's layers. `input`
  is an `embedding`, `logits` a `logit` with the weight 1 in place of a token's probability, since
  the pages count influence from it;
- each link is a link, its `weight` the edge's score, or 1 in a circuit without scores. A head's
  inside, marked `inside`, passes on what its inputs get: the sum of their weights, in equal parts
  where several heads share the input;
- there is no prompt, since a circuit is of many: `prompt` is the behaviour's name, and its tokens,
  the columns, are the position labels that readers are split by, and one for all that has none.

Pages that hold a dictionary's features look nothing up for these nodes, whose types they do not
know and draw as circles. Graphs of features have no edges of a decoder and are refused on reading.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from cutaway.behaviours.provenance import version
from cutaway.circuits.exports.layout import Layout, Link, Node, laid_out
from cutaway.circuits.exports.record import Record, dumped

_TYPES = {
    "input": "embedding", "logits": "logit", "mlp": "mlp", "head": "attention head",
    "neuron": "neuron",
}  # fmt: skip
_ROWS = (
    "Edges between the attention heads and MLPs of a decoder. Rows for each layer, from below: the "
    "inputs of its heads, its heads, its MLP."
)


def write(record: Record) -> str:
    """The JSON text of a record."""
    layout = laid_out(record)
    columns = [*(label for label in record.graph.labels if label), "every position"]
    at = [columns.index(node.at or columns[-1]) for node in layout.nodes]
    ids = {node.name: _id(place, node, at[place]) for place, node in enumerate(layout.nodes)}
    model = PurePath(record.provenance.get("model", {}).get("name", "model")).name
    behaviour = record.provenance.get("behaviour", {}).get("name", record.kind)
    value = {
        "metadata": {
            "slug": re.sub(r"[^a-z0-9]+", "-", f"{behaviour}-{model}".lower()).strip("-"),
            "scan": model, "transcoder_list": [], "prompt": behaviour,
            "prompt_tokens": columns, "schema_version": 1,
            "info": {
                "description": _ROWS, "generator": {"name": "Cutaway", "version": version()},
            },
            "cutaway": record.head,
        },
        "qParams": {
            "pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": "",
        },
        "nodes": [
            _node(place, node, ids[node.name], at[place]) | {
                "reverse_ctx_idx": len(columns) - 1 - at[place]
            }
            for place, node in enumerate(layout.nodes)
        ],
        "links": _links(layout, ids),
    }  # fmt: skip
    return dumped(value, indent=1) + "\n"


def _id(place: int, node: Node, column: int) -> str:
    return f"{'E' if node.row == 0 else node.row}_{place}_{column}"


def _node(place: int, node: Node, name: str, column: int) -> dict[str, Any]:
    output = node.kind == "logits"
    return {
        "node_id": name, "jsNodeId": f"{name.rpartition('_')[0]}-{column}",
        "feature": place, "layer": "E" if node.row == 0 else str(node.row),
        "ctx_idx": column, "run_idx": 0,
        "feature_type": _TYPES.get(node.kind, "head input"),
        "clerp": f'Output "{node.name}" (p=1.000)' if output else node.name,
        "token_prob": 1.0 if output else 0.0, "is_target_logit": output,
        "influence": None, "activation": None, "name": node.name,
    }  # fmt: skip


def _links(layout: Layout, ids: Mapping[str, str]) -> list[dict[str, Any]]:
    def weight(link: Link) -> float:
        return 1.0 if link.score is None else link.score

    edges = [link for link in layout.links if not link.inside]
    insides = [link for link in layout.links if link.inside]
    into, among = defaultdict[str, float](float), Counter(link.source for link in insides)
    for link in edges:
        into[link.target] += weight(link)
    found = [
        {"source": ids[link.source], "target": ids[link.target], "weight": weight(link),
         "scored": link.score is not None}
        for link in edges
    ]  # fmt: skip
    return found + [
        {"source": ids[link.source], "target": ids[link.target], "inside": True,
         "weight": into[link.source] / among[link.source]}
        for link in insides
    ]  # fmt: skip


def read(value: Mapping[str, Any]) -> Record:
    """The record of a JSON object. Raises `KeyError` or `ValueError` where it is not one."""
    head = value["metadata"].get("cutaway")
    if head is None:
        raise ValueError(
            "it is an attribution graph of another program, whose nodes are no heads and MLPs"
        )
    names = {node["node_id"]: node["name"] for node in value["nodes"]}
    edges: dict[str, float | None] = {}
    for link in value["links"]:
        if not link.get("inside", False):
            name = f"{names[link['source']]}->{names[link['target']]}"
            if name in edges:
                raise ValueError(f"it names the edge {name} twice")
            edges[name] = float(link["weight"]) if link["scored"] else None
    return Record.of(head, edges)
