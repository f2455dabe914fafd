"""Calibration against models whose calibration is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutaway.errors import BehaviourError
from cutaway.study.blackbox_calibration import calibration


def by_definition(confidence: np.ndarray, correct: np.ndarray, bins: int) -> float:
    """The error bin by bin, as the paper writes it."""
    total = 0.0
    for part in np.array_split(np.argsort(confidence, kind="stable"), bins):
        total += len(part) / len(confidence) * abs(
            correct[part].mean() - confidence[part].mean()
        )  # fmt: skip
    return total


@given(st.integers(20, 200), st.integers(1, 8), st.integers(0, 2**20))
def test_the_error_is_its_definition(n: int, bins: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    confidence, correct = rng.random(n), (rng.random(n) < 0.6).astype(float)
    found = calibration(confidence, correct, bins=bins, n_boot=20)
    used = min(bins, n // 10)
    assert len(found.accuracy) == used
    assert float(found.error.mean) == pytest.approx(by_definition(confidence, correct, used))
    assert sum(int(each.n) for each in found.accuracy) == n
    assert (np.diff(found.confidence) >= 0).all()


def test_a_calibrated_model_is_called_so_19_times_in_20() -> None:
    rng = np.random.default_rng(0)
    called = 0
    for _ in range(60):
        confidence = rng.uniform(0.5, 1, size=120)
        correct = (rng.random(120) < confidence).astype(float)
        called += calibration(confidence, correct, n_boot=200).calibrated
    assert 51 <= called <= 60


def test_one_that_claims_too_much_is_not() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.9, 1, size=200)
    found = calibration(confidence, (rng.random(200) < 0.6).astype(float))
    assert not found.calibrated
    assert float(found.error.low) < float(found.error.mean) < float(found.error.high)
    assert float(found.error.mean) == pytest.approx(0.35, abs=0.1)
    assert all(float(each.mean) < 0.9 for each in found.accuracy)


def test_always_right_and_always_sure_has_no_error() -> None:
    found = calibration(np.ones(30), np.ones(30))
    assert float(found.error.mean) == 0 == found.chance


@pytest.mark.usefixtures("unchecked_shapes")
def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(BehaviourError, match=r"the shapes \(3,\) and \(2,\)"):
        calibration(np.ones(3), np.ones(2))
    with pytest.raises(BehaviourError, match="confidence lies between 0 and 1"):
        calibration(np.array([1.2]), np.ones(1))
