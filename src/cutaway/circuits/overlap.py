"""How much two sets share, against what chance would have them share.

Of N things one set holds a and the other b. If each set of that size is as likely, the number that
they share is hypergeometric, whichever of the two is drawn anew. Circuits share more than that for
a reason that is no finding: most edges of any circuit lie in a few layers and go into a few kinds
of input. So there is a second chance level, at which a set is drawn among those with as many things
in each *stratum* as it has: what is shared is then a sum of independent hypergeometric numbers, and
its distribution the convolution of theirs. Both are exact; the second is what shuffling within
strata (`controls.alike`) comes to in the end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.stats import hypergeom


@dataclass(frozen=True, kw_only=True)
class Chance:
    """What two sets share, and what they would by chance."""

    shared: int
    """How many things are in both."""
    jaccard: float
    """As a share of those in either; 0 of two empty sets."""
    expected: float
    """The mean of that share by chance."""
    p: float
    """How likely chance lets them share so many or more."""


def against_chance(
    one: Bool[ndarray, " thing"],
    other: Bool[ndarray, " thing"],
    strata: Int[ndarray, " thing"],
) -> Chance:
    """What two sets share, where chance keeps how many things each has in every stratum."""
    shared, sizes = int((one & other).sum()), int(one.sum()) + int(other.sum())
    likely = _distribution(one, other, strata)
    many = np.arange(len(likely))
    return Chance(
        shared=shared,
        jaccard=float(_jaccard(np.array([shared]), sizes)[0]),
        expected=float(likely @ _jaccard(many, sizes)),
        p=min(1.0, float(likely[shared:].sum())),
    )


def _distribution(
    one: Bool[ndarray, " thing"], other: Bool[ndarray, " thing"], strata: Int[ndarray, " thing"]
) -> Float[ndarray, " shared"]:
    """The probability of sharing 0, 1, … things."""
    number = strata - strata.min()
    sizes, first, second = (
        np.bincount(number, weights=held).astype(int) for held in (np.ones(len(number)), one, other)
    )
    found = np.ones(1)
    for size, a, b in zip(sizes, first, second, strict=True):
        if a and b:
            found = np.convolve(found, hypergeom.pmf(np.arange(min(a, b) + 1), size, a, b))
    return found


def _jaccard(shared: Int[ndarray, " n"], sizes: int) -> Float[ndarray, " n"]:
    return shared / np.maximum(sizes - shared, 1)


def holm(p: Float[ndarray, " test"]) -> Float[ndarray, " test"]:
    """p-values corrected for their number, so that 0.05 bounds the chance of any false one (Holm).

    NaN, where nothing was tested, stays and does not count.
    """
    found = np.full(p.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    found[order] = np.minimum(1, np.maximum.accumulate(p[order] * factors))
    return found
