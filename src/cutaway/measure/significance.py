"""Which effects are more than chance: a permutation test over examples, corrected for the cells.

An example's effect is a paired difference, patched less unpatched. If patching a cell does nothing
but noise, that difference is as likely as its negative, so the signs may be flipped:

1. a cell's statistic is |Σ effect| / √(Σ effect²) over its examples, which grows with Student's t
   and does not change its denominator when signs are flipped;
2. draw the signs of the examples, the same for every cell, which keeps what cells share (Nichols &
   Holmes 2002, "Nonparametric permutation tests for functional neuroimaging");
3. `p` is the share of draws whose statistic reaches the measured one (two-sided);
4. `p_corrected` is the share of draws in which the largest statistic of *all* cells reaches it: the
   chance that anything at all would look so strong (Westfall & Young 1993, "Resampling-Based
   Multiple Testing", single-step maximum). A level of 0.05 then bounds the chance of even one false
   finding in the whole grid.

The unflipped signs count as a draw, so p is never 0 (Phipson & Smyth 2010). Where all signs are no
more than the draws asked for, each is tried once and p is exact; flipping all of them changes
nothing, so n examples have 2ⁿ⁻¹ different signs, and p cannot be smaller than their inverse.

Deviation: NaN examples of a cell are left out of its sums, as in the bootstrap intervals. A cell
whose effects are all zero has p = 1; one that is NaN throughout, or infinite anywhere, has NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from cutaway.errors import InputError

DRAWS = 10_000
"""How many signs are drawn when not told otherwise."""

_AT_ONCE = 4_000_000
"""Statistics held in memory at a time (doubles)."""
_TIE = 1e-9
"""How much smaller a statistic (of unit vectors) may be and still count as reached: rounding."""


@dataclass(frozen=True, kw_only=True)
class Significance:
    """Permutation p-values of every cell."""

    p: Float[ndarray, " cell"]
    """Of the cell alone."""
    p_corrected: Float[ndarray, " cell"]
    """Corrected for the number of cells (family-wise)."""
    draws: int
    """How many signs were tried, the unflipped ones included."""
    exact: bool
    """Whether these were all there are."""


def sign_flips(
    effects: Float[ndarray, "cell example"], *, draws: int = DRAWS, seed: int = 0
) -> Significance:
    """The p-values of paired differences; see the module's steps.

    Raises `InputError` for fewer than two examples or one draw, which cannot tell anything, and for
    numbers that are not whole.
    """
    examples = effects.shape[1]
    if examples < 2:
        raise InputError(
            f"A p-value needs effects of several examples and found {examples}; give a behaviour "
            "of at least 2 pairs, and of 6 for a p below 0.05."
        )
    if type(draws) is not int or draws < 1:
        raise InputError(f"draws must be a whole number of 1 or more; found {draws!r}.")
    if type(seed) is not int or seed < 0:
        raise InputError(f"seed is a whole number of 0 or more; found {seed!r}.")
    sizes = np.sqrt(np.nansum(effects.astype(np.float64) ** 2, axis=1))
    known = np.isfinite(sizes) & ~np.isnan(effects).all(axis=1)
    moves = known & (sizes > 0)
    scaled = np.nan_to_num(effects[moves].astype(np.float64)) / sizes[moves, None]
    signs, exact = _signs(examples, draws, seed)
    own, anywhere = (np.where(known, 1.0, np.nan) for _ in range(2))
    own[moves], anywhere[moves] = (count / len(signs) for count in _counts(scaled, signs))
    return Significance(p=own, p_corrected=anywhere, draws=len(signs), exact=exact)


def _signs(examples: int, draws: int, seed: int) -> tuple[Float[ndarray, "draw example"], bool]:
    """Signs to try, unflipped ones first; and whether they are all that differ."""
    if examples - 1 < draws.bit_length() and 2 ** (examples - 1) <= draws:
        flipped = np.arange(2 ** (examples - 1))[:, None] >> np.arange(examples) & 1
        return 1.0 - 2.0 * flipped, True
    generator = np.random.default_rng(seed)
    signs = generator.integers(0, 2, size=(draws + 1, examples)).astype(np.float64) * 2 - 1
    signs[0] = 1.0
    return signs, False


def _counts(
    scaled: Float[ndarray, "cell example"], signs: Float[ndarray, "draw example"]
) -> tuple[Float[ndarray, " cell"], Float[ndarray, " cell"]]:
    """In how many draws a cell's own statistic, and the largest of any cell, reaches it."""
    reached = np.abs(scaled.sum(axis=1)) - _TIE
    own, largest = np.zeros(len(scaled)), np.zeros(len(signs))
    step = max(1, _AT_ONCE // len(signs))
    for start in range(0, len(scaled), step):
        some = slice(start, start + step)
        drawn = np.abs(signs @ scaled[some].T)
        own[some] = (drawn >= reached[some]).sum(axis=0)
        np.maximum(largest, drawn.max(axis=1), out=largest)
    below = np.searchsorted(np.sort(largest), reached, side="left")
    return own, (len(signs) - below).astype(np.float64)
