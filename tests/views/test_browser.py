"""The report in a real browser: it draws, it keeps quiet, and it can be used without a mouse."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import BINARY, Page, chromium
from view_samples import TOKENS, report

from cutaway.views import write
from cutaway.views.palette import theme

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BINARY is None, reason="no Chromium on PATH"),
]
TAB, RIGHT, DOWN, LEFT = ("Tab", 9), ("ArrowRight", 39), ("ArrowDown", 40), ("ArrowLeft", 37)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(report(), tmp_path_factory.mktemp("report") / "report.html")


def background(page: Page) -> str:
    painted = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return "#" + "".join(f"{int(part):02x}" for part in re.findall(r"\d+", painted))


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_it_draws_quietly_in_both_themes_and_widths(
    page: Page, file: Path, width: int, dark: bool
) -> None:
    page.open(file, width=width, dark=dark)
    assert background(page) == theme("dark" if dark else "light")["page"]
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.complaints == []
    assert page.requests == []
    assert page.picture(whole=False).startswith(b"\x89PNG")


def test_the_button_changes_the_theme(page: Page, file: Path) -> None:
    page.open(file)
    page.evaluate("document.getElementById('theme').click()")
    assert background(page) == theme("dark")["page"]
    assert page.evaluate("document.getElementById('theme').textContent") == "Light theme"
    page.evaluate("document.getElementById('theme').click()")
    assert background(page) == theme("light")["page"]


def test_figures_take_the_theme_s_colours(page: Page, file: Path) -> None:
    page.open(file, dark=True)
    fill = page.evaluate("getComputedStyle(document.querySelector('.bar.positive')).fill")
    red, green, blue = (int(part) for part in re.findall(r"\d+", fill))
    assert f"#{red:02x}{green:02x}{blue:02x}" == theme("dark")["positive"]


def test_page_rules_leave_drawings_alone(page: Page, file: Path) -> None:
    """A class named alike in page and figure would stretch or move what is drawn."""
    page.open(file)
    wrong = page.evaluate(
        "[...document.querySelectorAll('svg.cutaway rect')].filter(r => "
        "r.getClientRects().length && "
        "Math.abs(r.getBBox().height - r.getAttribute('height')) > 0.01).length"
    )
    assert wrong == 0


def test_no_words_leave_their_drawing(page: Page, file: Path) -> None:
    page.open(file)
    outside = page.evaluate(
        "[...document.querySelectorAll('svg.cutaway')].flatMap(svg => { "
        "const box = svg.getBoundingClientRect(); "
        "return [...svg.querySelectorAll('text')].filter(t => { "
        "const r = t.getBoundingClientRect(); return r.left < box.left - 3 || "
        "r.right > box.right + 3 || r.bottom > box.bottom + 3; }).map(t => t.textContent); })"
    )
    assert outside == []


@pytest.mark.parametrize("width", [400, 1280])
def test_opened_drawers_stay_inside_the_page(page: Page, file: Path, width: int) -> None:
    page.open(file, width=width)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    wide = page.evaluate(
        "[...document.querySelectorAll('.card')].flatMap(card => "
        "[...card.querySelectorAll('.scroll, .command, .plot, figcaption')].filter(part => "
        "part.getBoundingClientRect().right > card.getBoundingClientRect().right)).length"
    )
    assert wide == 0
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_the_first_stop_skips_to_the_report(page: Page, file: Path) -> None:
    page.open(file)
    page.press(*TAB)
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"


def test_arrow_keys_read_a_heatmap(page: Page, file: Path) -> None:
    page.open(file)
    page.evaluate("document.querySelector('button.copy, .prompts + .more summary').focus()")
    for _ in range(20):
        if page.evaluate("document.activeElement.matches('svg[data-grid=cells]')"):
            break
        page.press(*TAB)
    for key in (RIGHT, DOWN):
        page.press(*key)
    said = page.evaluate("document.getElementById('tip').textContent")
    assert said.startswith("layer 1, head 1: L0H1 ")
    page.evaluate("dispatchEvent(new Event('scroll'))")
    assert page.evaluate("document.getElementById('tip').hidden") is False
    page.press("Escape", 27)
    assert page.evaluate("document.getElementById('tip').hidden") is True


def test_arrow_keys_choose_the_query_token(page: Page, file: Path) -> None:
    page.open(file)
    chosen = "document.querySelector('.look.chosen')"
    last = len(TOKENS) - 1
    assert page.evaluate(f"{chosen}.dataset.at") == str(last)
    page.evaluate(f"{chosen}.focus()")
    page.press(*LEFT)
    assert page.evaluate(f"{chosen}.dataset.at") == str(last - 1)
    assert page.evaluate(f"{chosen}.ariaSelected") == "true"
    assert page.evaluate("document.querySelectorAll('.look.after').length") == 1
    page.press("Home", 36)
    assert page.evaluate("document.querySelectorAll('.look.after').length") == last
