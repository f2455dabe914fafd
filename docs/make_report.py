"""Writes docs/images/report.png: the top of a report, as Chromium draws it.

cutaway study ioi
python docs/make_report.py cutaway-studies/ioi-septet/report.html
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
OUT = HERE / "images" / "report.png"
sys.path.insert(0, str(HERE.parent / "tests" / "views"))

from chromium import chromium  # noqa: E402

WIDTH, HEIGHT = 1280, 1390


def main() -> None:
    """Open the report and take the picture."""
    if len(sys.argv) != 2:
        sys.exit("Name one report: python docs/make_report.py report.html")
    with tempfile.TemporaryDirectory() as profile, chromium(Path(profile)) as page:
        page.open(Path(sys.argv[1]), width=WIDTH, height=HEIGHT)
        OUT.write_bytes(page.picture(whole=False))


if __name__ == "__main__":
    main()
