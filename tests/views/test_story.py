"""The circuit in short: which parts it shows, what passes between them, and where they stand."""

import re
from dataclasses import replace

import pytest
from view_samples import circuit_view

from cutaway.views import CircuitEdge, CircuitNode, CircuitSize, CircuitView, Estimate, story


def shown(svg: str) -> list[str]:
    return [each.split('"')[0] for each in svg.split('data-part="')[1:]]


def test_only_what_reads_and_writes_is_shown() -> None:
    view = circuit_view("copies", size=7)
    # a0.h1 writes and reads nothing; a1.h0 and m0 and a1.h2 do both
    assert shown(story(view).svg) == ["m0", "a1.h0", "a1.h2"]
    # with four edges a1.h0 is not in it
    assert shown(story(replace(view, size=4)).svg) == ["m0", "a1.h2"]


def test_the_strongest_way_is_told() -> None:
    assert story(circuit_view("copies", size=7)).shows == (
        "Most passes along the prompt → MLP 0 → heads 1.0, 1.2 → the answer."
    )
    assert story(circuit_view(size=2)).shows.startswith("No way leads")


def test_what_passes_is_the_sum_of_edges() -> None:
    table = story(circuit_view("copies", size=7)).table
    assert table is not None
    assert table.rows == (
        ("the prompt → MLP 0", "+4.00"),
        ("MLP 0 → heads 1.0, 1.2", "+3.00"),  # +2 and +1
        ("heads 1.0, 1.2 → the answer", "+2.50"),  # +3 and −0.5
    )


def large(n_layers: int = 6, n_kv_heads: int = 4) -> CircuitView:
    """Every layer's first head reads its MLP before and writes to its own, down to the answer."""
    nodes = [CircuitNode(name="input", kind="input"), CircuitNode(name="logits", kind="logits")]
    for layer in range(n_layers):
        nodes += [
            CircuitNode(name=f"a{layer}.h{at}", kind="head", layer=layer, index=at)
            for at in range(4)
        ]
        nodes.append(CircuitNode(name=f"m{layer}", kind="mlp", layer=layer))
        nodes.append(CircuitNode(name=f"a{layer}.kv0", kind="kv", layer=layer, index=0))
    ways = [("input", "a0.h0")]
    for layer in range(n_layers):
        ways += [(f"a{layer}.h0", f"m{layer}"), (f"m{layer}", f"a{layer + 1}.h0")]
    ways[-1] = (f"m{n_layers - 1}", "logits")
    ways.append(("input", "a1.kv0"))
    edges = [
        CircuitEdge(source=a, target=b, score=20.0 - at, rank=at + 1)
        for at, (a, b) in enumerate(ways)
    ]
    size = CircuitSize(edges=len(edges), faithfulness=Estimate(1, 1, 1))
    return CircuitView(
        title="T", shows="S", n_layers=n_layers, n_heads=4, n_kv_heads=n_kv_heads, total=99,
        nodes=tuple(nodes), edges=tuple(edges), sizes=(size,),
    )  # fmt: skip


def test_at_most_nine_parts_are_shown_and_the_rest_counted() -> None:
    figure = story(large())
    assert len(shown(figure.svg)) == 9
    assert "3 weaker parts left out" in figure.svg


@pytest.mark.parametrize("groups", [4, 2, 1])
def test_shared_keys_and_values_count_for_the_heads_that_write(groups: int) -> None:
    figure = story(large(3, groups))
    assert figure.table is not None
    rows = [row[0] for row in figure.table.rows]
    # the edge into the shared keys goes to the one head of its group that writes: head 1.0
    assert "the prompt → head 1.0" in rows


def test_boxes_keep_apart_and_inside() -> None:
    for view in (large(), large(3), circuit_view("a role of quite a few words " * 3, size=7)):
        svg = str(story(view).svg)
        place = r'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)" class="group"'
        boxes = [tuple(map(float, found)) for found in re.findall(place, svg)]
        assert boxes
        width, height = map(float, re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)[0])
        for at, (x, y, w, h) in enumerate(boxes):
            assert x + w <= width
            assert y + h <= height
            for a, b, c, d in boxes[at + 1 :]:
                assert x + w <= a or a + c <= x or y + h <= b or b + d <= y
