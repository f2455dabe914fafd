"""Calibration: whether the model is right as often as it is sure.

Guo et al. 2017, "On calibration of modern neural networks", with bins that hold equally many
examples (Nguyen & O'Connor 2015) instead of equally wide ones, because a model that does its
behaviour puts nearly all its confidence near 1:

1. Examples are sorted by confidence and cut into bins of equal number.
2. The expected calibration error is `Σ_bin n_bin / n · |accuracy − mean confidence|`, with a
   percentile bootstrap over examples, each resample with bins of its own.
3. It is above zero by chance as well. So the same is computed for answers drawn with the model's
   own confidences, which are calibrated by construction: `chance` is what 95 % of these stay below.

Confidence is taken twice: between the two sides alone (the share of the larger of the answers' and
the wrong answers' probability, right when it is the answers'), and over the whole vocabulary (the
likeliest token's probability, right when it is an answer).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from cutaway.behaviours import Interval, bootstrap
from cutaway.errors import BehaviourError

_LEAST = 10
"""A bin has at least so many examples, where there are so many."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How confidence and accuracy go together."""

    confidence: Float[ndarray, " bin"]
    """The mean confidence of each bin, in ascending order."""
    accuracy: tuple[Interval, ...]
    """The accuracy of each bin, with its interval."""
    error: Interval
    """The expected calibration error, with its interval."""
    chance: float
    """95 % of perfectly calibrated models with these confidences have an error below this."""

    @property
    def calibrated(self) -> bool:
        """Whether the error is no larger than that of calibrated models on so many examples."""
        return float(self.error.mean) <= self.chance


def calibration(
    confidence: Float[ndarray, " example"],
    correct: Float[ndarray, " example"],
    *,
    bins: int = 10,
    n_boot: int = 1000,
    seed: int = 0,
) -> Calibration:
    """Bins, error and chance level from each example's confidence and whether it was right.

    Args:
        confidence: between 0 and 1.
        correct: 1 where it was right, 0 where not.
        bins: at most so many, of at least ten examples each.
        n_boot: so many resamples, and so many calibrated models.
        seed: for both.

    Raises:
        BehaviourError: arrays of different lengths, or values outside 0 to 1.
    """
    for name, values in (("confidence", confidence), ("correct", correct)):
        if values.shape != confidence.shape or not values.size:
            raise BehaviourError(
                f"Calibration needs as many outcomes as confidences, at least one; found the "
                f"shapes {confidence.shape} and {correct.shape}."
            )
        if not ((values >= 0) & (values <= 1)).all():
            raise BehaviourError(f"For calibration, {name} lies between 0 and 1; found otherwise.")
    n = len(confidence)
    count = min(bins, max(1, n // _LEAST))
    rng = np.random.default_rng(seed)
    order = np.argsort(confidence, kind="stable")
    parts = np.array_split(order, count)
    drawn = rng.integers(n, size=(n_boot, n))
    resampled = _errors(confidence[drawn], correct[drawn], count)
    fair = (rng.random((n_boot, n)) < confidence).astype(np.float64)
    by_chance = _errors(np.broadcast_to(confidence, fair.shape), fair, count)
    low, high = np.quantile(resampled, [0.025, 0.975]) if n > 1 else (np.nan, np.nan)
    return Calibration(
        confidence=np.array([confidence[part].mean() for part in parts]),
        accuracy=tuple(bootstrap(correct[part], seed=seed) for part in parts),
        error=Interval(
            mean=np.asarray(_errors(confidence[None], correct[None], count)[0]),
            low=np.asarray(low), high=np.asarray(high), n=np.asarray(n), confidence=0.95,
        ),
        chance=float(np.quantile(by_chance, 0.95)),
    )  # fmt: skip


def _errors(
    confidence: Float[ndarray, "sample example"],
    correct: Float[ndarray, "sample example"],
    bins: int,
) -> Float[ndarray, " sample"]:
    """The expected calibration error of each sample, with bins of its own."""
    order = np.argsort(confidence, axis=1, kind="stable")
    gaps = np.take_along_axis(correct - confidence, order, axis=1)
    parts = np.array_split(gaps, bins, axis=1)
    total = sum((np.abs(part.sum(axis=1)) for part in parts), start=np.zeros(len(gaps)))
    return total / confidence.shape[1]
