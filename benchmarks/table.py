"""Measurements as JSON lines, one each as soon as it is known, and as a table at the end."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import torch
import transformers


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One figure."""

    name: str
    """What was measured."""
    value: float
    """The figure."""
    unit: str
    """`×`, `s`, `ms` or `MiB`."""
    bar: float | None = None
    """What it should stay under; None for figures that stand beside others."""
    detail: dict[str, object] = field(default_factory=dict)
    """How it was measured."""

    @property
    def verdict(self) -> str:
        """Whether the bar is met."""
        if self.bar is None:
            return ""
        return "met" if self.value <= self.bar else "MISSED"


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def say(measurement: Measurement) -> Measurement:
    """Print one JSON line."""
    print(json.dumps(asdict(measurement), ensure_ascii=False), flush=True)
    return measurement


def show(measurements: Sequence[Measurement]) -> None:
    """Print the table, as Markdown."""
    print("\n| measured | value | bar | |")
    print("| --- | --- | --- | --- |")
    for each in measurements:
        bar = "" if each.bar is None else f"≤ {each.bar:g} {each.unit}"
        print(f"| {each.name} | {each.value:.3g} {each.unit} | {bar} | {each.verdict} |")
    print("\n" + ", ".join(f"{key} {value}" for key, value in machine().items()))


def interleaved(runs: dict[str, Callable[[], object]], repetitions: int) -> dict[str, list[float]]:
    """Seconds of each run, A B C A B C …, after one round that is not counted.

    Interleaving makes whatever else the machine does fall on all of them alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repetitions + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(seconds: dict[str, list[float]], name: str, base: str) -> float:
    """The median over rounds of one run's time over another's in the same round."""
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[base], strict=True))
