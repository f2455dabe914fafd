"""How much processor time some work takes, and the most memory that the process holds meanwhile.

Processor time is that of all threads, so that whatever else the machine does disturbs it less.

Nothing of Cutaway is imported here, so that a peer in its own environment is measured alike.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PAGE = 4096


def resident() -> int:
    """Bytes that the process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


class Peak:
    """The most that the process held during a block, in MiB above `start` bytes."""

    def __init__(self, start: int) -> None:
        self.start, self.mib = start, 0.0

    def __enter__(self) -> Peak:
        self.most, self.going = resident(), True
        self.watcher = threading.Thread(target=self._watch)
        self.watcher.start()
        return self

    def _watch(self) -> None:
        while self.going:
            self.most = max(self.most, resident())
            time.sleep(0.002)

    def __exit__(self, *_: object) -> None:
        self.going = False
        self.watcher.join()
        self.mib = (self.most - self.start) / 2**20


def timed(work: Callable[[], Any], repetitions: int, start: int) -> tuple[float, float]:
    """Median processor seconds, and the peak of all repetitions in MiB above `start` bytes."""
    taken: list[float] = []
    with Peak(start) as peak:
        for _ in range(repetitions):
            began = time.process_time()
            work()
            taken.append(time.process_time() - began)
    return statistics.median(taken), peak.mib
