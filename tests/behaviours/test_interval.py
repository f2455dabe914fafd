from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cutaway.behaviours import bootstrap
from cutaway.errors import BehaviourError


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=2, max_size=30), st.integers(0, 5))
def test_the_interval_holds_the_mean_and_stays_inside_the_data(values, seed) -> None:
    found = bootstrap(values, n_boot=300, seed=seed)
    assert found.n == len(values)
    assert found.mean == pytest.approx(np.mean(values), abs=1e-9)
    slack = 1e-9 * (1 + max(map(abs, values)))
    assert min(values) - slack <= found.low <= found.high <= max(values) + slack


def test_counts_agree_with_resampling_one_by_one() -> None:
    values = np.random.default_rng(3).normal(size=25)
    draws = np.random.default_rng(4).choice(values, size=(20_000, 25)).mean(axis=1)
    found = bootstrap(values, n_boot=20_000)
    np.testing.assert_allclose(
        [found.low, found.high], np.quantile(draws, [0.025, 0.975]), atol=0.02
    )


def test_cells_along_any_axis_are_what_they_are_alone() -> None:
    table = np.random.default_rng(0).normal(size=(3, 12, 2))
    found = bootstrap(table, axis=1, n_boot=200, seed=7)
    assert found.mean.shape == (3, 2)
    alone = bootstrap(table[2, :, 1], n_boot=200, seed=7)
    assert found.low[2, 1] == pytest.approx(float(alone.low))
    assert found.high[2, 1] == pytest.approx(float(alone.high))


def test_nan_values_do_not_count() -> None:
    whole = np.array([[1.0, np.nan, np.nan], [2.0, 5.0, np.nan], [4.0, np.nan, np.nan]])
    found = bootstrap(whole, n_boot=100)
    assert found.n.tolist() == [3, 1, 0]
    assert found.mean[:2].tolist() == pytest.approx([7 / 3, 5.0])
    assert np.isnan(found.mean[2])
    assert np.isnan(found.low[1:]).all()
    assert found.low[0] < found.mean[0] < found.high[0]


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.arange(20.0)
    first, again, other = (bootstrap(values, seed=seed) for seed in (1, 1, 2))
    assert (first.low, first.high) == (again.low, again.high)
    assert (first.low, first.high) != (other.low, other.high)


def test_coverage_is_near_its_claim() -> None:
    samples = np.random.default_rng(0).normal(size=(40, 400))
    found = bootstrap(samples, n_boot=500)
    covered = ((found.low <= 0) & (found.high >= 0)).mean()
    assert 0.88 < covered < 0.98


def test_it_reads_well() -> None:
    assert str(bootstrap([1.0, 1.0])) == "1.000 [1.000, 1.000] (n=2)"


@pytest.mark.parametrize("values", [[], 3.0, np.zeros((0, 4))])
def test_no_example_is_refused(values) -> None:
    with pytest.raises(BehaviourError, match="at least one example"):
        bootstrap(values)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(BehaviourError, match=r"confidence=1\.5"):
        bootstrap([1.0, 2.0], confidence=1.5)
