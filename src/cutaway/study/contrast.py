"""Two sets of examples, cell by cell: how far apart their means are, and whether that is chance.

Where both hold the same examples in the same order (`paired`), the differences of the examples are
what is bootstrapped, and their signs flipped (`cutaway.measure.significance`). Where not:

1. the interval is that of the difference of two means, each resampled by itself;
2. the p-value is that of a permutation test: the examples are dealt out to the two sides anew, and
   a cell's statistic is Welch's t; corrected by the largest statistic of all cells (Westfall &
   Young 1993), as sign flips are. The deal that was measured counts as one, so p is never 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from cutaway.behaviours import bootstrap
from cutaway.measure.significance import sign_flips

Cells = Float[ndarray, "cell example"]
Others = Float[ndarray, "cell other_example"]
_DRAWS = 2000
_TIE = 1e-9


@dataclass(frozen=True, kw_only=True, eq=False)
class Contrast:
    """The first set's mean less the second's, per cell."""

    difference: Float[ndarray, " cell"]
    """Of the means."""
    low: Float[ndarray, " cell"]
    """Lower end of its 95 % interval."""
    high: Float[ndarray, " cell"]
    """Upper end of it."""
    p_corrected: Float[ndarray, " cell"]
    """Its p-value, corrected for the cells; NaN where a side has a single example."""


def contrast(one: Cells, other: Others, *, paired: bool, seed: int = 0) -> Contrast:
    """How far apart two sets of examples are."""
    enough = min(one.shape[1], other.shape[1]) > 1
    nothing = np.full(len(one), np.nan)
    if paired:
        found = bootstrap(one - other, axis=1)
        p = sign_flips(one - other, seed=seed).p_corrected if enough else nothing
        return Contrast(difference=found.mean, low=found.low, high=found.high, p_corrected=p)
    low = high = nothing
    if enough:
        means = [_resampled(side, seed + at) for at, side in enumerate((one, other))]
        low, high = np.quantile(means[0] - means[1], [0.025, 0.975], axis=0)
    return Contrast(
        difference=one.mean(axis=1) - other.mean(axis=1), low=low, high=high,
        p_corrected=_dealt(one, other, seed) if enough else nothing,
    )  # fmt: skip


def correlation(
    one: Cells, other: Others, *, paired: bool, seed: int = 0
) -> tuple[float, float, float]:
    """Pearson's correlation over cells of two sets' means, and its bootstrap interval.

    NaN where all means of a set are equal, and for fewer than three cells.
    """
    whole = float(_pearson(one.mean(axis=1)[None], other.mean(axis=1)[None])[0])
    if np.isnan(whole) or min(one.shape[1], other.shape[1]) < 2:
        return whole, float("nan"), float("nan")
    seeds = (seed, seed) if paired else (seed, seed + 1)
    drawn = [_resampled(side, at) for side, at in zip((one, other), seeds, strict=True)]
    low, high = np.nanquantile(_pearson(*drawn), [0.025, 0.975])
    return whole, float(low), float(high)


def _pearson(
    one: Float[ndarray, "draw cell"], other: Float[ndarray, "draw cell"]
) -> Float[ndarray, " draw"]:
    if one.shape[1] < 3:
        return np.full(len(one), np.nan)
    first, second = (each - each.mean(axis=1, keepdims=True) for each in (one, other))
    size = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    return (first * second).sum(axis=1) / np.where(size > 0, size, np.nan)


def _resampled(side: Cells, seed: int) -> Float[ndarray, "draw cell"]:
    """The cells' means in resamples of the examples."""
    n = side.shape[1]
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=_DRAWS)
    return counts @ side.T / n


def _dealt(one: Cells, other: Others, seed: int) -> Float[ndarray, " cell"]:
    """Corrected p-values when the examples are dealt out anew."""
    pool, n = np.concatenate([one, other], axis=1), one.shape[1]
    pool = pool - pool.mean(axis=1, keepdims=True)
    generator = np.random.default_rng(seed)
    first = np.zeros((_DRAWS, pool.shape[1]))
    first[0, :n] = 1
    for row in first[1:]:
        row[generator.permutation(pool.shape[1])[:n]] = 1
    found = np.abs(_welch(first, pool))
    return (found.max(axis=1)[:, None] >= found[0] - _TIE).mean(axis=0)


def _welch(first: Float[ndarray, "draw example"], pool: Cells) -> Float[ndarray, "draw cell"]:
    """Welch's t of each deal and cell; 0 where nothing varies, and without bound where both sides
    are constant and apart, which no other deal is more."""
    sums: list[ndarray] = []
    for side in (first, 1 - first):
        n = side.sum(axis=1, keepdims=True)
        mean = side @ pool.T / n
        spread = np.maximum(side @ (pool**2).T / n - mean**2, 0) * n / np.maximum(n - 1, 1)
        sums += [mean, spread / n]
    error = np.sqrt(sums[1] + sums[3])
    gap = sums[0] - sums[2]
    apart = np.where(np.abs(gap) > _TIE, np.copysign(np.inf, gap), 0.0)
    return np.divide(gap, error, out=apart, where=error > 1e-12)
