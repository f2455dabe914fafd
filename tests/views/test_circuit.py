import json
import math
import re
from dataclasses import replace

import pytest
from view_samples import circuit_view, estimate

from cutaway.views import CircuitEdge, CircuitNode, CircuitSize, CircuitView, ViewError, circuit
from cutaway.views.circuit_curve import faithfulness_curve, worth
from cutaway.views.circuit_layout import Box, layout


def grouped() -> CircuitView:
    """Two layers of four heads in two groups, each with an edge into its keys."""
    heads = [CircuitNode(name=f"a{i}.h{j}", kind="head", layer=i, index=j)
             for i in range(2) for j in range(4)]  # fmt: skip
    groups = [CircuitNode(name=f"a{i}.kv{j}", kind="kv", layer=i, index=j)
              for i in range(2) for j in range(2)]  # fmt: skip
    edges = [CircuitEdge(source="a0.h0", target=f"a1.kv{j}", port="k", score=1, rank=j + 1)
             for j in range(2)]  # fmt: skip
    return CircuitView(
        title="T", shows="S", n_layers=2, n_heads=4, n_kv_heads=2, total=9,
        nodes=(*heads, *groups), edges=tuple(edges),
        sizes=(CircuitSize(edges=1, faithfulness=estimate(1)),),
    )  # fmt: skip


def apart(first: Box, second: Box) -> bool:
    across = first.right <= second.x or second.right <= first.x
    return across or first.y + first.height <= second.y or second.y + second.height <= first.y


def ends(path: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where a path of absolute M, C, H and V commands starts and ends."""
    at, first = (0.0, 0.0), None
    for command, arguments in re.findall(r"([MCHV])([^MCHV]+)", path):
        values = [float(each) for each in re.split("[ ,]", arguments)]
        at = {"H": (values[0], at[1]), "V": (at[0], values[0])}.get(command, (*values[-2:],))
        first = first or at
    assert first is not None
    return first, at


def test_every_part_has_a_place_of_its_own() -> None:
    for view in (circuit_view(), grouped()):
        boxes = list(layout(view).boxes.values())
        assert len(boxes) == len(view.nodes)
        assert all(apart(a, b) for at, a in enumerate(boxes) for b in boxes[:at])


@pytest.mark.parametrize(("layers", "heads"), [(1, 1), (5, 5), (12, 12), (32, 32)])
def test_columns_are_layers_and_rows_are_heads(layers: int, heads: int) -> None:
    view = replace(
        circuit_view(), n_layers=layers, n_heads=heads, n_kv_heads=heads, edges=(),
        sizes=(CircuitSize(edges=0, faithfulness=estimate(0)),),
        nodes=tuple(CircuitNode(name=f"a{i}.h{j}", kind="head", layer=i, index=j)
                    for i in range(layers) for j in range(heads)),
    )  # fmt: skip
    placed = layout(view)
    for layer in range(layers):
        column = [placed.boxes[f"a{layer}.h{head}"] for head in range(heads)]
        assert len({box.x for box in column}) == 1
        assert [box.y for box in column] == sorted({box.y for box in column})
    across = [placed.boxes[f"a{layer}.h0"].x for layer in range(layers)]
    assert across == sorted(set(across))
    assert all(b.x >= 0 and b.right <= placed.width for b in placed.boxes.values())
    assert all(0 <= b.y <= placed.height - b.height for b in placed.boxes.values())


def test_edges_run_from_part_to_part() -> None:
    view = circuit_view()
    placed = layout(view)
    for edge in view.edges:
        (x0, y0), (x1, y1) = ends(placed.path(edge))
        source, target = placed.boxes[edge.source], placed.boxes[edge.target]
        assert x0 == pytest.approx(source.right, abs=0.06)
        assert source.y <= y0 <= source.y + source.height
        on_side = x1 == pytest.approx(target.x, abs=0.06)
        on_top = y1 == pytest.approx(target.y, abs=0.06) and target.x <= x1 <= target.right
        assert on_side or on_top
        assert target.y - 0.06 <= y1 <= target.y + target.height or edge.target == "logits"


def test_queries_come_in_above_keys_above_values() -> None:
    view, heights = circuit_view(), []
    for port in "qkv":
        edge = CircuitEdge(source="m0", target="a1.h1", port=port, score=1, rank=1)
        heights.append(ends(layout(view).path(edge))[1][1])
    assert heights == sorted(set(heights))


def test_shared_keys_stand_beside_all_heads_that_read_them() -> None:
    placed = layout(grouped())
    bracket = placed.boxes["a1.kv1"]
    assert bracket.y <= placed.boxes["a1.h2"].middle < placed.boxes["a1.h3"].middle
    assert placed.boxes["a1.h3"].middle <= bracket.y + bracket.height
    assert bracket.y > placed.boxes["a1.h1"].middle


def test_a_small_share_is_not_written_as_nothing() -> None:
    view = replace(circuit_view(), total=1_000_000)
    assert worth(view, view.sizes[0])[0] == "2 of 1,000,000 edges (0.00020\u00a0%)"


@pytest.mark.parametrize(("size", "edges"), [(None, 7), (2, 2), (4, 4)])
def test_the_drawing_shows_one_size(size: int | None, edges: int) -> None:
    figure = circuit(circuit_view(size=size))
    drawn = figure.svg.count('class="edge') - 2  # the legend
    assert drawn == edges
    assert f">{edges} of 40 edges" in figure.svg
    assert figure.table is not None
    assert len(figure.table.rows) == edges


def test_width_and_line_show_score_and_sign() -> None:
    figure = circuit(circuit_view(size=7))
    drawn = re.findall(
        r'<path d="[^"]+" stroke-width="([\d.]+)"([^>]*)class="edge (\w+)', figure.svg
    )
    widths = {float(width) for width, _, _ in drawn}
    assert max(widths) == 7.0
    for _, dashes, kind in drawn:
        assert ("stroke-dasharray" in dashes) == (kind == "negative")


def test_the_first_size_is_the_smallest_that_keeps_enough() -> None:
    view = circuit_view()
    assert view.stops[view.first].edges == 7
    low = replace(view, sizes=view.sizes[:2])
    assert low.stops[low.first].edges == 4


def test_sizes_beyond_the_edges_are_in_the_curve_alone() -> None:
    view = circuit_view()
    data = circuit(view).live
    assert data is not None
    assert [stop["edges"] for stop in data.data["stops"]] == [2, 4, 7]  # type: ignore[index,union-attr]
    assert len(faithfulness_curve(view).points) == 4


def test_the_curve_rises_with_faithfulness_and_goes_right_with_size() -> None:
    points = faithfulness_curve(circuit_view()).points
    assert [p.x for p in points] == sorted({p.x for p in points})
    assert [p.y for p in points] == sorted({p.y for p in points}, reverse=True)
    assert all(p.high <= p.y <= p.low for p in points)


def test_what_the_client_gets_is_plain() -> None:
    figure = circuit(circuit_view("</script>\u202e\u2028" + "x" * 100_000))
    assert figure.live is not None
    written = json.dumps(figure.live.data, allow_nan=False)
    assert len(written) < 20_000
    assert not re.search("\u202e|\u2028", json.dumps(figure.live.data, ensure_ascii=False))


def test_what_does_not_fit_together_is_refused() -> None:
    view = circuit_view()
    edge = view.edges[0]
    for changed, found in (
        ({"nodes": (*view.nodes, view.nodes[0])}, "two parts 'input'"),
        ({"n_layers": 1}, "has layer 1"),
        ({"n_heads": 2, "n_kv_heads": 2}, "has index 2"),
        ({"n_kv_heads": 2}, "no model's"),
        ({"edges": (*view.edges, replace(edge, target="a9.h9", rank=8))}, "ends in no part given"),
        ({"edges": (*view.edges, edge)}, "ranks are not 1 to 8"),
        ({"edges": (replace(edge, score=math.nan), *view.edges[1:])}, "not a number"),
        ({"sizes": view.sizes[::-1]}, "sizes grow"),
        ({"sizes": view.sizes[3:]}, "sizes grow"),
        ({"size": 3}, "size 3 is none"),
    ):
        with pytest.raises(ViewError, match=found):
            replace(view, **changed)
