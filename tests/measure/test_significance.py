"""Permutation p-values: against other derivations, calibrated where nothing is there, and finding
what was planted."""

import resource
import tracemalloc
from typing import Any

import numpy as np
import pytest
from scipy import stats

from cutaway.errors import CutawayError
from cutaway.measure import significance
from cutaway.measure.significance import sign_flips


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def test_one_cell_is_scipys_test_of_every_sign() -> None:
    for seed, shift in ((1, 0.0), (2, 0.7), (3, 2.0)):
        effects = drawn(1, 11, seed=seed) + shift
        found = sign_flips(effects)
        expected = stats.permutation_test(
            (effects[0],), np.mean, permutation_type="samples", n_resamples=2**20
        )
        assert found.exact
        assert found.draws == 2**10
        np.testing.assert_allclose(found.p, expected.pvalue, rtol=1e-12)
        np.testing.assert_array_equal(found.p, found.p_corrected)


def test_every_cell_is_the_loop_over_every_sign_with_the_largest_t() -> None:
    """Studentised by hand, in a different order of summation."""
    effects = drawn(5, 6, seed=4) * np.array([1, 10, 0.1, 3, 1])[:, None]
    effects[3] += 4
    found = sign_flips(effects)
    measured = np.abs(stats.ttest_1samp(effects, 0, axis=1).statistic)
    own, largest = np.zeros(5), np.zeros(5)
    for number in range(2**6):
        signs = np.array([1 if number >> i & 1 else -1 for i in range(6)])
        t = np.abs(stats.ttest_1samp(effects * signs, 0, axis=1).statistic)
        own += t >= measured - 1e-9
        largest += t.max() >= measured - 1e-9
    np.testing.assert_allclose(found.p, own / 2**6)
    np.testing.assert_allclose(found.p_corrected, largest / 2**6)
    assert found.p[3] == 1 / 2**5


def test_drawn_signs_agree_with_all_of_them() -> None:
    effects = drawn(20, 12, seed=5) + 0.4
    every = sign_flips(effects)
    some = sign_flips(effects, draws=2000, seed=1)
    assert (every.exact, some.exact, some.draws) == (True, False, 2001)
    np.testing.assert_allclose(some.p, every.p, atol=0.04)
    np.testing.assert_allclose(some.p_corrected, every.p_corrected, atol=0.04)
    again, other = (sign_flips(effects, draws=2000, seed=seed) for seed in (1, 2))
    np.testing.assert_array_equal(some.p_corrected, again.p_corrected)
    assert (some.p_corrected != other.p_corrected).any()


def test_where_nothing_is_there_something_is_found_as_often_as_the_level_says() -> None:
    """400 grids of 30 cells, correlated and of different spread, 12 examples, no effect."""
    corrected = alone = 0
    for seed in range(400):
        effects = drawn(30, 12, seed=seed) + drawn(1, 12, seed=10_000 + seed)
        effects *= np.geomspace(0.1, 10, 30)[:, None]
        found = sign_flips(effects, draws=2048)
        corrected += found.p_corrected.min() <= 0.05
        alone += found.p.min() <= 0.05
    # 20 are expected of 400; uncorrected, some cell looks real in far more.
    assert 9 <= corrected <= 33
    assert alone > 120


def test_planted_effects_are_found_and_nothing_else() -> None:
    effects = drawn(144, 40, seed=6)
    planted = [7, 30, 143]
    effects[planted] += 1.5
    found = sign_flips(effects)
    assert np.flatnonzero(found.p_corrected <= 0.05).tolist() == planted
    assert (found.p <= found.p_corrected).all()
    assert found.p_corrected.min() == 1 / found.draws


def test_the_scale_of_a_cell_does_not_matter() -> None:
    effects = drawn(10, 20, seed=7) + 0.5
    rescaled = effects * np.geomspace(1e-6, 1e6, 10)[:, None]
    np.testing.assert_allclose(
        sign_flips(effects).p_corrected, sign_flips(rescaled).p_corrected, atol=1e-3
    )


def test_cells_without_effect_and_without_numbers() -> None:
    effects = drawn(4, 10, seed=8)
    effects[1] = 0
    effects[2] = np.nan
    effects[3] += 3
    alone = sign_flips(effects[[0, 3]])
    found = sign_flips(effects)
    assert (found.p[1], found.p_corrected[1]) == (1, 1)
    assert np.isnan([found.p[2], found.p_corrected[2]]).all()
    np.testing.assert_array_equal(found.p_corrected[[0, 3]], alone.p_corrected)
    assert sign_flips(np.zeros((3, 5))).p_corrected.tolist() == [1, 1, 1]
    holed = effects[3:].copy()
    holed[0, 4] = np.nan
    assert sign_flips(holed).p == sign_flips(np.delete(holed, 4, axis=1)).p


def test_ties_count_as_reached() -> None:
    """Three ones and three minus ones: no sign is less extreme than none at all."""
    found = sign_flips(np.array([[1.0, 1, 1, -1, -1, -1], [1, 1, 1, 1, 1, 0]]))
    assert found.p[0] == 1
    assert found.p[1] == 2 / 2**5


def test_pieces_of_the_grid_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    effects = drawn(50, 30, seed=9) + 0.3
    whole = sign_flips(effects, draws=500)
    monkeypatch.setattr(significance, "_AT_ONCE", 3 * 501)
    pieces = sign_flips(effects, draws=500)
    np.testing.assert_array_equal(whole.p, pieces.p)
    np.testing.assert_array_equal(whole.p_corrected, pieces.p_corrected)


def test_a_head_grid_takes_well_under_a_second_and_neurons_little_memory() -> None:
    grid = drawn(144, 200)
    began = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    sign_flips(grid)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - began < 2
    neurons = drawn(36_864, 20)
    tracemalloc.start()
    sign_flips(neurons, draws=500)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * neurons.nbytes + 100 * 2**20


@pytest.mark.parametrize("draws", [0, -1, True, 1.5, "a", None])
def test_too_little_to_say_anything_is_refused(draws: Any) -> None:
    with pytest.raises(CutawayError, match="needs effects of several examples and found 1; give"):
        sign_flips(np.ones((3, 1)))
    with pytest.raises(CutawayError, match="draws must be a whole number of 1 or more"):
        sign_flips(np.ones((3, 4)), draws=draws)
    for seed in ("a", 1.5, -1):
        wrong: Any = seed
        with pytest.raises(CutawayError, match="seed is a whole number of 0 or more; found"):
            sign_flips(np.ones((3, 4)), seed=wrong)
