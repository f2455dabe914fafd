"""An automated accessibility check (axe-core) of the report and of a widget, in both themes.

axe-core is a development dependency of `web/`; nothing of it is in the package.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import BINARY, Page, chromium
from test_widgets import opened
from view_samples import report

from cutaway.views import write

AXE = Path(__file__).parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BINARY is None, reason="no Chromium on PATH"),
    pytest.mark.skipif(not AXE.exists(), reason="no axe-core; cd web && npm ci"),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(report(), tmp_path_factory.mktemp("report") / "report.html")


def problems(page: Page) -> list[str]:
    """What axe finds wrong with the page as it is."""
    page.evaluate(AXE.read_text("utf-8") + ";0")
    options = json.dumps({"runOnly": {"type": "tag", "values": RULES}})
    found: dict[str, Any] = page.call(
        "Runtime.evaluate", expression=f"axe.run(document, {options}).then(r => r.violations)",
        awaitPromise=True, returnByValue=True,
    )["result"]["value"]  # fmt: skip
    return [
        f"{each['id']}: {node['target']} {node['failureSummary']}"
        for each in found
        for node in each["nodes"]
    ]


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_the_report_passes(page: Page, file: Path, dark: bool, width: int) -> None:
    page.open(file, dark=dark, width=width)
    assert problems(page) == []
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    page.evaluate("document.querySelector('.circuit-drawing [data-part=\"a1.h2\"]').dispatchEvent("
                  "new MouseEvent('click', {bubbles: true}))")  # fmt: skip
    assert (
        page.evaluate(
            "document.querySelector('.circuit-drawing [data-part=\"a1.h2\"]').ariaPressed"
        )
        == "true"
    )
    assert problems(page) == []


def test_the_check_finds_what_is_wrong(page: Page, file: Path) -> None:
    page.open(file)
    page.evaluate("document.querySelector('.circuit input').labels[0].remove()")
    page.evaluate("document.querySelector('.circuit-head').style.color = '#ddd'")
    found = " ".join(problems(page))
    assert "label" in found
    assert "color-contrast" in found


@pytest.mark.parametrize("light", ["true", "false"])
def test_a_widget_passes(page: Page, tmp_path: Path, light: str) -> None:
    opened(page, tmp_path, light)
    page.evaluate("model.set('chosen', 'a1.h2')")
    own = [each for each in problems(page) if ".circuit" in each or "cutaway" in each]
    assert own == []
