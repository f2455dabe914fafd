"""Widgets: what they share with Python, and that the client draws them in a cell."""

import json
import re
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import BINARY, Page, chromium
from view_samples import TOKENS, circuit_view, figures

from cutaway.views import Figure, ViewError, circuit
from cutaway.views.widgets import FigureWidget, widget

HOST = """<!DOCTYPE html><html lang="en"><head><title>Notebook</title></head>
<body data-jp-theme-light="{light}"><style>{css}</style><div id="cell"></div>
<script type="text/plain" id="esm">{esm}</script>
<script type="application/json" id="state">{state}</script>
<script>
// What anywidget gives a widget: named values, and news of their changes.
const values = JSON.parse(document.getElementById("state").textContent);
const heard = new Map();
window.saved = [];
window.model = {{
  get: (name) => values[name],
  set: (name, value) => {{
    if (values[name] === value) return;
    values[name] = value;
    for (const listener of heard.get("change:" + name) ?? []) listener();
  }},
  save_changes: () => window.saved.push({{ chosen: values.chosen, size: values.size }}),
  on: (event, listener) => heard.set(event, [...(heard.get(event) ?? []), listener]),
  off: (event, listener) => heard.set(event, heard.get(event).filter((l) => l !== listener)),
}};
const text = document.getElementById("esm").textContent;
window.ready = import(URL.createObjectURL(new Blob([text], {{ type: "text/javascript" }})))
  .then((found) => {{
    const el = document.getElementById("cell");
    window.end = found.default.render({{ model: window.model, el }});
  }});
</script></body></html>
"""
HOSTILE = "</script><img src=x onerror='window.broken=1'>\u2028\u202e👩\u200d👧"
DRAWN = "document.querySelectorAll('.circuit-drawing .edge:not(.off)').length"


def made() -> FigureWidget:
    return widget(circuit(circuit_view()))


def test_it_shares_what_the_client_draws_from() -> None:
    shared = made().get_state()
    assert shared["kind"] == "circuit"
    assert shared["title"] == "writes the answer"
    assert (shared["chosen"], shared["size"]) == ("", None)
    assert [stop["edges"] for stop in shared["data"]["stops"]] == [2, 4, 7]
    json.dumps(shared["data"], allow_nan=False)


def test_every_figure_is_a_widget() -> None:
    for figure in figures():
        shared = widget(figure).get_state()
        in_place = figure.live is not None and not figure.live.beside
        assert (shared["drawing"] is None) == in_place
        assert shared["drawing"] is not None or shared["kind"]
        json.dumps([shared["drawing"], shared["data"]], allow_nan=False)


def test_results_and_circuits_are_one_call_away() -> None:
    class Effects:
        def plot(self, head: int) -> Figure:
            return figures()[head]

    assert widget(Effects(), head=5).kind == "attention"
    assert widget(circuit_view()).get_state()["data"] == made().get_state()["data"]
    with pytest.raises(ViewError, match="is drawn as it is"):
        widget(figures()[0], head=5)


def test_a_figure_shows_itself_in_a_notebook_and_leaks_no_style() -> None:
    for figure in figures((HOSTILE, *TOKENS), HOSTILE):
        page = figure._repr_html_()  # pyright: ignore[reportPrivateUsage]
        assert page.startswith('<figure style="margin:0"><img src="data:image/svg+xml;base64,')
        assert re.findall(r"<(\w+)", page) == ["figure", "img", "figcaption"]
        drawn = b64decode(page.split("base64,")[1].split('"')[0]).decode()
        assert drawn == figure.standalone()


def test_without_anywidget_one_sentence_says_what_to_do() -> None:
    code = (
        "import sys; sys.modules['anywidget'] = None\n"
        "from cutaway.errors import CutawayError\n"
        "try: import cutaway.views.widgets\n"
        "except CutawayError as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == (
        "Widgets need the package anywidget, which is not installed; "
        "pip install 'cutaway[notebook]'."
    )


# ── in a browser ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if BINARY is None:
        pytest.skip("no Chromium on PATH")
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def host(page: Page, tmp_path: Path) -> Page:
    return opened(page, tmp_path)


def opened(page: Page, folder: Path, light: str = "true", figure: Figure | None = None) -> Page:
    shared = (widget(figure) if figure else made()).get_state()
    kept = ("kind", "title", "shows", "data", "drawing", "chosen", "size")
    state = json.dumps({name: shared[name] for name in kept}).replace("<", "\\u003c")
    file = folder / "notebook.html"
    file.write_text(
        HOST.format(css=shared["_css"], esm=shared["_esm"], state=state, light=light), "utf-8"
    )
    page.open(file)
    page.call("Runtime.evaluate", expression="window.ready", awaitPromise=True)
    return page


@pytest.mark.browser
def test_it_draws_in_a_cell_and_asks_for_nothing(host: Page) -> None:
    assert host.evaluate("document.querySelectorAll('#cell .cutaway-widget').length") == 1
    assert host.evaluate(DRAWN) == 7
    assert host.evaluate("document.querySelector('#cell figcaption').innerText").startswith("A sen")
    assert host.complaints == []
    assert host.requests == []


@pytest.mark.browser
def test_size_and_choice_are_shared_both_ways(host: Page) -> None:
    host.evaluate("model.set('size', 5)")
    assert host.evaluate(DRAWN) == 4
    host.evaluate("model.set('chosen', 'a1.h2')")
    assert "Head 1.2" in host.evaluate("document.querySelector('.circuit-card').innerText")
    host.evaluate("document.querySelector('[data-part=m0]').focus()")
    host.press("Enter", 13)
    host.press("-", 189)
    assert host.evaluate("saved.at(-1)") == {"chosen": "m0", "size": 2}


@pytest.mark.browser
def test_its_keys_do_not_move_through_the_notebook(host: Page) -> None:
    host.evaluate("window.keys = []; addEventListener('keydown', e => keys.push(e.key)); 0")
    host.evaluate("document.querySelector('.circuit-part[data-part=input]').focus()")
    for key, code in (("ArrowRight", 39), ("Enter", 13), ("Escape", 27)):
        host.press(key, code)
    assert host.evaluate("document.activeElement.dataset.part") == "a0.h1"
    assert host.evaluate("keys") == ["Escape"]
    assert host.evaluate("!!document.activeElement.closest('[data-lm-suppress-shortcuts=true]')")


@pytest.mark.browser
def test_it_ends_without_a_trace(host: Page) -> None:
    host.evaluate("end()")
    assert host.evaluate("document.getElementById('cell').childElementCount") == 0
    host.evaluate("model.set('size', 2)")
    assert host.complaints == []


@pytest.mark.browser
def test_it_follows_the_notebook_s_theme(page: Page, tmp_path: Path) -> None:
    opened(page, tmp_path, light="false")
    theme = "document.querySelector('.cutaway-widget').dataset.theme"
    assert page.evaluate(theme) == "dark"
    page.evaluate("document.body.dataset.jpThemeLight = 'true'")
    assert page.evaluate(theme) == "light"


@pytest.mark.browser
def test_its_styles_stay_inside_the_cell(host: Page) -> None:
    plain = (
        "(() => { const made = document.createElement('p'); document.body.append(made); "
        "const all = () => JSON.stringify([...getComputedStyle(made)]"
        ".map(name => getComputedStyle(made)[name])); const bare = all(); "
        "const names = [...document.styleSheets[0].cssRules].flatMap("
        "rule => rule.cssText.match(/\\.[a-z][a-z0-9-]*/g) ?? []).map(name => name.slice(1))"
        ".filter(name => name !== 'cutaway-widget'); "
        "made.className = [...new Set(names)].join(' '); "
        "return [names.length > 50, bare === all()]; })()"
    )
    assert host.evaluate(plain) == [True, True]


@pytest.mark.browser
def test_a_heatmap_is_read_and_chosen_from_by_keyboard(page: Page, tmp_path: Path) -> None:
    opened(page, tmp_path, figure=figures()[0])
    page.press("Tab", 9)
    page.press("ArrowDown", 40)
    page.press("ArrowRight", 39)
    tip = page.evaluate("document.querySelector('.tip:not([hidden])').textContent")
    assert tip.startswith("layer 1, head 1: L0H1 ")
    page.press("Enter", 13)
    assert page.evaluate("saved.at(-1).chosen") == "a1.h1"
    page.evaluate("model.set('chosen', 'a2.h0')")
    marked = "[...document.querySelectorAll('.cell.chosen')].map(c => c.dataset.part).join()"
    assert page.evaluate(marked) == "a2.h0"
    assert page.complaints == []


@pytest.mark.browser
def test_attention_over_tokens_follows_the_pointer(page: Page, tmp_path: Path) -> None:
    opened(page, tmp_path, figure=figures()[5])
    chosen = "document.querySelector('.look.chosen')"
    assert page.evaluate(f"{chosen}.dataset.at") == str(len(TOKENS) - 1)
    x, y = page.evaluate(
        "(() => { const b = document.querySelectorAll('.look')[3].getBoundingClientRect(); "
        "return [b.left + b.width / 2, b.top + b.height / 2]; })()"
    )
    page.point(x, y)
    assert page.evaluate(f"{chosen}.dataset.at") == "3"
    assert page.evaluate("document.querySelectorAll('.look.after').length") == len(TOKENS) - 4


@pytest.mark.browser
@pytest.mark.parametrize("at", range(11))
def test_every_figure_draws_in_a_cell(page: Page, tmp_path: Path, at: int) -> None:
    opened(page, tmp_path, figure=figures((HOSTILE, *TOKENS), HOSTILE)[at])
    assert page.evaluate("document.querySelectorAll('#cell svg.cutaway').length") >= 1
    assert page.evaluate("window.broken === undefined && document.images.length === 0")
    assert page.complaints == []
    assert page.requests == []
