"""Integrated scores add up to the total effect, on every family; what is missing is a jump."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from tests.circuits.each_family import EVEN, batch, masked
from tests.model.variants import VARIANTS

from cutaway.circuits import NoEffectError, discover
from cutaway.circuits.attribution import Attribution, Slopes
from cutaway.circuits.discovery.eap_ig import INPUT, Between, middles
from cutaway.model.run import Recorder
from cutaway.model.sites import Site

EXPERTS = {"mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "gpt_oss", "deepseek_v3",
           "deepseek_v3-full-q"}  # fmt: skip
SMOOTH = [name for name in VARIANTS if name not in EXPERTS]


def strongest(name: str) -> int:
    """The pair whose two runs differ most: nothing is a fraction of no effect."""
    ends = discover(masked(name), EVEN, "random")
    return int(np.abs((ends.clean - ends.ablated).to_numpy()).argmax())


@pytest.mark.parametrize("name", SMOOTH)
def test_many_steps_are_complete(name: str) -> None:
    """The edges out of the input add up to the total effect, within 1 %."""
    assert not any(site.kind == "router" for site in masked(name).model.sites)
    steps = 256 if name == "nemotron" else 64  # a squared rectifier bends at its corner
    found = discover(masked(name), EVEN.rows([strongest(name)]), "eap-ig", steps=steps)
    assert found.completeness == pytest.approx(1, abs=0.01)
    total = float(np.nansum(found.matrix[:, 0]))
    assert found.completeness == pytest.approx(total / found.gap, rel=1e-5)


@pytest.mark.parametrize("name", sorted(EXPERTS))
def test_mixtures_of_experts_are_complete_but_for_switches(name: str) -> None:
    """Where no router changes its choice, slopes add up to the change; what misses is the rest.

    So the gap that `completeness` shows is the sum of the metric's jumps, and not an error.
    """
    on, one, steps = masked(name), EVEN.rows([0]), 64
    at, attribution = batch(on, one), Attribution(on)
    routers = [Site("router", layer) for layer in range(on.model.n_layers)]
    routers = [site for site in routers if site in on.model.sites]

    def seen(point: float) -> tuple[Slopes, np.ndarray]:
        keep = Recorder(routers)
        tap = Between(INPUT, at.replacement.input, at.clean.input, point)
        slopes = Slopes(at, taps=[tap, keep])
        return slopes, np.concatenate([(one > 0).flatten().numpy() for one in keep.kept.values()])

    ends = [seen(step / steps) for step in range(steps + 1)]
    slopes = [attribution.scores(at, seen(point)[0], slice(0, 1)).sum() for point in middles(steps)]
    slope = np.array([float(one) / steps for one in slopes])
    change = np.diff([float(one.values) for one, _ in ends])
    stays = np.array([np.array_equal(one, other) for (_, one), (_, other) in pairwise(ends)])
    total = change.sum()
    assert stays.mean() > 0.5
    assert abs((slope - change)[stays].sum()) < 0.01 * abs(total)
    found = discover(on, one, "eap-ig", steps=steps)
    missing = (change - slope)[~stays].sum() / total
    assert 1 - found.completeness == pytest.approx(missing, abs=0.011)


def test_completeness_is_of_methods_that_share_the_effect_out() -> None:
    on = masked("gpt2")
    shared = discover(on, EVEN, "mask-gradient", steps=32)
    assert shared.completeness == pytest.approx(float(shared.mean.sum()) / shared.gap, rel=1e-5)
    assert shared.completeness == pytest.approx(1, abs=0.02)
    assert np.isnan(discover(on, EVEN, "exact").completeness)
    few = discover(on, EVEN, "eap-ig", steps=1)
    assert abs(few.completeness - 1) > abs(discover(on, EVEN, "eap-ig", steps=32).completeness - 1)


def test_nothing_is_a_share_of_no_effect() -> None:
    found = discover(masked("gpt2"), EVEN, "eap-ig", steps=1)
    for ablated in (found.clean, found.clean * 1.001):
        with pytest.raises(NoEffectError, match="total effect of about zero"):
            replace(found, ablated=ablated).completeness  # noqa: B018
