"""Wall time and peak memory of `cutaway study ioi` on the shipped model, in a fresh process.

    python benchmarks/study.py [--repetitions 3] [--behaviour ioi]

Every repetition starts in an empty directory, so that nothing is resumed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from table import Measurement, say, show

RUN = "from cutaway.cli import main; main()"


def once(behaviour: str) -> tuple[float, float]:
    """Seconds, and peak resident MiB, of one study."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "study"
        command = [sys.executable, "-c", RUN, "study", behaviour, "--out", str(out)]
        start = time.perf_counter()
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        if child.returncode:
            raise SystemExit(f"The study ended with exit code {child.returncode}.")
        assert list(out.rglob("report.html")), "the study left no report"
    return seconds, usage.ru_maxrss / 1024


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description="What a study costs.")
    arguments.add_argument("--repetitions", type=int, default=3)
    arguments.add_argument("--behaviour", default="ioi")
    chosen = arguments.parse_args()
    measured: list[Measurement] = []
    runs = [once(chosen.behaviour) for _ in range(chosen.repetitions)]
    name = f"cutaway study {chosen.behaviour}"
    detail: dict[str, object] = {"runs": runs}
    for what, value, unit, bar in (
        ("wall time", statistics.median(run[0] for run in runs), "s", 120.0),
        ("peak memory", max(run[1] for run in runs), "MiB", 2000.0),
    ):
        title = f"{name}, {what}"
        measured.append(
            say(Measurement(name=title, value=value, unit=unit, bar=bar, detail=detail))
        )
    show(measured)


if __name__ == "__main__":
    main()
