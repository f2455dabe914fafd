"""Bootstrap intervals over examples: the one place where uncertainty is computed.

Percentile bootstrap (Efron 1979, "Bootstrap methods: another look at the jackknife"):

1. draw `n_boot` resamples of the examples, with replacement, each as large as the sample;
2. take the mean of every resample;
3. the interval runs between the percentiles of these means that leave out equal tails.

A resample only matters through how often it holds each example, so step 1 draws the counts
directly (a multinomial) and step 2 is one matrix product, for all cells of a sweep at once. The
same resamples serve every cell. NaN values are left out: they count neither in the mean nor in
`n`. One example says nothing about spread, so its interval is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from cutaway.errors import BehaviourError

_COLUMNS_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over examples with its bootstrap interval, per remaining cell."""

    mean: Float[ndarray, "*cells"]
    """Mean over the examples that are not NaN; NaN where there is none."""
    low: Float[ndarray, "*cells"]
    """Lower end of the interval; NaN where fewer than two examples count."""
    high: Float[ndarray, "*cells"]
    """Upper end of the interval; NaN where fewer than two examples count."""
    n: Int[ndarray, "*cells"]
    """How many examples count in each cell."""
    confidence: float
    """The share of resampled means inside the interval."""

    def __str__(self) -> str:
        if self.mean.ndim:
            return f"Interval of shape {self.mean.shape}, {self.confidence:.0%}"
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}] (n={int(self.n)})"


def bootstrap(
    values: object,
    *,
    axis: int = 0,
    n_boot: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The mean of `values` along `axis` and its percentile bootstrap interval.

    `values` is anything numpy reads as numbers, with the examples along `axis`. The same seed and
    number of examples give the same resamples. Raises `BehaviourError` for an empty axis, for
    fewer than one resample, or a confidence outside (0, 1).
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim == 0 or table.shape[axis] == 0:
        raise BehaviourError(
            f"A bootstrap interval needs at least one example along axis {axis}; "
            f"found values of shape {table.shape}."
        )
    if n_boot < 1 or not 0 < confidence < 1:
        raise BehaviourError(
            f"A bootstrap interval needs n_boot of at least 1 and a confidence between 0 and 1; "
            f"found n_boot={n_boot} and confidence={confidence}."
        )
    rows = np.moveaxis(table, axis, 0)
    cells = rows.shape[1:]
    flat = rows.reshape(len(rows), -1)
    counts = _resample_counts(len(rows), n_boot, seed)
    present = ~np.isnan(flat)
    n = present.sum(axis=0)
    filled = np.where(present, flat, 0.0)
    with np.errstate(invalid="ignore"):
        mean = filled.sum(axis=0) / np.where(n > 0, n, np.nan)
    low, high = np.full(flat.shape[1], np.nan), np.full(flat.shape[1], np.nan)
    tail = (1 - confidence) / 2
    for start in range(0, flat.shape[1], _COLUMNS_AT_ONCE):
        chosen = np.arange(start, min(start + _COLUMNS_AT_ONCE, flat.shape[1]))
        chosen = chosen[n[chosen] > 1]
        if chosen.size:
            means = _resampled_means(counts, filled[:, chosen], present[:, chosen])
            low[chosen], high[chosen] = np.nanquantile(means, [tail, 1 - tail], axis=0)
    return Interval(
        mean=mean.reshape(cells),
        low=low.reshape(cells),
        high=high.reshape(cells),
        n=n.reshape(cells),
        confidence=confidence,
    )


def _resample_counts(n: int, n_boot: int, seed: int) -> Float[ndarray, "n_boot n"]:
    """How often each resample holds each example."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(n, np.full(n, 1 / n), size=n_boot).astype(np.float64)


def _resampled_means(
    counts: Float[ndarray, "n_boot n"],
    values: Float[ndarray, "n column"],
    present: Bool[ndarray, "n column"],
) -> Float[ndarray, "n_boot column"]:
    """The mean of every resample; NaN where a resample holds no value that counts."""
    if bool(present.all()):
        return counts @ values / values.shape[0]
    weight = counts @ present.astype(np.float64)
    return counts @ values / np.where(weight > 0, weight, np.nan)
