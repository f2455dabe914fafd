"""The circuit in a real browser: size, pointer, keyboard, themes, print, and hostile text."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import BINARY, Page, chromium
from view_samples import circuit_view

from cutaway.views import Report, Section, circuit, write
from cutaway.views.palette import contrast, theme

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BINARY is None, reason="no Chromium on PATH"),
]
DRAWN = "[...document.querySelectorAll('.circuit-drawing .edge:not(.off)')]"
CARD = "document.querySelector('.circuit-card').innerText"
PART = "document.querySelector('[data-part=\"{}\"]')"
HOSTILE = "</script><img src=x onerror='window.broken=1'>\u2028\u202e👩\u200d👧" + "x" * 100_000


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def written(folder: Path, name: str = "writes the answer") -> Path:
    figures = (circuit(circuit_view(name)),)
    report = Report(title="T", sections=(Section(heading="H", figures=figures),))
    return write(report, folder / "report.html")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("report"))


def middle(page: Page, expression: str) -> tuple[float, float]:
    page.evaluate(f"{expression}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
    found = page.evaluate(
        f"(() => {{ const b = {expression}.getBoundingClientRect(); "
        "return [b.left + b.width / 2, b.top + b.height / 2]; })()"
    )
    return found[0], found[1]


def focused(page: Page) -> str:
    return page.evaluate("document.activeElement.dataset.part ?? document.activeElement.tagName")


def test_the_view_takes_the_drawing_s_place(page: Page, file: Path) -> None:
    page.open(file)
    assert page.evaluate("document.querySelectorAll('.circuit').length") == 1
    assert page.evaluate("getComputedStyle(document.querySelector('.plot')).display") == "none"
    assert page.evaluate(f"{DRAWN}.length") == 7
    assert page.complaints == []
    assert page.requests == []


def test_print_shows_the_drawing(page: Page, file: Path) -> None:
    page.open(file)
    page.call("Emulation.setEmulatedMedia", media="print")
    shown = "getComputedStyle(document.querySelector('{}')).display"
    assert page.evaluate(shown.format(".plot")) == "block"
    assert page.evaluate(shown.format(".live")) == "none"
    page.call("Emulation.setEmulatedMedia", media="")


def test_the_slider_changes_what_is_drawn_and_what_is_said(page: Page, file: Path) -> None:
    page.open(file)
    page.evaluate("document.querySelector('.circuit input').focus()")
    point = "document.querySelector('.circuit-curve circle').getAttribute('cx')"
    seen = []
    for _ in range(2):
        page.press("ArrowLeft", 37)
        seen.append(
            (
                page.evaluate(f"{DRAWN}.length"),
                page.evaluate("document.querySelector('.circuit-said').innerText"),
                page.evaluate("document.activeElement.getAttribute('aria-valuetext')"),
                float(page.evaluate(point)),
            )
        )
    assert [edges for edges, *_ in seen] == [4, 2]
    assert seen[0][1].startswith("4 of 40 edges (10.0\u00a0%)\nfaithfulness 0.75 (95")
    assert "2 random circuits of this size: 0.00 to 0.10" in seen[0][1]
    assert seen[1][2].startswith("2 of 40 edges (5.0\u00a0%), faithfulness 0.25")
    assert seen[1][3] < seen[0][3]
    unused = page.evaluate(f"{PART.format('a1.h0')}.classList.contains('unused')")
    assert unused is True


def test_a_click_on_the_curve_chooses_the_nearest_size(page: Page, file: Path) -> None:
    page.open(file)
    x, y = middle(page, "document.querySelector('.circuit-curve')")
    seen = []
    for aside in (-100, -40, 100):
        page.click(x + aside, y)
        seen.append(page.evaluate(f"{DRAWN}.length"))
    assert seen == [2, 4, 7]


def test_pointing_at_a_part_says_what_it_attends_to_and_writes(page: Page, file: Path) -> None:
    page.open(file)
    page.point(*middle(page, PART.format("a1.h2")))
    said = page.evaluate(CARD)
    for words in ("Head 1.2", "writes the answer", "attention from end", "75.0", "end",
                  "effect on the answer", "+1.50", "−0.50", "reads from", "M0 (v)", "is read by",
                  "logits"):  # fmt: skip
        assert words in said, words
    lit = page.evaluate(f"{DRAWN}.filter(e => e.classList.contains('lit')).length")
    assert lit == 3
    page.point(2, 2)
    assert page.evaluate(CARD).startswith("First edges")
    assert page.evaluate(f"{DRAWN}.filter(e => e.classList.contains('lit')).length") == 0


def test_pointing_at_an_edge_says_its_score(page: Page, file: Path) -> None:
    page.open(file)
    middle(page, "document.querySelector('.circuit-drawing')")
    x, y = page.evaluate(
        "(() => { const path = document.querySelector('[data-edge=\"2\"]'); "
        "const at = path.getPointAtLength(path.getTotalLength() / 2); "
        "const on = at.matrixTransform(path.getScreenCTM()); return [on.x, on.y]; })()"
    )
    page.point(x, y)
    said = page.evaluate(CARD)
    for words in ("M0 → 1.2", "the value", "+2.00, supports", "joins as number\n3", "33.3"):
        assert words in said, words


def test_a_part_stays_chosen_and_leads_to_its_neighbours(page: Page, file: Path) -> None:
    page.open(file)
    page.click(*middle(page, PART.format("a1.h2")))
    page.point(2, 2)
    assert "Head 1.2" in page.evaluate(CARD)
    assert page.evaluate(f"{PART.format('a1.h2')}.ariaPressed") == "true"
    page.click(*middle(page, "document.querySelector('.circuit-way')"))
    assert page.evaluate(f"{PART.format('m0')}.ariaPressed") == "true"
    assert focused(page) == "m0"


def test_it_can_be_used_from_the_keyboard_alone(page: Page, file: Path) -> None:
    page.open(file)
    page.evaluate("document.querySelector('.circuit input').focus()")
    page.press("Tab", 9)
    assert focused(page) == "input"
    walked = []
    right, up, down = ("ArrowRight", 39), ("ArrowUp", 38), ("ArrowDown", 40)
    for key, code in (right, right, right, up, down, right):
        page.press(key, code)
        walked.append(focused(page))
    assert walked == ["a0.h1", "m0", "a1.h2", "a1.h0", "a1.h2", "logits"]
    page.press("Enter", 13)
    assert page.evaluate("document.activeElement.ariaPressed") == "true"
    page.press("-", 189)
    assert page.evaluate(f"{DRAWN}.length") == 4
    page.press("+", 187)
    assert page.evaluate(f"{DRAWN}.length") == 7
    page.press("Escape", 27)
    assert page.evaluate("document.querySelectorAll('[aria-pressed=true][data-part]').length") == 0
    assert page.evaluate("document.querySelectorAll('[data-part][tabindex=\"0\"]').length") == 1


def test_every_part_in_the_circuit_has_a_name_that_tells_it(page: Page, file: Path) -> None:
    page.open(file)
    names = page.evaluate(
        "[...document.querySelectorAll('[data-part]:not([aria-hidden])')]"
        ".map(p => p.getAttribute('aria-label'))"
    )
    assert len(names) == 7 - 1
    told = next(name for name in names if name.startswith("Head 1.2"))
    assert "attention from end writes the answer 75.0" in told
    assert told.endswith("2 edges in, 1 out")


@pytest.mark.parametrize("dark", [False, True])
def test_it_takes_the_theme_s_colours_and_can_be_read(page: Page, file: Path, dark: bool) -> None:
    page.open(file, dark=dark)
    colours = theme("dark" if dark else "light")
    stroke = page.evaluate("getComputedStyle(document.querySelector('.edge.negative')).stroke")
    red, green, blue = (int(part) for part in re.findall(r"\d+", stroke))
    assert f"#{red:02x}{green:02x}{blue:02x}" == colours["negative"]
    for ink, ground in (("ink", "card"), ("soft", "card"), ("ink", "band")):
        assert contrast(colours[ink], colours[ground]) >= 4.5
    for line in ("positive", "negative", "focus"):
        assert contrast(colours[line], colours["card"]) >= 3


@pytest.mark.parametrize("width", [360, 1280])
def test_it_stays_inside_the_page(page: Page, file: Path, width: int) -> None:
    page.open(file, width=width)
    page.click(*middle(page, PART.format("a1.h2")))
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_hostile_text_does_nothing(page: Page, tmp_path: Path) -> None:
    page.open(written(tmp_path, HOSTILE))
    page.click(*middle(page, PART.format("a1.h2")))
    assert "</script><img" in page.evaluate(CARD)
    assert page.evaluate("window.broken === undefined && document.images.length === 0")
    assert page.complaints == []
    assert page.requests == []


def test_a_large_model_scrolls_and_shows_what_is_chosen(page: Page, file: Path) -> None:
    page.open(file, width=360)
    room = "document.querySelector('.circuit-room')"
    assert page.evaluate(f"{room}.scrollWidth > {room}.clientWidth")
    page.evaluate(
        "document.querySelector('.circuit-part[data-part=logits]').focus({preventScroll: true})"
    )
    before = page.evaluate(f"{room}.scrollLeft")
    page.press("Enter", 13)
    assert (before, page.evaluate(f"{room}.scrollLeft > 0")) == (0, True)


def test_without_scripts_the_drawing_stays(page: Page, file: Path) -> None:
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.open(file)
        assert page.evaluate("document.querySelector('.plot').getBoundingClientRect().height") > 100
        assert page.evaluate("document.querySelector('.live').getBoundingClientRect().height") == 0
    finally:
        page.call("Emulation.setScriptExecutionDisabled", value=False)
