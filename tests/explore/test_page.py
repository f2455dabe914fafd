"""The page in a real browser: by pointer and by keyboard, in both themes, quietly, on loopback."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import BINARY, Page, chromium
from serving import OTHER, PROMPT, Served, Slow

from cutaway.model import Model
from cutaway.views.palette import theme

AXE = Path(__file__).parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
TAB, ENTER, ESCAPE = ("Tab", 9), ("Enter", 13), ("Escape", 27)
RIGHT, DOWN, LEFT = ("ArrowRight", 39), ("ArrowDown", 40), ("ArrowLeft", 37)
ANSWERED = "document.querySelector('main.explorer')?.getAttribute('aria-busy') === 'false'"
CHANGES = "[...document.querySelectorAll('.change-said')].map(e => e.textContent)"
SHARES = "[...document.querySelectorAll('.next-tokens tbody tr')].map(e => e.innerText)"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BINARY is None, reason="no Chromium on PATH"),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def wait(page: Page, condition: str) -> None:
    """Until an expression of the page is true."""
    end = time.monotonic() + 20
    while not page.evaluate(condition):
        assert time.monotonic() < end, (condition, page.complaints)
        time.sleep(0.02)


def opened(page: Page, explorer: Served, *, width: int = 1280, dark: bool = False) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.call("Emulation.setDeviceMetricsOverride", **size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    page.call("Emulation.setEmulatedMedia", features=[scheme])
    page.call("Page.navigate", url="about:blank")
    page.events.clear()
    page.call("Page.navigate", url=explorer.explorer.address)
    wait(page, ANSWERED)


@pytest.fixture
def fresh(page: Page, explorer: Served) -> Iterator[Page]:
    """The page just opened; at the end, it has neither complained nor asked anybody else."""
    opened(page, explorer)
    yield page
    assert page.complaints == []
    assert strangers(page, explorer) == []


def strangers(page: Page, explorer: Served) -> list[str]:
    own = (explorer.own + "/", f"blob:{explorer.own}/")
    return [address for address in page.requests if not address.startswith(own)]


def do(page: Page, script: str) -> None:
    """Something that asks the server, and its answer."""
    page.evaluate(f"{script}; 0")
    wait(page, ANSWERED)


def press(page: Page, *keys: tuple[str, int]) -> None:
    for key in keys:
        page.press(*key)


def click(page: Page, selector: str) -> None:
    """A real click in the middle of an element."""
    x, y = page.evaluate(
        f"(() => {{ const e = document.querySelector({json.dumps(selector)}); "
        "e.scrollIntoView({block: 'center', behavior: 'instant'}); "
        "const b = e.getBoundingClientRect(); "
        "return [b.left + b.width / 2, b.top + b.height / 2]; })()"
    )
    page.click(x, y)


def type_into(page: Page, selector: str, text: str) -> None:
    page.evaluate(f"document.querySelector({json.dumps(selector)}).select()")
    page.call("Input.insertText", text=text)


def titled(page: Page, selector: str) -> Any:
    return page.evaluate(f"document.querySelector({json.dumps(selector)}).textContent")


# ── what is seen ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("width", [700, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_it_draws_quietly_in_both_themes(
    page: Page, explorer: Served, width: int, dark: bool
) -> None:
    opened(page, explorer, width=width, dark=dark)
    painted = page.evaluate("getComputedStyle(document.body).backgroundColor")
    colour = "#" + "".join(f"{int(part):02x}" for part in re.findall(r"\d+", painted))
    assert colour == theme("dark" if dark else "light")["page"]
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("document.querySelectorAll('.lens td').length") == 6 * 15
    assert page.evaluate("document.querySelectorAll('svg[data-grid=cells] [data-part]').length")
    assert "expects Mary, at" in titled(page, ".next-tokens .said")
    assert page.complaints == []
    assert strangers(page, explorer) == []


def test_the_token_leaves_the_address_and_a_reload_keeps_it(fresh: Page, explorer: Served) -> None:
    assert fresh.evaluate("location.href") == explorer.own + "/"
    fresh.call("Page.reload")
    time.sleep(0.2)
    wait(fresh, ANSWERED)
    history = fresh.call("Page.getNavigationHistory")["entries"]
    assert not any(explorer.explorer.token in entry["url"] for entry in history)


def test_without_the_token_one_sentence_says_what_to_do(page: Page, explorer: Served) -> None:
    page.call("Page.navigate", url="about:blank")
    page.call("Page.navigate", url=f"{explorer.own}/#{'w' * 32}")
    wait(page, "!!document.querySelector('main > .trouble')")
    assert "open the address that cutaway explore printed" in titled(page, "main > .trouble")


# ── with the pointer ─────────────────────────────────────────────────────────────────────────


def test_a_typed_prompt_is_answered_while_it_is_typed(fresh: Page) -> None:
    type_into(fresh, "#prompt", OTHER)
    wait(fresh, "document.querySelector('.next-tokens .said').textContent.includes('Tom')")
    texts = "[...document.querySelectorAll('.asking .look')].map(e => e.textContent)"
    assert fresh.evaluate(texts)[1:5] == ["When", "Tom", "and", "Kate"]
    type_into(fresh, "#prompt", "")
    fresh.press("Backspace", 8)
    wait(fresh, "document.querySelector('.asking .trouble').textContent !== ''")
    assert "at least one character" in titled(fresh, ".asking .trouble")
    fresh.events[:] = [e for e in fresh.events if not refused(e)]


def refused(event: dict[str, Any]) -> bool:
    """The browser's own note that the server refused something."""
    return "status of 400" in json.dumps(event.get("params", {}).get("entry", {}))


def test_a_head_is_ablated_by_clicks_and_given_back(fresh: Page) -> None:
    before = fresh.evaluate(SHARES)
    click(fresh, "[data-part='a2.h1']")
    wait(fresh, "document.querySelector('#part-title').textContent === 'Head 2.1'")
    wait(fresh, "document.body.textContent.includes('Where head 2.1 looks')")
    click(fresh, ".tools .fields .button")
    wait(fresh, f"{CHANGES}.length === 1")
    assert fresh.evaluate(CHANGES) == ["Head 2.1 set to zero everywhere"]
    after = fresh.evaluate(SHARES)
    assert after != before
    assert re.search(r"[+−]\d+\.\d\d", after[0])
    click(fresh, ".shows label:nth-of-type(3)")
    wait(fresh, "document.body.textContent.includes('How the changes move the logit of')")
    click(fresh, ".remove")
    wait(fresh, f"{CHANGES}.length === 0 && {ANSWERED}")
    assert fresh.evaluate(SHARES) == before


def test_a_neuron_is_ablated(fresh: Page) -> None:
    click(fresh, "[data-part='m1']")
    wait(fresh, "document.querySelectorAll('.neurons button').length === 10")
    click(fresh, ".neurons button")
    wait(fresh, "document.querySelector('#part-title').textContent.startsWith('Neuron 1.')")
    name = titled(fresh, "#part-title")
    click(fresh, ".tools .fields .button")
    wait(fresh, f"{CHANGES}.length === 1 && {ANSWERED}")
    assert fresh.evaluate(CHANGES) == [f"{name} set to zero everywhere"]


def test_a_position_is_patched_from_another_prompt(fresh: Page, explorer: Served) -> None:
    click(fresh, ".lens tbody tr:nth-child(2) td:nth-of-type(11)")
    wait(fresh, "document.querySelector('#next-title').textContent.includes('John')")
    type_into(fresh, "#other", OTHER)
    wait(fresh, "document.querySelectorAll('.source .look').length === 15")
    assert titled(fresh, ".source .look.chosen") == "Kate"
    click(fresh, ".patching .button")
    wait(fresh, f"{CHANGES}.length === 1 && {ANSWERED}")
    assert fresh.evaluate(CHANGES) == [f"The stream after layer 0 from “{OTHER}” at “John” (10)"]
    click(fresh, ".asking [data-at='14']")
    wait(fresh, f"document.querySelector('#next-title').textContent.includes('to') && {ANSWERED}")
    change = {"do": "patch", "site": "resid_post.0", "position": 10, "prompt": OTHER}
    found = explorer.ask(changes=[{**change, "source_position": 10}])
    assert found["next"][0]["text"].strip() in fresh.evaluate(SHARES)[0]


def test_steering_has_a_slider(fresh: Page) -> None:
    type_into(fresh, "#steer-token", " John")
    click(fresh, "form:has(#steer-token) button")
    wait(fresh, f"{CHANGES}.length === 1 && {ANSWERED}")
    assert "steered towards “ John” at “to” (14)" in fresh.evaluate(CHANGES)[0]
    assert "John" in fresh.evaluate(SHARES)[0]
    slide = (
        "(() => { const s = document.querySelector('.strength input'); s.focus(); s.value = 0; "
        "s.dispatchEvent(new Event('input')); return s; })()"
    )
    do(fresh, slide)
    assert "Mary" in fresh.evaluate(SHARES)[0]
    assert titled(fresh, ".strength output") == "0.0"
    assert fresh.evaluate("document.activeElement.type") == "range"


def test_steering_leads_from_one_prompt_to_another(fresh: Page, explorer: Served) -> None:
    kind = "(() => { const k = document.querySelector('#steer-kind'); k.value = 'between'; "
    fresh.evaluate(kind + "k.dispatchEvent(new Event('change')); })()")
    type_into(fresh, "#steer-minus", "John")
    type_into(fresh, "#steer-plus", "Mary")
    click(fresh, "form:has(#steer-token) .check")
    click(fresh, "form:has(#steer-token) button")
    wait(fresh, f"{CHANGES}.length === 1 && {ANSWERED}")
    assert fresh.evaluate(CHANGES) == [
        "The stream after layer 2 steered from “John” to “Mary” everywhere"
    ]
    change = {"do": "steer", "site": "resid_post.2", "strength": 1}
    found = explorer.ask(changes=[{**change, "plus": "Mary", "minus": "John"}])
    assert found["next"][0]["text"].strip() in fresh.evaluate(SHARES)[0]


def test_a_refused_change_says_why_and_can_be_removed(fresh: Page) -> None:
    type_into(fresh, "#steer-token", "two words")
    click(fresh, "form:has(#steer-token) button")
    wait(fresh, "document.querySelector('.asking .trouble').textContent !== ''")
    assert "where one is needed" in titled(fresh, ".asking .trouble")
    click(fresh, ".remove")
    wait(fresh, "document.querySelector('.asking .trouble').textContent === ''")
    fresh.events[:] = [e for e in fresh.events if not refused(e)]


def test_the_experiment_is_saved_as_python(fresh: Page, explorer: Served) -> None:
    click(fresh, "[data-part='a3.h0']")
    wait(fresh, "document.querySelector('#part-title').textContent === 'Head 3.0'")
    fresh.press("a", 65)
    wait(fresh, f"{CHANGES}.length === 1 && {ANSWERED}")
    click(fresh, "#save")
    wait(fresh, "document.querySelector('dialog[open] pre')?.textContent.includes('cutaway')")
    ask = {"page": "x", "prompt": PROMPT, "changes": [{"do": "ablate", "site": "z.3.0"}]}
    assert titled(fresh, "dialog[open] pre") == explorer.post("script", ask)[1]["script"]
    assert fresh.evaluate("document.querySelector('dialog a').download") == "experiment.py"
    assert fresh.evaluate("document.querySelector('dialog a').href").startswith("blob:")


# ── by keyboard ──────────────────────────────────────────────────────────────────────────────


def test_everything_by_keyboard(fresh: Page) -> None:
    press(fresh, TAB)
    assert titled(fresh, ":focus") == "Skip to the prompt"
    press(fresh, ENTER)
    assert fresh.evaluate("document.activeElement.id") == "prompt"
    fresh.evaluate("document.activeElement.blur()")
    fresh.press("/", 191)
    assert fresh.evaluate("document.activeElement.id") == "prompt"
    press(fresh, TAB, LEFT)
    wait(fresh, ANSWERED)
    assert titled(fresh, ":focus") == "drink"
    press(fresh, RIGHT)
    wait(fresh, ANSWERED)
    for _ in range(40):
        if fresh.evaluate("document.activeElement.matches('svg[data-grid=cells]')"):
            break
        press(fresh, TAB)
    press(fresh, DOWN, DOWN, RIGHT, ENTER)
    wait(fresh, "document.querySelector('#part-title').textContent === 'Head 2.1'")
    wait(fresh, ANSWERED)
    assert fresh.evaluate("document.activeElement.matches('svg[data-grid=cells]')")
    fresh.press("a", 65)
    wait(fresh, f"{CHANGES}.length === 1 && {ANSWERED}")
    press(fresh, RIGHT, ENTER)
    wait(fresh, "document.querySelector('#part-title').textContent === 'Head 2.2'")
    fresh.press("z", 90)
    wait(fresh, f"{CHANGES}.length === 0")
    fresh.press("?", 191)
    assert fresh.evaluate("document.querySelector('dialog[open] h2').textContent") == "Keys"
    press(fresh, ESCAPE)
    assert fresh.evaluate("document.querySelector('dialog[open]')") is None
    fresh.press("s", 83)
    assert fresh.evaluate("document.activeElement.id") == "steer-token"


def test_the_lens_is_walked(fresh: Page) -> None:
    fresh.evaluate("document.querySelector('.lens td[tabindex=\"0\"]').focus()")
    press(fresh, DOWN, RIGHT, RIGHT, ENTER)
    wait(fresh, "document.querySelector('#part-title').textContent.includes('after layer 0')")
    wait(fresh, ANSWERED)
    at = "[document.activeElement.dataset.r, document.activeElement.dataset.c]"
    assert fresh.evaluate(at) == ["1", "2"]
    assert titled(fresh, "#next-title") == "After “Mary”"


# ── others' text, other tabs, and leaving ────────────────────────────────────────────────────

HOSTILE = "</script><img src=x onerror='window.broken=1'><script>window.broken=1</script>\u202e👩‍👧"


@pytest.mark.parametrize("text", [HOSTILE, "\u202e\u2066" * 10, "x" * 100_000, "\u0000\u001b[31m"])
def test_hostile_text_does_nothing(fresh: Page, text: str) -> None:
    type_into(fresh, "#prompt", text)
    time.sleep(0.3)
    wait(fresh, ANSWERED)
    do(fresh, "document.querySelector(\"[data-part='a2.h1']\").dispatchEvent("
              "new MouseEvent('click', {bubbles: true}))")  # fmt: skip
    type_into(fresh, "#other", text)
    fresh.evaluate("document.querySelector('.patching').requestSubmit()")
    time.sleep(0.1)
    wait(fresh, f"{CHANGES}.length === 1 && {ANSWERED}")
    assert fresh.evaluate("window.broken === undefined && document.images.length === 0")
    assert fresh.evaluate("document.documentElement.scrollWidth") == 1280
    fresh.events[:] = [e for e in fresh.events if not refused(e)]


def test_half_a_character_is_refused_in_one_sentence(fresh: Page) -> None:
    fresh.evaluate("const t = document.querySelector('#prompt'); t.value = 'a\\ud800b'; "
                   "t.dispatchEvent(new Event('input'))")  # fmt: skip
    wait(fresh, "document.querySelector('.asking .trouble').textContent !== ''")
    assert "half a character (U+D800 alone)" in titled(fresh, ".asking .trouble")
    fresh.events[:] = [e for e in fresh.events if not refused(e)]


def test_tabs_do_not_disturb_each_other(
    fresh: Page, explorer: Served, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with chromium(tmp_path_factory.mktemp("other")) as other:
        opened(other, explorer)
        type_into(other, "#prompt", OTHER)
        type_into(fresh, "#prompt", PROMPT.replace("Mary", "Anna"))
        wait(other, "document.querySelector('.next-tokens .said').textContent.includes('Tom')")
        wait(fresh, "document.querySelector('.next-tokens .said').textContent.includes('Anna')")
        assert other.complaints == []


def test_leaving_the_page_stops_its_work(fresh: Page, model: Model) -> None:
    with Slow(model, 0.2) as slow:
        type_into(fresh, "#prompt", "A prompt that nobody will wait for")
        end = time.monotonic() + 20
        while not slow.layers:
            assert time.monotonic() < end
            time.sleep(0.01)
        fresh.call("Page.navigate", url="about:blank")
        time.sleep(0.8)
        assert slow.layers < model.n_layers


# ── for everybody ────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(not AXE.exists(), reason="no axe-core; cd web && npm ci")
@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing(page: Page, explorer: Served, dark: bool) -> None:
    opened(page, explorer, dark=dark)
    assert problems(page) == []
    do(page, "document.querySelector(\"[data-part='m1']\").dispatchEvent("
             "new MouseEvent('click', {bubbles: true}))")  # fmt: skip
    page.press("a", 65)
    wait(page, f"{CHANGES}.length === 1 && {ANSWERED}")
    type_into(page, "#steer-token", " John")
    do(page, "document.querySelector('#steer-token').form.requestSubmit()")
    type_into(page, "#other", OTHER)
    click(page, ".lens tbody tr:nth-child(2) td:nth-of-type(11)")
    wait(page, f"document.querySelectorAll('.source .look').length === 15 && {ANSWERED}")
    assert problems(page) == []
    page.press("?", 191)
    assert problems(page) == []


def problems(page: Page) -> list[str]:
    """What axe finds wrong with the page as it is."""
    page.evaluate(AXE.read_text("utf-8") + ";0")
    options = json.dumps({"runOnly": {"type": "tag", "values": RULES}})
    found: list[dict[str, Any]] = page.call(
        "Runtime.evaluate", expression=f"axe.run(document, {options}).then(r => r.violations)",
        awaitPromise=True, returnByValue=True,
    )["result"]["value"]  # fmt: skip
    return [
        f"{each['id']}: {node['target']} {node['failureSummary']}"
        for each in found
        for node in each["nodes"]
    ]
