"""The memory that something takes above what the process holds already.

The peak of the resident memory (VmHWM of Linux, set anew) less the resident memory before, after
what was freed earlier has been given back to the system: else a method would run for free in the
memory that the one before it had left. Both are the system's own counts, so nothing is sampled and
no peak is missed; they are as fine as a fraction of a megabyte. Elsewhere than on Linux it is not
known, and NaN.
"""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cutaway.model.memory import give_back

_MARK, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


@dataclass
class Peak:
    """What a block took."""

    bytes: float = float("nan")
    """Above what was held before it; known when the block has ended."""


@contextmanager
def peak() -> Generator[Peak]:
    """Measure a block."""
    found = Peak()
    gc.collect()
    give_back()
    try:
        _MARK.write_text("5")  # the highest mark starts anew
    except OSError:
        yield found
        return
    before = _held("VmRSS")
    yield found
    found.bytes = max(0.0, _held("VmHWM") - before)


def _held(name: str) -> float:
    lines = _STATUS.read_text(encoding="ascii").splitlines()
    return next(float(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
