"""Hostile prompts and names in a real browser: inert, in order, and inside the page."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import BINARY, Page, chromium
from test_widgets import opened
from view_samples import HOSTILE, TOKENS, attention, figures, pattern, report

from cutaway.views import write

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BINARY is None, reason="no Chromium on PATH"),
]
LONG = "x" * 100_000
TEXTS = [*HOSTILE, LONG, "👩\u200d👧" * 20_000, "\u0301" * 5_000]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("at", range(len(TEXTS)))
def test_it_does_nothing_in_a_report(page: Page, tmp_path: Path, at: int) -> None:
    text = TEXTS[at]
    file = write(report((text, *TOKENS), text), tmp_path / "hostile.html")
    assert len(file.read_text("utf-8")) < 3_000_000
    for width in (400, 1280):
        page.open(file, width=width)
        page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        page.evaluate("document.querySelector('svg [data-part=\"a1.h2\"]').dispatchEvent("
                      "new MouseEvent('click', {bubbles: true}))")  # fmt: skip
        assert page.evaluate("document.documentElement.scrollWidth") == width
        outside = "[...document.querySelectorAll('main *, .following *')].filter(e => !e.closest("
        outside += "'.plot, .scroll, .circuit-room, .hush, pre') && e.getBoundingClientRect().right"
        outside += f" > {width} + 1).map(e => e.outerHTML.slice(0, 200))"
        assert page.evaluate(outside) == []
    assert page.evaluate("window.broken === undefined && document.images.length === 0")
    assert page.evaluate("document.querySelectorAll('script').length") == 4
    assert page.complaints == []
    assert page.requests == []


@pytest.mark.parametrize("at", range(len(TEXTS)))
def test_it_does_nothing_in_a_widget(page: Page, tmp_path: Path, at: int) -> None:
    text = TEXTS[at]
    shown = attention(pattern(10), (text, *TOKENS), title=text, shows=text)
    for figure in (shown, figures((text, *TOKENS), text)[-1]):
        opened(page, tmp_path, figure=figure)
        assert page.evaluate("window.broken === undefined && document.images.length === 0")
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280
        assert page.complaints == []
        assert page.requests == []


def test_right_to_left_text_keeps_to_itself(page: Page, tmp_path: Path) -> None:
    """Marks that would turn the page round are written out, and every text is isolated."""
    text = "\u202eשלום\u2066"
    page.open(write(report((text, *TOKENS), text), tmp_path / "hostile.html"))
    seen = page.evaluate("document.querySelector('.chip bdi').textContent")
    assert seen == "U+202EשלוםU+2066"
    loose = (
        "[...document.querySelectorAll('h1, h2, h3, p, figcaption, dt, td, th, .chip, .look')]"
        ".filter(e => e.textContent.includes('שלום') && ![e, ...e.querySelectorAll('*')].some("
        "i => getComputedStyle(i).unicodeBidi === 'isolate')).map(e => e.outerHTML)"
    )
    assert page.evaluate(loose) == []


def test_long_tokens_end_in_an_ellipsis(page: Page, tmp_path: Path) -> None:
    page.open(write(report((LONG, *TOKENS), "a head"), tmp_path / "hostile.html"))
    chips = "[...document.querySelectorAll('.chip, .look')].map(e => e.innerText.split('\\n')[0])"
    long = [each for each in page.evaluate(chips) if each.startswith("xx")]
    assert long
    assert {(len(each), each[-1]) for each in long} == {(40, "…")}
