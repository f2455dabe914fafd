"""A head that is chosen in one figure of a report is seen in all of them."""

from collections.abc import Iterator

import pytest
from chromium import BINARY, Page, chromium
from view_samples import report

from cutaway.views import heatmap, write

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BINARY is None, reason="no Chromium on PATH"),
]
BAR = "document.querySelector('.following')"
MARKED = (
    "[...document.querySelectorAll('.card')].flatMap((card, at) => "
    "card.matches('.holding') ? [card.dataset.part ?? card.querySelector("
    "'[data-r].chosen, .circuit-part.chosen').dataset.part] : [])"
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
    assert page.evaluate(MARKED) == ["a1.h2"] * 4
    assert "Head 1.2" in page.evaluate("document.querySelector('.circuit-card').innerText")
    assert page.evaluate(f"{BAR}.innerText").startswith("Head 1.2 is chosen, in 4 figures")
    assert page.complaints == []


def test_the_bar_goes_from_figure_to_figure_and_lets_go(page: Page) -> None:
    page.evaluate("document.querySelector('.circuit-part[data-part=\"a1.h2\"]').focus()")
    page.press("Enter", 13)
    page.evaluate("document.documentElement.style.scrollBehavior = 'auto'")
    seen = []
    for _ in range(3):
        page.evaluate(f"{BAR}.querySelectorAll('button')[1].click()")
        seen.append(page.evaluate("scrollY"))
    assert len(set(seen)) == 3
    page.press("Escape", 27)
    assert page.evaluate(f"{BAR}.hidden") is True
    assert page.evaluate(MARKED) == []


def test_a_part_that_one_figure_holds_has_nowhere_else_to_go(page: Page) -> None:
    page.evaluate("document.querySelector('.circuit-part[data-part=\"m0\"]').focus()")
    page.press("Enter", 13)
    assert page.evaluate(f"{BAR}.innerText").startswith("MLP 0 is chosen, in 1 figure")
    assert page.evaluate(f"{BAR}.querySelectorAll('button:not([hidden])').length") == 1


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
