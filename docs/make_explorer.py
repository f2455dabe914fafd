"""Writes docs/images/explorer.png: the explorer with two changes, as Chromium draws it.

python docs/make_explorer.py
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from pathlib import Path

import cutaway
from cutaway.explore.server import Explorer, listen

HERE = Path(__file__).parent
OUT = HERE / "images" / "explorer.png"
sys.path.insert(0, str(HERE.parent / "tests" / "views"))

from chromium import Page, chromium  # noqa: E402

WIDTH, HEIGHT = 1280, 1240


def settled(page: Page) -> None:
    """Wait until the page has its answer."""
    time.sleep(0.3)
    ready = "document.querySelector('main')?.getAttribute('aria-busy') === 'false'"
    while not page.evaluate(ready):
        time.sleep(0.05)


def draw(page: Page, address: str) -> bytes:
    """Choose a head, ablate it, steer, and take the picture."""
    size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
    page.call("Emulation.setDeviceMetricsOverride", **size)
    page.call("Page.navigate", url=address)
    settled(page)
    choose = "dispatchEvent(new MouseEvent('click', {bubbles: true})); 0"
    page.evaluate(f"document.querySelector('[data-part=\"a2.h2\"]').{choose}")
    settled(page)
    page.press("a", 65)
    settled(page)
    page.evaluate("document.getElementById('steer-token').value = ' Mary'")
    page.evaluate("document.getElementById('steer-token').form.requestSubmit()")
    settled(page)
    slider = "document.querySelector('.strength input')"
    page.evaluate(f"{slider}.value = 0.2; {slider}.dispatchEvent(new Event('input')); 0")
    settled(page)
    return page.picture(whole=False)


def main() -> None:
    """Serve, draw, end."""
    explorer = Explorer(cutaway.open(), opening='"septet"', listening=listen(None))
    server = explorer.server()
    threading.Thread(target=server.run, args=([explorer.listening],), daemon=True).start()
    with tempfile.TemporaryDirectory() as profile, chromium(Path(profile)) as page:
        OUT.write_bytes(draw(page, explorer.address))
    server.should_exit = True
    print(OUT)


if __name__ == "__main__":
    main()
