"""What a report costs whoever opens it: its size, and how soon it can be used.

    python benchmarks/report.py [--prompts 200] [--repetitions 7]

The IOI study of the shipped model is run once (some minutes; a directory given by `--study` that
holds it already is taken as it is), and its report opened in headless Chromium, in a fresh browser
each time. "Interactive" is when the page is there and its script has run (the end of
DOMContentLoaded, from the start of navigation); "a head chosen" is from the press to the next frame
in which everything that holds the head is marked. Beside it stands the processor time that the
page's own thread took to load, which does not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from table import Measurement, say, show

import cutaway
from cutaway.study import run

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "views"))

from chromium import BINARY, Page, chromium  # pyright: ignore[reportMissingImports]

READY = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
CHOOSE = """new Promise((done) => {
  const mention = document.querySelector(".mention");
  const start = performance.now();
  mention.click();
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
})"""


def made(prompts: int, directory: Path) -> Path:
    """The report of an IOI study of so many prompts."""
    model = cutaway.open()
    study = run(model, cutaway.behaviour("ioi", model, n=prompts, seed=0), directory)
    return study.report


def opened(page: Page, report: Path) -> tuple[float, float, float]:
    """Milliseconds until the page can be used, of its thread, and until a head is marked."""
    page.call("Performance.enable", timeDomain="threadTicks")
    page.open(report)
    ready = page.evaluate(READY)
    metrics = {
        each["name"]: each["value"] for each in page.call("Performance.getMetrics")["metrics"]
    }
    chosen = page.call("Runtime.evaluate", expression=CHOOSE, awaitPromise=True, returnByValue=True)
    return float(ready), 1000 * metrics["TaskDuration"], float(chosen["result"]["value"])


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--study", type=Path)
    given = parser.parse_args()
    if BINARY is None:
        sys.exit("This needs a Chromium on PATH.")
    with tempfile.TemporaryDirectory() as place:
        report = made(given.prompts, given.study or Path(place) / "study")
        size = report.stat().st_size / 2**20
        found = [Measurement(name="report, size", value=size, unit="MiB", bar=5.0)]
        times: list[tuple[float, float, float]] = []
        for at in range(given.repetitions):
            with chromium(Path(place) / f"profile-{at}") as page:
                times.append(opened(page, report))
        names = ("report, interactive", "report, processor time to load", "report, a head chosen")
        for name, each, bar in zip(names, zip(*times, strict=True), (1000.0, 1000.0, None),
                                   strict=True):  # fmt: skip
            detail: dict[str, object] = {"prompts": given.prompts, "opened": len(each)}
            value = statistics.median(each)
            found.append(Measurement(name=name, value=value, unit="ms", bar=bar, detail=detail))
        for one in found:
            say(one)
        show(found)


if __name__ == "__main__":
    main()
