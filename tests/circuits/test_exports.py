"""Circuits and scores through every format: the same when read back, and refused when damaged."""

import json
import shutil
import subprocess
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from cutaway.circuits import Circuit, CircuitError, EdgeScores, Graph, top_n
from cutaway.circuits.exports import FORMATS, dot
from cutaway.model import open_model
from cutaway.model.tiny import tiny

GRAPHS = (
    Graph(n_layers=1, n_heads=2, n_kv_heads=2, parallel=False),
    Graph(n_layers=2, n_heads=4, n_kv_heads=2, parallel=True),
    Graph(n_layers=2, n_heads=2, n_kv_heads=2, parallel=False, shared_key=True),
    Graph(
        n_layers=1, n_heads=2, n_kv_heads=1, parallel=False, positions=('a "b\\', "end@2", "é<q>")
    ),
    Graph(
        n_layers=2,
        n_heads=1,
        n_kv_heads=1,
        parallel=False,
        positions=("S2", "end"),
        neurons=((0, (3, 17)), (1, (0,))),
    ),
)
GROUPED = GRAPHS[1]
ENDINGS = [ending for one in FORMATS.values() for ending in one.endings]
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
FLOATS = st.floats(allow_nan=False, allow_infinity=False, width=64)


def scored(graph: Graph, values: np.ndarray, **about: object) -> EdgeScores:
    return EdgeScores(
        values=xr.DataArray(values, {"edge": [str(edge) for edge in graph.edges]}, ("edge",)),
        clean=xr.DataArray(np.array([1.0, 0.1]), dims="example"),
        ablated=xr.DataArray(np.array([0.0, 1 / 3]), dims="example"),
        graph=graph, method="eap-ig", metric="logit_diff", ablation="mean", provenance=about,
    )  # fmt: skip


def drawn(graph: Graph, seed: int, share: float) -> np.ndarray:
    return (np.random.default_rng(seed).random(graph.valid.shape) < share) & graph.valid


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(GRAPHS), st.integers(0, 2**32 - 1), st.floats(0, 1), st.sampled_from(ENDINGS),
    st.booleans(), TEXTS, TEXTS,
)  # fmt: skip
def test_a_circuit_is_the_same_in_every_format(
    graph: Graph, seed: int, share: float, ending: str, with_scores: bool, name: str, note: str
) -> None:
    provenance = {"model": {"name": name, "fingerprint": note}, "behaviour": {"name": note}}
    circuit = Circuit(graph=graph, kept=drawn(graph, seed, share), provenance=provenance)
    values = np.random.default_rng(seed).normal(size=len(graph)).astype("float32")
    scores = scored(graph, values) if with_scores else None
    with tempfile.TemporaryDirectory() as directory:
        path = circuit.save(Path(directory) / f"circuit{ending}", scores=scores)
        assert [each.name for each in path.parent.iterdir()] == [path.name]
        loaded = Circuit.load(path)
        kind = next(one for one in FORMATS.values() if ending in one.endings)
        record = kind.read(path.read_text("utf-8"))
    np.testing.assert_array_equal(loaded.kept, circuit.kept)
    assert (loaded.graph, loaded.provenance) == (graph, provenance)
    expected = [None if scores is None else scores[str(edge)] for edge in circuit.edges]
    assert list(record.edges.values()) == expected


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(GRAPHS), st.data(), st.sampled_from(ENDINGS))
def test_scores_keep_every_mean_in_every_format(
    graph: Graph, data: st.DataObject, ending: str
) -> None:
    values = data.draw(st.lists(FLOATS, min_size=len(graph), max_size=len(graph)))
    scores = scored(graph, np.array(values), model={"name": "m"}, seed=3)
    with tempfile.TemporaryDirectory() as directory:
        loaded = EdgeScores.load(scores.save(Path(directory) / f"scores{ending}"))
    same(loaded, scores)


def same(one: EdgeScores, two: EdgeScores) -> None:
    for name in ("mean", "clean", "ablated"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    for name in ("graph", "method", "metric", "ablation", "provenance"):
        assert getattr(one, name) == getattr(two, name), name


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(GRAPHS[:3]), st.integers(0, 2**32 - 1), st.floats(0, 0.6))
def test_paths_in_the_network_are_paths_in_the_circuit(
    graph: Graph, seed: int, share: float
) -> None:
    circuit = Circuit(graph=graph, kept=drawn(graph, seed, share))
    network = circuit.to_networkx()
    assert nx.is_directed_acyclic_graph(network)
    assert nx.has_path(network, "input", "logits") == (len(circuit.pruned()) > 0)
    on_paths = nx.descendants(network, "input") & nx.ancestors(network, "logits")
    on_paths |= {"input", "logits"} if len(circuit.pruned()) else set()
    led = {
        (source, target)
        for source, target, inside in network.edges(data="inside")
        if not inside and {source, target} <= on_paths
    }
    assert led == {(str(edge.writer), str(edge.reader)) for edge in circuit.pruned().edges}


@pytest.mark.parametrize("graph", GRAPHS)
def test_every_link_goes_up(graph: Graph) -> None:
    network = Circuit(graph=graph, kept=graph.valid).to_networkx()
    rows = nx.get_node_attributes(network, "row")
    assert all(rows[source] < rows[target] for source, target in network.edges)
    assert set(rows) == {str(end) for end in (*graph.writers, *graph.readers)}


def test_a_network_that_somebody_changed() -> None:
    network = Circuit.of(GROUPED, ["input->a0.kv1<k>", "a0.h2->logits"]).to_networkx()
    network.remove_edge("a0.h2", "logits")
    network.add_edge("m0", "logits")
    found = Circuit.from_networkx(network)
    assert set(map(str, found.edges)) == {"input->a0.kv1<k>", "m0->logits"}
    network.add_edge("m1", "m0")
    with pytest.raises(CircuitError, match=r"graph is not .* m0 has read before m1 writes"):
        Circuit.from_networkx(network)
    with pytest.raises(CircuitError, match=r"graph is not a saved circuit \(damaged: KeyError\)"):
        Circuit.from_networkx(nx.DiGraph([("input", "m0")]))
    scores = scored(GROUPED, np.arange(float(len(GROUPED))))
    same(EdgeScores.from_networkx(scores.to_networkx()), scores)
    short = scores.to_networkx()
    short.remove_edge("input", "m0")
    with pytest.raises(CircuitError, match="1 of 74 edges have no score, input->m0 among them"):
        EdgeScores.from_networkx(short)
    with pytest.raises(CircuitError, match="is a saved set of scores and not a circuit"):
        Circuit.from_networkx(scores.to_networkx())


# ── what other programs read ─────────────────────────────────────────────────────────────────

CHAIN = Circuit.of(
    GROUPED, ["input->a0.kv0<v>", "a0.h0->m1", "a0.h1->m1", "m1->logits"],
)  # fmt: skip


def chain_scores() -> EdgeScores:
    values = np.zeros(len(GROUPED))
    names = list(map(str, GROUPED.edges))
    for edge, score in zip(CHAIN.edges, (2.0, -0.5, 0.25, 1.0), strict=True):
        values[names.index(str(edge))] = score
    return scored(GROUPED, values)


def test_dot_has_ranks_and_widths(tmp_path: Path) -> None:
    text = CHAIN.save(tmp_path / "c.dot", scores=chain_scores()).read_text("utf-8")
    assert '"a0.h0" -> "m1" [score="-0.5", penwidth="1.30", color="#b3362b"];' in text
    assert '"a0.kv0<v>" -> "a0.h0" [inside="true", style="dotted", arrowhead="none"];' in text
    assert text.count("rank=same") == 5
    same_rank = text.split("subgraph row_2 {")[1].split("}")[0]
    assert '"a0.h0"' in same_rank
    assert '"a0.h1"' in same_rank
    if shutil.which("dot") is None:
        pytest.skip("Graphviz is not installed; what is written was checked, drawing it was not")
    subprocess.run(["dot", "-Tsvg", "-o", "/dev/null"], input=text, text=True, check=True)


def test_dot_that_another_program_wrote_is_read() -> None:
    ours = FORMATS["dot"].write(CHAIN.record())
    start, end = ours.split("cutaway=")[1].split("];")[0].split(", ", 1)
    text = f"""
    /* tidied */ strict DiGraph "a b" {{
#line 1 "the head, cut in two"
      cutaway = {start}, " + "{end}
      node [shape=box; color="red"] edge [weight=2.5]
      // a chain through a head
      subgraph cluster_0 {{ input:n -> {{"a0.kv0<v>"}} }}
      {{ "a0.h0" "a0.h1" }} -> m1:in:w -> logits
      "a0.kv0<v>" -> {{ "a0.h0"; "a0.h1" }} [inside=TRUE]
    }}
    """
    found = dot.read(text)
    assert list(found.edges) == list(map(str, CHAIN.edges))


@given(TEXTS)
def test_dot_strings_end_where_they_should(text: str) -> None:
    found = dot.read(
        FORMATS["dot"].write(Circuit.of(GROUPED, []).record()).replace(
            "digraph circuit {", f"digraph circuit {{ note={dot.quoted(text)};"
        )
    )  # fmt: skip
    assert not found.edges


def test_graphml_is_valid_and_typed(tmp_path: Path) -> None:
    path = CHAIN.save(tmp_path / "c.graphml", scores=chain_scores())
    root = ElementTree.parse(path).getroot()
    space = {"g": "http://graphml.graphdrawing.org/xmlns"}
    keys = {key.get("attr.name"): key.get("attr.type") for key in root.findall("g:key", space)}
    assert keys == {"kind": "string", "row": "long", "layer": "long", "inside": "boolean",
                    "score": "double", "cutaway": "string"}  # fmt: skip
    assert len(root.findall("g:graph/g:edge", space)) == 4 + 2


# The required keys of Neuronpedia's graph-schema.json and of circuit-tracer's graph_models.py.
REQUIRED = {
    "metadata": {"slug", "scan", "prompt_tokens", "prompt", "transcoder_list"},
    "qParams": {"pinnedIds", "supernodes", "linkType", "clickedId", "sg_pos"},
    "nodes": {"node_id", "feature", "layer", "ctx_idx", "feature_type", "jsNodeId", "clerp"},
    "links": {"source", "target", "weight"},
}


def test_attribution_graphs_have_what_their_readers_need(tmp_path: Path) -> None:
    path = CHAIN.save(tmp_path / "c.attribution.json", scores=chain_scores())
    value = json.loads(path.read_text("utf-8"), parse_constant=pytest.fail)
    for part, keys in REQUIRED.items():
        for one in value[part] if isinstance(value[part], list) else [value[part]]:
            assert keys <= set(one), part
    nodes = {node["node_id"]: node for node in value["nodes"]}
    assert len(nodes) == len(value["nodes"]) == len({node["jsNodeId"] for node in value["nodes"]})
    by_name = {node["name"]: node for node in value["nodes"]}
    assert by_name["input"]["layer"] == "E"
    # Neuronpedia reads the probability out of the label, and needs some layer above 0.
    assert float(by_name["logits"]["clerp"].split("(p=")[1].split(")")[0]) == 1
    assert max(int(node["layer"]) for node in value["nodes"] if node["layer"] != "E") > 0
    assert all(0 <= node["ctx_idx"] < len(value["metadata"]["prompt_tokens"]) for node in
               value["nodes"])  # fmt: skip
    weights = {(nodes[link["source"]]["name"], nodes[link["target"]]["name"]): link["weight"]
               for link in value["links"]}  # fmt: skip
    assert weights == {
        ("input", "a0.kv0<v>"): 2.0, ("a0.h0", "m1"): -0.5, ("a0.h1", "m1"): 0.25,
        ("m1", "logits"): 1.0, ("a0.kv0<v>", "a0.h0"): 1.0, ("a0.kv0<v>", "a0.h1"): 1.0,
    }  # fmt: skip
    assert value["metadata"]["prompt_tokens"] == ["every position"]
    path.rename(tmp_path / "c.json")
    assert Circuit.load(tmp_path / "c.json").edges == CHAIN.edges


def test_columns_of_an_attribution_graph_are_position_labels() -> None:
    circuit = Circuit.of(GRAPHS[4], ["input->m0@S2", "m0.n17->a1.h0<q>@end", "a1.h0->logits"])
    value = json.loads(FORMATS["attribution"].write(circuit.record()))
    columns = value["metadata"]["prompt_tokens"]
    assert columns == ["S2", "end", "rest", "every position"]
    at = {node["name"]: columns[node["ctx_idx"]] for node in value["nodes"]}
    assert at == {
        "input": "every position", "m0@S2": "S2", "m0.n17": "every position",
        "a1.h0<q>@end": "end", "a1.h0": "every position", "logits": "every position",
    }  # fmt: skip
    named = {node["node_id"]: node["name"] for node in value["nodes"]}
    insides = {(named[one["source"]], named[one["target"]]) for one in value["links"]
               if one.get("inside")}  # fmt: skip
    assert insides == {("m0@S2", "m0.n17"), ("a1.h0<q>@end", "a1.h0")}


# ── what is refused ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("ending", ENDINGS)
def test_damaged_and_foreign_files_are_refused_in_a_sentence(tmp_path: Path, ending: str) -> None:
    path = CHAIN.save(tmp_path / f"c{ending}")
    whole = path.read_text("utf-8")
    for damage in (whole[: len(whole) // 2], "", "GIF89a", whole.replace("cutaway", "cutlery"),
                   whole.replace("n_layers", "n_liars")):  # fmt: skip
        if damage == whole:
            continue
        path.write_text(damage, "utf-8")
        with pytest.raises(CircuitError, match="is not a saved circuit") as refused:
            Circuit.load(path)
        assert str(refused.value).count("; ") == 1
    path.write_text(whole.replace("m1", "m9"), "utf-8")
    with pytest.raises(CircuitError, match=r"c\..* is not .* There is no edge 'm9->logits'|'m9'"):
        Circuit.load(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CircuitError, match="is no text"):
        Circuit.load(path)


def test_what_is_not_there_or_not_known(tmp_path: Path) -> None:
    with pytest.raises(CircuitError, match=r"nothing\.dot cannot be read \(No such file"):
        Circuit.load(tmp_path / "nothing.dot")
    with pytest.raises(CircuitError, match=r"c\.png is in no known format; .* \.dot, \.gv"):
        CHAIN.save(tmp_path / "c.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(CircuitError, match="cannot be written"):
        CHAIN.save(tmp_path / "file" / "c.dot")
    foreign = {"metadata": {"slug": "x", "scan": "gemma-2-2b"}, "nodes": [], "links": []}
    (tmp_path / "x.json").write_text(json.dumps(foreign))
    with pytest.raises(CircuitError, match="attribution graph of another program"):
        Circuit.load(tmp_path / "x.json")
    newer = json.loads(FORMATS["json"].write(CHAIN.record())) | {"format": 2}
    (tmp_path / "x.json").write_text(json.dumps(newer))
    with pytest.raises(CircuitError, match=r"format 2, and this version of Cutaway reads 1\)"):
        Circuit.load(tmp_path / "x.json")
    twice = json.loads(FORMATS["json"].write(CHAIN.record()))
    twice["edges"] += twice["edges"][:1]
    (tmp_path / "x.json").write_text(json.dumps(twice))
    with pytest.raises(CircuitError, match="names an edge twice"):
        Circuit.load(tmp_path / "x.json")
    values = np.zeros(len(GROUPED))
    values[3] = np.nan
    with pytest.raises(CircuitError, match=r"score of .* is nan, which no file of a graph can"):
        scored(GROUPED, values).save(tmp_path / "s.graphml")
    with pytest.raises(CircuitError, match="scores are of another graph"):
        CHAIN.save(tmp_path / "c.dot", scores=scored(GRAPHS[0], np.zeros(len(GRAPHS[0]))))


def test_another_models_circuit_and_scores_are_refused(tmp_path: Path) -> None:
    model, other = open_model(tiny("gpt2")), open_model(tiny("gpt2", seed=1))
    circuit = Circuit.of(model, ["input->m0", "m0->logits"])
    for ending in ENDINGS:
        path = circuit.save(tmp_path / f"circuit{ending}")
        assert Circuit.load(path, model=model).edges == circuit.edges
        with pytest.raises(CircuitError, match="This circuit belongs to another model"):
            Circuit.load(path, model=other)
    scores = scored(circuit.graph, np.zeros(len(circuit.graph)), **circuit.provenance)
    scores.check(model)
    with pytest.raises(CircuitError, match="These scores belong to another model"):
        scores.check(other)


def test_a_circuit_of_earlier_versions_is_read(tmp_path: Path) -> None:
    record = {
        "format": 1, "edges": ["input->m0", "m0->logits"], "provenance": {"seed": 1},
        "graph": {"n_layers": 1, "n_heads": 2, "n_kv_heads": 2, "parallel": False,
                  "shared_key": False},
    }  # fmt: skip
    (tmp_path / "old.json").write_text(json.dumps(record))
    loaded = Circuit.load(tmp_path / "old.json")
    assert list(map(str, loaded.edges)) == record["edges"]
    assert loaded.provenance == {"seed": 1}
    kept = top_n(scored(loaded.graph, np.arange(float(len(loaded.graph)))), 2)
    assert kept.graph == loaded.graph
