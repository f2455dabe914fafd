"""A head that is chosen in one figure of a report is seen in all of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import BINARY, Page, chromium
from view_samples import report

from cutaway.views import Report, Section, bars, heatmap, scatter, write

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BINARY is None, reason="no Chromium on PATH"),
]
SHOWN = (
    "[...document.querySelectorAll('.following button')].filter(b => !b.hidden)"
    ".map(b => b.textContent)"
)
BAR = "document.querySelector('.following')"
MARKED = (
    "[...document.querySelectorAll('.card')].flatMap((card, at) => "
    "card.matches('.holding') ? [card.dataset.part ?? card.querySelector("
    "'svg [data-part].chosen').dataset.part] : [])"
)


@pytest.fixture
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        opened.open(write(report(), tmp_path_factory.mktemp("report") / "report.html"))
        yield opened


def test_a_head_chosen_in_a_heatmap_is_chosen_in_the_circuit(page: Page) -> None:
    page.evaluate(
        "document.querySelector('[data-r][data-part=\"a1.h2\"]')"
        ".dispatchEvent(new MouseEvent('click', {bubbles: true}))"
    )
    assert page.evaluate(MARKED) == ["a1.h2"] * 5
    assert "Head 1.2" in page.evaluate("document.querySelector('.circuit-card').innerText")
    assert page.evaluate(f"{BAR}.innerText").startswith("Head 1.2, L0H1 is chosen, in 5 figures")
    assert page.complaints == []


def test_the_bar_goes_from_figure_to_figure_and_lets_go(page: Page) -> None:
    page.evaluate("document.querySelector('.circuit-part[data-part=\"a1.h2\"]').focus()")
    page.press("Enter", 13)
    page.evaluate("document.documentElement.style.scrollBehavior = 'auto'")
    seen = []
    for _ in range(4):
        page.evaluate(f"{BAR}.querySelectorAll('button')[1].click()")
        seen.append(page.evaluate("scrollY"))
    assert len(set(seen)) == 4
    page.press("Escape", 27)
    assert page.evaluate(f"{BAR}.hidden") is True
    assert page.evaluate(MARKED) == []


def test_a_part_that_one_figure_holds_has_nowhere_else_to_go(page: Page) -> None:
    page.evaluate("document.querySelector('.circuit-part[data-part=input]').focus()")
    page.press("Enter", 13)
    assert page.evaluate(f"{BAR}.innerText").startswith("Input is chosen, in 1 figure")
    assert page.evaluate(SHOWN) == ["Let go"]  # nothing is known of it, so there is nothing to fold


def test_the_panel_tells_what_is_known(page: Page) -> None:
    page.evaluate("document.querySelector('svg [data-part=m0]').focus()")
    page.evaluate("document.querySelector('.circuit-part[data-part=m0]').focus()")
    page.press("Enter", 13)
    facts = f"{BAR}.querySelector('.following-facts')"
    assert page.evaluate(f"{facts}.innerText.split('\\n')") == ["adds", "L0H1"]
    assert page.evaluate(SHOWN) == ["Previous figure", "Next figure", "Less", "Let go"]
    page.evaluate(f"{BAR}.querySelectorAll('button')[2].click()")
    assert page.evaluate(f"{facts}.hidden") is True
    page.evaluate("document.querySelector('.circuit-part[data-part=\"a1.h2\"]').focus()")
    page.press("Enter", 13)
    assert page.evaluate(f"{facts}.hidden") is True  # folded stays folded
    page.evaluate(f"{BAR}.querySelectorAll('button')[2].click()")
    assert page.evaluate(f"{facts}.innerText.split('\\n')") == ["L0H1", "L0H1", "b", "c"]


def test_text_chooses_what_it_names_and_is_marked(page: Page) -> None:
    mentions = "[...document.querySelectorAll('.mention')]"
    said = page.evaluate(f"{mentions}.map(m => [m.textContent, m.dataset.part])")
    # what the report knows nothing of (MLP 9) stays text
    assert said[:3] == [["Head 1.2", "a1.h2"], ["0", "m0"], ["MLP 0", "m0"]]
    page.evaluate(f"{mentions}[0].click()")
    assert page.evaluate(f"{BAR}.innerText").startswith("Head 1.2, L0H1 is chosen")
    pressed = f"{mentions}.filter(m => m.ariaPressed === 'true').map(m => m.dataset.part)"
    assert set(page.evaluate(pressed)) == {"a1.h2"}
    assert page.evaluate("document.getElementById('choose').value") == "a1.h2"
    assert page.complaints == []


def test_the_masthead_s_list_chooses_by_keyboard(page: Page) -> None:
    page.evaluate("document.getElementById('choose').focus()")
    page.press("ArrowDown", 40)
    page.press("ArrowDown", 40)
    assert page.evaluate(f"{BAR}.innerText").startswith("MLP 0 is chosen")
    page.press("Escape", 27)
    assert page.evaluate("document.getElementById('choose').value") == ""


def test_bars_points_and_rows_choose_by_keyboard(tmp_path: Path, page: Page) -> None:
    shown = [
        bars(["head 0.1", "MLP 1", "embedding"], [1, -2, 3], title="B", shows="S"),
        scatter([1.0, 2.0], [1.0, 2.0], ["MLP 3 at end", "head 0.1 at S2"], title="P", shows="S"),
        heatmap([[1.0, 2.0]], ["0"], ["S1", "end"], title="H", shows="S", column_axis="position",
                row_parts=["m0"]),
    ]  # fmt: skip
    page.open(write(Report(title="T", sections=(Section(heading="H", figures=tuple(shown)),)),
                    tmp_path / "report.html"))  # fmt: skip
    found = []
    for at in range(3):
        page.evaluate(f"document.querySelectorAll('.plot > svg')[{at}].focus()")
        page.press(*(("ArrowDown", 40) if at == 0 else ("ArrowRight", 39)))
        page.press("Enter", 13)
        found.append(page.evaluate(f"{BAR}.innerText").split(" is chosen")[0])
        page.press("Escape", 27)
    assert found == ["MLP 1", "Head 0.1", "MLP 0"]
    assert page.complaints == []


@pytest.mark.parametrize(
    ("axes", "rows", "columns", "parts"),
    [
        (("layer", "head"), ["0", "1"], ["0", "1"], ["a0.h0", "a0.h1", "a1.h0", "a1.h1"]),
        (("head", "position"), ["0.1", "3.2"], ["S1", "end"], ["a0.h1"] * 2 + ["a3.h2"] * 2),
        (("layer", "position"), ["0", "1"], ["S1", "end"], []),
        (("layer", "head"), ["embed", "1"], ["0", "x"], ["a1.h0"]),
    ],
)
def test_cells_stand_for_heads(
    axes: tuple[str, str], rows: list[str], columns: list[str], parts: list[str]
) -> None:
    values = [[1.0, 2.0], [3.0, 4.0]]
    figure = heatmap(
        values, rows, columns, title="T", shows="S", row_axis=axes[0], column_axis=axes[1]
    )
    found = [each.split('"')[0] for each in figure.svg.split('data-part="')[1:]]
    assert found == parts
