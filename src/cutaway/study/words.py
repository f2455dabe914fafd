"""Numbers and lists as sentences write them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cutaway.behaviours import Interval
from cutaway.views.text import number


def plain(value: float) -> str:
    """A signed number."""
    return number(value, sign=True)


def percent(value: float) -> str:
    """A fraction as a percentage without decimals."""
    return "n/a" if np.isnan(value) else f"{100 * value:.0f} %".replace("-", "−")


def with_ends(found: Interval, *, as_percent: bool = False) -> str:
    """A mean with its interval."""
    mean, low, high = (float(each) for each in (found.mean, found.low, found.high))
    written = percent if as_percent else plain
    if np.isnan(low):
        return written(mean)
    return f"{written(mean)} (95 % CI {written(low)} to {written(high)})"


def listed(words: Sequence[str]) -> str:
    """Words with commas and a last "and"; empty for none."""
    return "".join(words) if len(words) < 2 else f"{', '.join(words[:-1])} and {words[-1]}"
