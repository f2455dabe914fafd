"""Writes docs/images/report.png and circuit.png: a report's top and its circuit, by Chromium.

cutaway study ioi
python docs/make_report.py cutaway-studies/ioi-septet/report.html
"""

from __future__ import annotations

import sys
import tempfile
from base64 import b64decode
from pathlib import Path

HERE = Path(__file__).parent
IMAGES = HERE / "images"
sys.path.insert(0, str(HERE.parent / "tests" / "views"))

from chromium import chromium  # noqa: E402

WIDTH, HEIGHT = 1280, 1390
HEAD = "document.querySelector('.circuit-part[data-part=\"a2.h2\"]')"
BOX = "{}.getBoundingClientRect()"
FIGURE = f"{HEAD}.closest('figure')"


def main() -> None:
    """Open the report and take the pictures."""
    if len(sys.argv) != 2:
        sys.exit("Name one report: python docs/make_report.py report.html")
    with tempfile.TemporaryDirectory() as profile, chromium(Path(profile)) as page:
        page.open(Path(sys.argv[1]), width=WIDTH, height=HEIGHT)
        (IMAGES / "report.png").write_bytes(page.picture(whole=False))
        page.evaluate(f"{FIGURE}.scrollIntoView({{behavior: 'instant', block: 'start'}})")
        at = page.evaluate(f"(r => [r.x + r.width / 2, r.y + r.height / 2])({BOX.format(HEAD)})")
        page.point(*at)
        x, y, width, height = page.evaluate(
            f"(r => [r.x + scrollX, r.y + scrollY, r.width, r.height])({BOX.format(FIGURE)})"
        )
        clip = {"x": x, "y": y, "width": width, "height": height, "scale": 1}
        shot = page.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        (IMAGES / "circuit.png").write_bytes(b64decode(shot["data"]))


if __name__ == "__main__":
    main()
