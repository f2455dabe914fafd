import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import xarray as xr
from view_samples import TOKENS, estimate, figures, pattern

from cutaway.views import (
    Estimate,
    Figure,
    Panel,
    Series,
    Total,
    ViewError,
    attention,
    bars,
    distribution,
    dots,
    heatmap,
    lens_curve,
    scatter,
)
from cutaway.views.figure import figure_css

SAID = {"title": "A title", "shows": "A sentence."}
KINDS = [
    "heatmap", "lens", "lens_curve", "rows", "columns", "attention", "breakdown", "distribution",
    "amounts", "scatter", "circuit",
]  # fmt: skip


def words(figure: Figure) -> str:
    return " ".join(ET.fromstring(figure.svg).itertext())


def hints(figure: Figure) -> list[str]:
    return [
        element.text or "" for element in ET.fromstring(figure.svg).iter() if "title" in element.tag
    ]


@pytest.mark.parametrize("index", range(len(KINDS)), ids=KINDS)
def test_every_figure_is_well_formed_described_and_the_same_twice(index: int) -> None:
    figure, again = figures()[index], figures()[index]
    root = ET.fromstring(figure.svg)
    assert root.get("role") == "img"
    assert root.get("aria-label")
    assert figure.title in figure.alt
    assert figure.shows in figure.alt
    assert figure.table is not None
    assert figure == again
    assert ET.fromstring(figure.standalone()).tag.endswith("svg")
    assert not re.search(r'="(nan|inf|-inf)', figure.svg)


@pytest.mark.parametrize("index", range(len(KINDS)), ids=KINDS)
def test_every_class_drawn_has_a_rule(index: int) -> None:
    root = ET.fromstring(figures()[index].svg)
    rules = set(re.findall(r"\.([a-z]+[0-9]*)", figure_css()))
    drawn = {name for element in root.iter() for name in (element.get("class") or "").split()}
    # ticks look as all text does; cells, rooms are for the page and its script
    assert drawn - rules <= {"tick", "cell", "cutaway", "narrow", "middle", "broad"}


@pytest.mark.parametrize("index", range(len(KINDS)), ids=KINDS)
def test_nothing_is_drawn_outside_the_picture(index: int) -> None:
    root = ET.fromstring(figures()[index].svg)
    width, height = float(root.get("width", "")), float(root.get("height", ""))
    for element in root.iter():
        for name, end in (
            ("x", width),
            ("cx", width),
            ("x1", width),
            ("y", height),
            ("y2", height),
        ):
            assert -1 <= float(element.get(name, "0")) <= end + 1, ET.tostring(element)


def test_a_heatmap_says_every_label_value_and_interval() -> None:
    values = xr.DataArray(np.array([[0.5, -1.25], [0.0, math.nan]]), dims=("layer", "head"))
    figure = heatmap(
        values,
        ["0", "1"],
        ["a", "b"],
        lows=values - 0.1,
        highs=values + 0.1,
        ends=("worse", "better"),
        **SAID,
    )
    said = hints(figure)
    assert "layer 0, head b: effect −1.25 (95\u00a0% CI −1.35 to −1.15)" in said
    assert "layer 1, head b: effect not measured" in said
    assert len(said) == 4
    for text in ("a", "b", "0", "1", "layer", "head", "worse", "better", "+1.25", "−1.25"):
        assert text in words(figure)
    assert figure.table is not None
    assert figure.table.rows[0] == (
        "0",
        "0.50 (95\u00a0% CI 0.40 to 0.60)",
        "−1.25 (95\u00a0% CI −1.35 to −1.15)",
    )


def test_a_heatmap_colours_sign_and_size() -> None:
    figure = heatmap([[1.0, -1.0, 0.0, 0.5]], ["0"], list("abcd"), **SAID)
    cells = [e.get("class") for e in ET.fromstring(figure.svg).iter() if e.get("data-r")]
    assert cells == ["cell d40", "cell d0", "cell d20", "cell d30"]


def test_a_heatmap_says_when_its_scale_clips() -> None:
    figure = heatmap([[3.0, 0.0]], ["0"], ["a", "b"], limit=1, **SAID)
    assert "≥ +1.00" in words(figure)
    assert "≤" not in words(figure)


@pytest.mark.parametrize("shape", [(1, 1), (12, 12), (48, 15), (80, 64)])
def test_heatmaps_of_all_sizes(shape: tuple[int, int]) -> None:
    rows, columns = ([str(index) for index in range(n)] for n in shape)
    figure = heatmap(np.zeros(shape), rows, columns, **SAID)
    assert len(hints(figure)) == shape[0] * shape[1]
    assert float(ET.fromstring(figure.svg).get("width", "")) < 1100


def test_bars_say_every_part_and_the_sum_check() -> None:
    total = Total(parts=estimate(1.0), measured=estimate(1.01), largest_gap=0.01)
    labels = [f"L{index}" for index in range(30)]
    for count in (5, 30):
        figure = bars(labels[:count], np.linspace(-1, 1, count), total=total, **SAID)
        assert {hint.split(":")[0] for hint in hints(figure)} >= set(labels[:count])
        for text in ("sum of the parts", "+1.00", "measured logit difference", "+1.01", "1.0e-02"):
            assert text in words(figure)
        assert figure.table is not None
        assert len(figure.table.rows) == count + 2


def test_bars_are_as_long_as_their_values() -> None:
    figure = bars(["a", "b"], [2.0, -1.0], **SAID)
    drawn = [e for e in ET.fromstring(figure.svg).iter() if "bar" in (e.get("class") or "").split()]
    assert [e.get("class") for e in drawn] == ["bar positive", "bar negative"]
    first, second = (float(e.get("width", "")) for e in drawn)
    assert first == pytest.approx(2 * second, abs=0.05)


def test_attention_draws_only_what_a_query_can_see() -> None:
    figure = attention(pattern(len(TOKENS)), TOKENS, query=4, **SAID)
    assert len(hints(figure)) == len(TOKENS) * (len(TOKENS) + 1) / 2
    assert figure.live is not None
    assert figure.live.beside
    assert figure.live.data["query"] == 4
    for rows in (figure.live.data["weights"], figure.live.data["shades"]):
        assert [len(row) for row in rows] == list(range(1, len(TOKENS) + 1))  # type: ignore[attr-defined]
    for token in TOKENS:
        assert words(figure).count(token.strip()) >= 2


def test_dots_leave_out_what_was_not_measured() -> None:
    nothing = Estimate(math.nan, math.nan, math.nan)
    panel = Panel(measure="score", estimates=(estimate(1), nothing))
    figure = dots(["a", "b"], [panel], counts=[3, 4], **SAID)
    assert figure.svg.count("<circle") == 1
    assert "n/a" in words(figure)
    assert "n = 4" in words(figure)


def test_a_long_name_takes_two_lines_and_stays_whole_on_hover() -> None:
    name = "When {A} and {B} went to the {place}, {B} gave a {object} to somebody else"
    panel = Panel(measure="score", estimates=(estimate(1),))
    figure = dots([name], [panel], **SAID)
    assert name in hints(figure)
    assert "went to the" in words(figure)


def test_a_distribution_counts_every_example() -> None:
    clean, corrupt = np.linspace(-1, 5, 40), np.full(7, -2.0)
    figure = distribution(clean, corrupt, shows="A sentence.")
    counts = [re.match(r"(\w+): (\d+) of", hint) for hint in hints(figure)]
    found = {"clean": 0, "corrupt": 0}
    for match in counts:
        assert match
        found[match[1]] += int(match[2])
    assert found == {"clean": 40, "corrupt": 7}


@pytest.mark.parametrize("value", [0.0, 3.0, -2.0, 1e-12, 1e9])
def test_a_distribution_of_one_value(value: float) -> None:
    figure = distribution([value], [value], shows="A sentence.")
    assert ET.fromstring(figure.svg) is not None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: heatmap([1.0], ["0"], ["a"], **SAID), r"shape \(1,\).*2 axes"),
        (lambda: heatmap([[1.0]], ["0", "1"], ["a"], **SAID), "1 entries but 2 rows"),
        (lambda: heatmap([[1.0]], ["0"], ["a"], lows=[[1.0, 2.0]], **SAID), r"have \(1, 2\)"),
        (lambda: heatmap(np.zeros((0, 3)), [], list("abc"), **SAID), "non-empty"),
        (lambda: bars(["a"], [1.0, 2.0], **SAID), "2 entries but 1 labels"),
        (lambda: bars(["a"], [1.0], [0.0, 0.0], [1.0], **SAID), "2 interval ends"),
        (lambda: attention(np.eye(2), ["a", "b"], query=2, **SAID), "Query 2.*2 tokens"),
        (lambda: attention(np.eye(2), ["a"], **SAID), "2 entries but 1 tokens"),
        (lambda: distribution([1.0, math.nan], [0.0], shows=""), "1 of 3 values"),
        (lambda: lens_curve([], ["0"], shows=""), "0 series"),
        (
            lambda: lens_curve([Series(name="a", estimates=(estimate(1),))], ["0", "1"], shows=""),
            "1 entries but 2 layers",
        ),
        (lambda: dots([], [], **SAID), "0 rows and 0 panels"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_a_sentence(make, message: str) -> None:
    with pytest.raises(ViewError, match=message):
        make()


def test_a_heatmap_tells_p_values_with_their_values() -> None:
    figure = heatmap([[1.0, -2.0]], ["0"], ["0", "1"], p=[[0.012, 0.00001]], **SAID)
    assert "layer 0, head 0: effect +1.00, p = 0.012" in hints(figure)
    assert figure.table is not None
    assert figure.table.rows == (("0", "1.00, p = 0.012", "−2.00, p < 0.0001"),)
    with pytest.raises(ViewError, match=r"shape \(1, 2\) but its intervals or p-values have"):
        heatmap([[1.0, -2.0]], ["0"], ["0", "1"], p=[[0.5]], **SAID)


def test_amounts_have_a_ramp_from_nothing() -> None:
    figure = heatmap([[0.0, 0.5, 1.0]], ["0"], list("012"), signed=False, limit=1.0, **SAID)
    drawn = re.findall(r'class="cell (\w+)"', figure.svg)
    assert drawn == ["s0", "s10", "s20"]
    assert "−1.00" not in words(figure)


def test_a_scatter_puts_agreement_on_the_diagonal_and_names_the_furthest() -> None:
    points = np.array([-3.0, 0.0, 2.0, 4.0, 1.0])
    off = points + np.array([0, 0, 0, 0, 2.5])
    figure = scatter(points, off, ["a", "b", "c", "d", "e"], **SAID)
    root = ET.fromstring(figure.svg)
    diagonal = next(e for e in root.iter() if e.get("class") == "reference")
    x1, y1, x2, y2 = (float(diagonal.get(name, "")) for name in ("x1", "y1", "x2", "y2"))
    at = [(float(e.get("cx", "")), float(e.get("cy", ""))) for e in root.iter() if e.get("cx")]
    along = [y1 + (x - x1) / (x2 - x1) * (y2 - y1) - y for x, y in at]
    assert along[:4] == pytest.approx([0] * 4, abs=0.1)
    assert along[4] > 50
    assert "furthest apart: e: estimated +3.50, exact +1.00" in figure.alt
    with pytest.raises(ViewError, match="5 entries but 1 names"):
        scatter(points, off, ["a"], **SAID)
