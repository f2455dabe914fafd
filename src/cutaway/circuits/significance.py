"""Hypothesis tests about a circuit, on the numbers that its masked runs gave.

The tests of Shi et al. 2024 (arXiv:2410.13032, "Hypothesis Testing the Circuit Hypothesis in
LLMs"); s is the metric of an example, C the circuit, M the model, C̄ the model without the
circuit's edges.

Three say of an ideal circuit what must hold, so a good circuit's null is *retained*:

- **equivalence**: C beats M about as often as M beats C,  |P(s(C) > s(M)) − ½| ≤ ε. With k wins of
  n examples, p is the binomial chance at ½ + ε of a share at least as far from one half as k/n;
- **independence**: s(C̄) says nothing about s(M). The statistic is HSIC with Gaussian kernels
  (Gretton et al. 2007), and p comes from permuting one side's examples;
- **minimality**: no edge is idle. Random paths are added to C, and of each such inflated circuit
  one of the added edges is knocked out. An edge of C is idle when its own knock-out changes s more
  than such a random one less than a share q of the time (binomial, one-sided). p is the smallest
  over the edges, times their number (Bonferroni).

Two compare with random circuits, and a good circuit's null is *rejected*:

- **sufficiency**: C is closer to M than at least a share q of random circuits are;
- **necessity** (their partial necessity): leaving C out moves M further than leaving out as many
  random edges of the others does, at least a share q of the time.

And one comes before all of them, since no circuit can be one of a behaviour that is not there:

- **answers**: each prompt is given the answers of another. The model's preference for the right
  ones must be larger than under such permutations (one-sided, exact where all can be tried): with
  answers that have nothing to do with the prompts, p is uniform, whatever the model likes to say.

Deviations: differences within rounding are half a win for each side; each side of HSIC has its own
median distance as its width; a permutation test counts the observed order as one of the draws, so
that p is never 0 (Phipson & Smyth 2010).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, permutations
from math import factorial
from typing import Literal, cast

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy import stats

from cutaway.circuits.graph import CircuitError

Wanted = Literal["retained", "rejected"]
"""What a good circuit does to a null hypothesis."""

EPSILON = 0.1
"""How far from one half the share of wins may lie (Shi et al. 2024)."""
STRICT = 0.01
"""Below this, there is a behaviour."""
QUANTILE = 0.9
"""The share of random circuits or edges that is to be beaten (the same)."""
_TIE = 1e-5
"""Differences of this fraction of the scores' size are rounding."""


@dataclass(frozen=True, kw_only=True)
class Test:
    """One hypothesis test, done."""

    __test__ = False  # not a test of pytest's

    name: str
    """Its name in the module's list."""
    null: str
    """What is tested."""
    statistic: float
    """What was observed: a share of wins, HSIC, the share of idle edges, or a mean."""
    p: float
    """The chance of something as extreme, were the null true."""
    wanted: Wanted
    """What a good circuit does to the null."""
    level: float = 0.05
    """Below it, the null is rejected."""

    @property
    def passed(self) -> bool:
        """Whether it came out as for a good circuit."""
        return (self.p < self.level) == (self.wanted == "rejected")

    def __str__(self) -> str:
        found = "rejected" if self.p < self.level else "retained"
        return f"{self.name}: {self.statistic:.3g}, p = {self.p:.2g}, {found} ({self.null})"


def equivalence(
    circuit: Float[ndarray, " example"], model: Float[ndarray, " example"], *,
    epsilon: float = EPSILON,
) -> Test:  # fmt: skip
    """Whether circuit and model win against each other about equally often.

    Raises `CircuitError` for an ε outside [0, ½), and for scores of different examples.
    """
    if not 0 <= epsilon < 0.5:
        raise CircuitError(f"epsilon is a share from 0 to below one half; found {epsilon!r}.")
    _same_examples(circuit, model)
    difference = circuit - model
    tie = _TIE * np.sqrt(np.mean(np.square(model)) + np.mean(np.square(circuit)))
    level = np.abs(difference) <= tie
    wins = float((difference > tie).sum() + 0.5 * level.sum())
    n = len(difference)
    # Half wins are counted in halves, so that nothing is lost to rounding.
    far = np.abs(2 * np.arange(n + 1) - n) >= abs(2 * wins - n)
    chance = stats.binom.pmf(np.arange(n + 1), n, 0.5 + epsilon)
    return Test(
        name="equivalence", null=f"the circuit wins half the time, give or take {epsilon:g}",
        statistic=wins / n, p=min(1.0, float(chance[far].sum())), wanted="retained",
    )  # fmt: skip


def independence(
    without: Float[ndarray, " example"], model: Float[ndarray, " example"], *,
    draws: int = 999, seed: int = 0,
) -> Test:  # fmt: skip
    """Whether the model without the circuit says anything about the model (HSIC, permuted)."""
    _same_examples(without, model)
    one, other = _centred_kernel(without), _centred_kernel(model)
    generator, n = np.random.default_rng(seed), len(model)
    observed = float((one * other).sum())
    reached = 1
    for _ in range(draws):
        order = generator.permutation(n)
        reached += float((one * other[np.ix_(order, order)]).sum()) >= observed * (1 - 1e-9)
    return Test(
        name="independence", null="the model without the circuit says nothing about the model",
        statistic=observed / n**2, p=reached / (draws + 1), wanted="retained",
    )  # fmt: skip


def idle_edges(
    own: Float[ndarray, " edge"], random: Float[ndarray, " draw"], *, quantile: float = QUANTILE
) -> Float[ndarray, " edge"]:
    """Each edge's p-value: below the level, its knock-out is no more than a random edge's."""
    beaten = (own[:, None] > random[None]).sum(axis=1)
    return np.asarray(stats.binom.cdf(beaten, len(random), _share(quantile)))


def minimality(
    own: Float[ndarray, " edge"], random: Float[ndarray, " draw"], *, quantile: float = QUANTILE
) -> Test:
    """Whether every edge's knock-out changes more than random added edges' do."""
    each = idle_edges(own, random, quantile=quantile) * len(own)
    idle = float(np.mean(each < Test.level)) if len(own) else 0.0
    return Test(
        name="minimality", null=f"every edge matters more than {quantile:.0%} of random ones",
        statistic=idle, p=min(1.0, float(each.min(initial=1.0))), wanted="retained",
    )  # fmt: skip


def sufficiency(
    own: float, random: Float[ndarray, " draw"], *, quantile: float = QUANTILE
) -> Test:  # fmt: skip
    """Whether the circuit is closer to the model than random ones are; distances are given."""
    closer = int((own < random).sum())
    return _against_random("sufficiency", closer, len(random), quantile, "is as close to the model")


def necessity(own: float, random: Float[ndarray, " draw"], *, quantile: float = QUANTILE) -> Test:
    """Whether leaving the circuit out moves the model further; distances moved are given."""
    further = int((own > random).sum())
    return _against_random("necessity", further, len(random), quantile, "is missed as much")


def answers(
    preference: Float[ndarray, "prompt answers"], *, draws: int = 9999, seed: int = 0
) -> Test:
    """Whether the model prefers each prompt's own answers to other prompts'.

    `preference[i, j]` is how much prompt i prefers the right answer of j to its wrong one.
    """
    n = len(preference)
    orders: Iterable[Sequence[int] | np.ndarray]
    if n < 9 and factorial(n) <= draws:
        orders = permutations(range(n))
    else:
        generator = np.random.default_rng(seed)
        orders = chain([np.arange(n)], (generator.permutation(n) for _ in range(draws)))
    rows = np.arange(n)
    means = np.array([preference[rows, order].mean() for order in orders])
    slack = 1e-9 * float(np.abs(preference).max(initial=0.0))
    return Test(
        name="answers", null="the model prefers others' answers as much as its own",
        statistic=float(means[0]), p=float(np.mean(means >= means[0] - slack)), wanted="rejected",
        level=STRICT,
    )  # fmt: skip


def _against_random(name: str, beaten: int, many: int, quantile: float, what: str) -> Test:
    p = float(stats.binom.sf(beaten - 1, many, _share(quantile)))
    return Test(
        name=name, null=f"one random circuit in {1 / (1 - quantile):.0f} {what}",
        statistic=beaten / many if many else float("nan"), p=p, wanted="rejected",
    )  # fmt: skip


def _share(quantile: float) -> float:
    if not 0 < quantile < 1:
        raise CircuitError(f"quantile is a share between 0 and 1; found {quantile!r}.")
    return quantile


def _same_examples(one: np.ndarray, other: np.ndarray) -> None:
    if one.shape != other.shape or one.ndim != 1 or len(one) < 2:
        raise CircuitError(
            "A test compares scores of the same two or more examples; found the shapes "
            f"{one.shape} and {other.shape}."
        )


def _centred_kernel(values: np.ndarray) -> np.ndarray:
    """A Gaussian kernel as wide as the median distance, with rows and columns centred."""
    distance = np.abs(values[:, None] - values[None])
    apart = distance[np.triu_indices(len(values), 1)]
    width = float(np.median(apart)) or float(apart.mean())
    if width == 0:
        return np.zeros_like(distance)
    kernel = np.exp(-np.square(distance / width) / 2)
    mean = kernel.mean(axis=0)
    return cast("np.ndarray", kernel - mean[:, None] - mean[None] + mean.mean())
