"""Tests of circuits: by hand, calibrated under their nulls, strong under what they look for."""

import numpy as np
import pytest
from scipy import stats

from cutaway.circuits import CircuitError
from cutaway.circuits.significance import (
    answers,
    equivalence,
    idle_edges,
    independence,
    minimality,
    necessity,
    sufficiency,
)


def drawn(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_equivalence_by_hand() -> None:
    # Nine wins of ten, against a coin of at most 0.6: shares as far from one half as 0.9.
    circuit = np.array([1.0] * 9 + [-1.0])
    found = equivalence(circuit, np.zeros(10), epsilon=0.1)
    coin = stats.binom(10, 0.6)
    assert found.statistic == 0.9
    assert found.p == pytest.approx(coin.cdf(1) + coin.sf(8))
    fair = equivalence(circuit, np.zeros(10), epsilon=0)
    assert fair.p == pytest.approx(stats.binomtest(9, 10, 0.5).pvalue)
    assert not fair.passed


def test_equivalence_takes_rounding_for_a_tie() -> None:
    model = drawn(0).normal(size=40)
    found = equivalence(model + 1e-9, model)
    assert (found.statistic, found.p) == (0.5, pytest.approx(1))
    assert found.passed
    worse = equivalence(model - 0.01, model)
    assert worse.statistic == 0
    assert not worse.passed


def test_equivalence_rejects_no_more_than_its_level_at_the_edge_of_the_null() -> None:
    generator = drawn(1)
    wins = generator.random((2000, 60)) < 0.6
    p = np.array([equivalence(np.where(one, 1.0, -1.0), np.zeros(60)).p for one in wins])
    for level in (0.05, 0.2):
        assert (p < level).mean() <= level + 3 * np.sqrt(level / 2000)
    assert (p < 0.2).mean() > 0.1


def test_independence_is_calibrated_and_sees_what_correlation_does_not() -> None:
    generator = drawn(2)
    p = np.array([
        independence(generator.normal(size=25), generator.normal(size=25), draws=99).p
        for _ in range(300)
    ])  # fmt: skip
    assert stats.kstest(p, "uniform").pvalue > 0.01
    x = generator.normal(size=60)
    squared = x**2 + 0.1 * generator.normal(size=60)
    assert independence(squared, x).p == 0.001
    assert independence(np.ones(60), x).p == 1


def test_idle_edges_are_calibrated_and_found() -> None:
    generator = drawn(3)
    # An edge exactly at the 0.9 quantile of random ones is at the edge of the null.
    random = generator.random((3000, 40))
    p = np.array([idle_edges(np.array([0.9]), one)[0] for one in random])
    for level in (0.05, 0.2):
        assert (p < level).mean() <= level + 3 * np.sqrt(level / 3000)
    random = np.abs(generator.normal(size=30)) * 0.01
    assert minimality(np.array([1.0, 0.5, 0.4]), random).passed
    found = minimality(np.array([1.0, 0.5, 0.001]), random)
    assert not found.passed
    assert found.statistic == pytest.approx(1 / 3)
    assert found.p == pytest.approx(3 * idle_edges(np.array([0.001]), random)[0])


def test_beating_random_circuits_needs_enough_of_them() -> None:
    assert sufficiency(0.1, np.ones(29)).p == pytest.approx(0.9**29)
    assert sufficiency(0.1, np.ones(29)).passed
    assert not sufficiency(0.1, np.ones(28)).passed
    assert not sufficiency(1.0, np.ones(100)).passed
    assert necessity(1.0, np.zeros(29)).passed
    assert not necessity(0.0, np.ones(100)).passed


def test_answers_by_hand() -> None:
    # Of the six orders of three answers, the identity alone gives the largest mean.
    found = answers(np.eye(3))
    assert (found.statistic, found.p) == (1.0, pytest.approx(1 / 6))
    # A liking for some answers whatever the prompt says nothing.
    assert answers(np.tile([5.0, 0.0, -5.0, 1.0], (4, 1))).p == 1
    assert answers(np.eye(12) * 3 + drawn(4).normal(size=(12, 12))).passed


def test_answers_that_were_shuffled_give_every_p_alike() -> None:
    generator = drawn(5)
    liking = generator.normal(size=(15, 15)) + 4 * np.eye(15)
    p = [answers(liking[:, generator.permutation(15)], draws=199).p for _ in range(400)]
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_the_same_seed_gives_the_same_p() -> None:
    x, y = drawn(6).normal(size=(2, 30))
    assert independence(x, y, seed=3) == independence(x, y, seed=3)
    assert independence(x, y, seed=3).p != independence(x, y, seed=4).p


def test_bad_input_is_refused_in_a_sentence() -> None:
    with pytest.raises(CircuitError, match="share from 0 to below one half; found 0.5"):
        equivalence(np.ones(3), np.zeros(3), epsilon=0.5)
    with pytest.raises(CircuitError, match=r"the same two or more examples; .* \(1,\) and \(1,\)"):
        independence(np.ones(1), np.zeros(1))
    with pytest.raises(CircuitError, match="a share between 0 and 1; found 1"):
        minimality(np.ones(3), np.ones(5), quantile=1)
