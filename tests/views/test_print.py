"""The report on paper: every page has something on it, and nothing live, dark or cut is printed."""

import re
import zlib
from base64 import b64decode
from collections.abc import Iterator

import pytest
from chromium import BINARY, Page, chromium
from view_samples import TOKENS, report

from cutaway.views import write
from cutaway.views.palette import theme

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BINARY is None, reason="no Chromium on PATH"),
]
SEEN = "(e => e.getClientRects().length > 0 && getComputedStyle(e).visibility !== 'hidden')"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def printed(page: Page, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The report, dark and with a part chosen, as a PDF."""
    file = write(report((*TOKENS, "x" * 100_000)), tmp_path_factory.mktemp("report") / "r.html")
    page.open(file, dark=True)
    page.evaluate("document.querySelector('.mention').click()")
    found = page.call("Page.printToPDF", printBackground=True, preferCSSPageSize=True)
    return b64decode(found["data"])


@pytest.fixture
def paper(page: Page, printed: bytes) -> Iterator[Page]:
    """The same page as it is set for printing, to be asked about."""
    page.call("Emulation.setEmulatedMedia", media="print",
              features=[{"name": "prefers-color-scheme", "value": "dark"}])  # fmt: skip
    size = {"width": 688, "height": 950, "deviceScaleFactor": 1, "mobile": False}
    page.call("Emulation.setDeviceMetricsOverride", **size)
    yield page
    page.call("Emulation.setEmulatedMedia", media="")


def drawn(pdf: bytes) -> list[bytes]:
    """What each page of a PDF draws."""
    objects = dict(re.findall(rb"\n(\d+) 0 obj\n(.*?)\nendobj", pdf, re.DOTALL))
    pages = [one for one in objects.values() if re.search(rb"/Type /Page\b(?!s)", one)]
    contents = [objects[re.findall(rb"/Contents (\d+) 0 R", one)[0]] for one in pages]
    return [zlib.decompress(one.partition(b"stream\n")[2]) for one in contents]


def test_no_page_is_blank_and_text_is_text(printed: bytes) -> None:
    pages = drawn(printed)
    assert 4 <= len(pages) <= 40
    for at, one in enumerate(pages):
        assert len(re.findall(rb"\bTj\b|\bTJ\b", one)) > 3, f"page {at + 1} is blank"


def test_links_lead_to_their_sections(printed: bytes) -> None:
    assert b"/Dest /section-2" in printed


def test_what_is_live_stays_on_the_screen(paper: Page) -> None:
    live = ".live, .button, .chooser, .following, .tip, .contents, .copy, .more, .skip"
    assert paper.evaluate(f"[...document.querySelectorAll('{live}')].filter({SEEN}).length") == 0
    drawings = "[...document.querySelectorAll('.plot > svg')]"
    assert paper.evaluate(f"{drawings}.length === {drawings}.filter({SEEN}).length")


def test_it_is_light(paper: Page) -> None:
    ink = paper.evaluate("getComputedStyle(document.body).color")
    red, green, blue = (int(part) for part in re.findall(r"\d+", ink))
    assert f"#{red:02x}{green:02x}{blue:02x}" == theme("light")["ink"]


def test_nothing_is_cut(paper: Page) -> None:
    cut = paper.evaluate(
        "[...document.querySelectorAll('.card, .plot, .plot > svg, .scroll, pre, p')]"
        ".filter(e => e.getClientRects().length && (e.getBoundingClientRect().right > 689 || "
        "e.getBoundingClientRect().left < -1)).map(e => e.className.baseVal ?? e.className)"
    )
    assert cut == []
    tall = (
        "[...document.querySelectorAll('.plot > svg')].map(e => e.getBoundingClientRect().height)"
    )
    assert paper.evaluate(f"Math.max(...{tall})") < 900
    kept = "[...document.querySelectorAll('.card')].map(e => getComputedStyle(e).breakInside)"
    assert set(paper.evaluate(kept)) == {"avoid"}
