"""A circuit's picture holds the edges of the circuits that were measured, in their order."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from cutaway.circuits import Curve, EdgeScores, Graph, Ratio, top_n
from cutaway.circuits.picture import view
from cutaway.views import Reading, circuit
from cutaway.views.circuit_layout import layout


def scores(
    method: str = "eap",
    *,
    kv: int = 4,
    latent: bool = False,
    positions: tuple[str, ...] = (),
    neurons: tuple[tuple[int, tuple[int, ...]], ...] = (),
) -> EdgeScores:
    graph = Graph(
        n_layers=2, n_heads=4, n_kv_heads=kv, parallel=False, shared_key=latent,
        positions=positions, neurons=neurons,
    )  # fmt: skip
    values = np.random.default_rng(0).normal(size=(len(graph), 5))
    names = [str(edge) for edge in graph.edges]
    return EdgeScores(
        values=xr.DataArray(values, {"edge": names}, ("edge", "example")),
        clean=xr.DataArray(np.ones(5), dims="example"),
        ablated=xr.DataArray(np.zeros(5), dims="example"),
        graph=graph, method=method, metric="logit_diff", ablation="counterfactual", provenance={},
    )  # fmt: skip


def faithful(sizes: list[float], by: str = "magnitude") -> Curve:
    values = np.linspace(0.2, 1, len(sizes))[:, None] + np.arange(5) / 100
    return Curve(
        values=xr.DataArray(values, {"share": sizes}, ("share", "example")),
        clean=xr.DataArray(np.ones(5), dims="example"),
        ablated=xr.DataArray(np.zeros(5), dims="example"),
        by=by, provenance={},
    )  # fmt: skip


@pytest.mark.parametrize("by", ["magnitude", "score"])
def test_each_size_holds_the_circuit_that_was_measured(by: str) -> None:
    found = scores()
    curve = faithful([0.01, 0.1, 0.5, 1.0], by)
    seen = view(found, curve)
    names = {str(edge): edge for edge in found.graph.edges}
    assert len(seen.edges) == seen.total == len(names)
    for stop, share in zip(seen.stops, (0.01, 0.1, 0.5, 1.0), strict=True):
        kept = top_n(found, stop.edges, by=by).edges
        shown = {(edge.source, edge.target, edge.port) for edge in seen.ranked[: stop.edges]}
        assert shown == {(str(e.writer), *_ends(str(e.reader))) for e in kept}
        ratio = curve.faithfulness.sel(share=share)
        assert stop.faithfulness.mean == float(ratio["mean"])
        assert stop.faithfulness.low == float(ratio["low"])


def _ends(reader: str) -> tuple[str, str]:
    name, _, port = reader.partition("<")
    return name, port.rstrip(">")


def test_large_sizes_stand_in_the_curve_alone() -> None:
    seen = view(scores(), faithful([0.01, 0.1, 1.0]), most=30)
    assert [size.edges for size in seen.sizes] == [1, 11, 110]
    assert [size.edges for size in seen.stops] == [1, 11]
    assert len(seen.edges) == 11


@pytest.mark.parametrize(("kv", "latent", "named"), [(2, False, "a1.kv1"), (4, True, "a1.kv")])
def test_shared_keys_and_values_are_parts_that_read(kv: int, latent: bool, named: str) -> None:
    seen = view(scores(kv=kv, latent=latent), faithful([0.1, 1.0]))
    part = next(node for node in seen.nodes if node.name == named)
    assert part.kind == "kv"
    assert {edge.port for edge in seen.edges if edge.target == named} <= {"k", "v", "kr"}
    assert named in {edge.target for edge in seen.edges}
    assert circuit(seen).svg.count("<path") == seen.stops[seen.first].edges + 2


def test_what_is_known_of_parts_and_edges_is_told() -> None:
    found = scores()
    most = str(top_n(found, 1).edges[0])
    seen = view(
        found, faithful([0.01, 0.1]), size=11, inclusion={most: 0.75}, roles={"a1.h2": "reads"},
        attends={"a1.h2": [Reading(text="S2", value=0.5)]},
        controls={11: [Ratio(mean=0.1, low=0.0, high=0.2)]},
    )  # fmt: skip
    node = next(node for node in seen.nodes if node.name == "a1.h2")
    assert (node.role, node.attends[0].text) == ("reads", "S2")
    assert seen.ranked[0].inclusion == 0.75
    assert seen.stops[seen.first].controls == (0.1,)


def test_scores_are_named_for_what_they_are() -> None:
    sizes = faithful([0.1, 1.0])
    assert view(scores("eap-ig"), sizes).score_name == "effect on logit_diff"
    assert view(scores("acdc"), sizes).score_name == "acdc score"


def test_edges_that_support_a_behaviour_are_positive_whatever_the_metric() -> None:
    found = scores("exact")
    sizes = faithful([0.1, 1.0], "score")
    seen = view(found, sizes)
    loss = view(replace(found, metric="kl", values=-found.values), sizes)
    assert [edge.score for edge in loss.ranked] == [edge.score for edge in seen.ranked]
    assert loss.shows == seen.shows
    assert loss.score_name == "rise of kl without it"


def test_edges_split_by_position_say_where_and_run_side_by_side() -> None:
    found = scores(positions=("S1", "end"))
    seen = view(found, faithful([0.1, 1.0]))
    assert len(seen.edges) == len(found.graph)
    assert {edge.port for edge in seen.edges if edge.target == "a1.h0"} == {
        f"{kind} at {label}" for kind in "qkv" for label in ("S1", "end", "rest")
    }
    assert {edge.port for edge in seen.edges if edge.target == "m0"} == {
        f"at {label}" for label in ("S1", "end", "rest")
    }
    placed = layout(seen)
    ways = [placed.path(edge) for edge in seen.edges]
    assert len(set(ways)) == len(ways)


def test_neurons_write_below_the_mlp_that_reads_for_them() -> None:
    found = scores(neurons=((0, (3, 17, 21)),))
    seen = view(found, faithful([0.1, 1.0]))
    alone = [node for node in seen.nodes if node.kind == "neuron"]
    assert [(node.name, node.index) for node in alone] == [
        ("m0.n3", 3), ("m0.n17", 17), ("m0.n21", 21),
    ]  # fmt: skip
    assert not {"m0.rest"} & {node.name for node in seen.nodes}
    placed = layout(seen)
    boxes = [placed.boxes[node.name] for node in alone]
    assert all(box.y > placed.boxes["m0"].bottom for box in boxes)
    assert len({(box.x, box.y) for box in boxes}) == 3
    data = circuit(seen).live
    assert data is not None
    through = {node["name"]: node["through"] for node in data.data["nodes"]}
    assert through["m0.n17"] == ["m0"]
    few = view(found, faithful([1 / 200, 0.01]), most=1)
    assert len([node for node in few.nodes if node.kind == "neuron"]) <= 1
