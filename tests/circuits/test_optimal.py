"""Optimal constants: a quadratic's minimum, known circuits, and losing less than any other."""

import numpy as np
import pytest
import torch
from tests.circuits.each_family import EVEN, batch, masked

from cutaway.behaviours import METRICS, Behaviour
from cutaway.circuits import (
    Circuit,
    CircuitError,
    Constants,
    Masked,
    Replacement,
    discover,
    evaluate,
    optimal_constants,
    top_n,
)
from cutaway.circuits.batch import Batch
from cutaway.circuits.faithfulness import measured
from cutaway.circuits.optimal import descend
from cutaway.circuits.written import Written


def test_the_descent_finds_a_quadratics_minimum() -> None:
    # E|a − x|² is least at the mean of x, whichever x each step sees.
    x = torch.tensor([[1.0, -2.0], [3.0, 0.0], [2.0, 5.0]])
    (found,) = descend(
        lambda at, step: (at[0] - x[step % 3]).square().sum(), [torch.zeros(2)], steps=150, rate=0.2
    )
    torch.testing.assert_close(found, x.mean(dim=0), atol=0.05, rtol=0)


def loss(on: Masked, pairs: Behaviour, circuit: Circuit, instead: str | Constants) -> float:
    """The mean KL from the clean run, by the masked forward."""
    found = measured(on, pairs, circuit.kept[None], metric="kl", ablation=instead)
    return float(found.values.mean())


@pytest.mark.parametrize("family", ["gpt2", "llama-grouped", "gemma2"])
def test_it_loses_less_than_mean_and_zero(family: str, pairs: Behaviour) -> None:
    on = masked(family)
    circuit = top_n(discover(on, pairs, "exact"), len(on.graph) // 3)
    found = optimal_constants(on, pairs, circuit, steps=30)
    lost = loss(on, pairs, circuit, found)
    assert lost == pytest.approx(found.loss, rel=1e-3)
    assert loss(on, pairs, circuit, "mean") == pytest.approx(found.mean_loss, rel=1e-3)
    assert lost < 0.9 * min(found.mean_loss, loss(on, pairs, circuit, "zero"))


def test_it_is_a_minimum_along_random_lines(pairs: Behaviour) -> None:
    on = masked("gpt2")
    circuit = top_n(discover(on, pairs, "exact"), 40)
    found = optimal_constants(on, pairs, circuit, steps=100)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        moved = found.written.map(
            lambda x: x + 0.05 * x.std() * torch.randn(x.shape, generator=generator)
        )
        other = Constants(written=moved, loss=0, mean_loss=0)
        assert loss(on, pairs, circuit, other) > found.loss


def test_gradients_in_the_constants_are_slopes(pairs: Behaviour) -> None:
    on = masked("gpt2")
    at = batch(on, pairs, "mean")
    start = at.replacement.map(lambda x: x.double().float().clone().requires_grad_())
    kept = torch.as_tensor(on.graph.valid).float()[None] * 0.5

    def value(constants: Written) -> torch.Tensor:
        logits = on.end_logits(at.tokens, kept, constants, at.end)[0]
        return at.measure(logits).sum()

    direction = torch.randn(start.z[1].shape, generator=torch.Generator().manual_seed(1))
    (slope,) = torch.autograd.grad(value(start), [start.z[1]])
    ends: list[float] = []
    for step in (1e-2, -1e-2):
        z = (start.z[0], start.z[1] + step * direction)
        ends.append(float(value(Written(input=start.input, z=z, mlp=start.mlp)).detach()))
    assert float((slope * direction).sum()) == pytest.approx((ends[0] - ends[1]) / 2e-2, rel=0.02)


def test_by_name_and_by_position(pairs: Behaviour) -> None:
    on = masked("gpt2")
    circuit = top_n(discover(on, EVEN, "exact"), 30)
    found = optimal_constants(on, EVEN, circuit, by_position=True, steps=20)
    assert found.written.input.shape[1] == EVEN.clean.ids.shape[1]
    with pytest.raises(CircuitError, match="constants are of 4 positions and the prompts have 9"):
        measured(on, pairs, circuit.kept[None], ablation=found)
    named = evaluate(on, EVEN, circuit, quick=True, controls=2, other_ablations=["optimal"])
    assert set(named.others) == {"logit_diff, optimal"}
    given = evaluate(on, EVEN, circuit, quick=True, controls=2, ablation=found)
    assert given.ablation == "optimal"
    ends = Batch(on, EVEN, slice(0, 3), METRICS["logit_diff"], Replacement(on.model, EVEN, found))
    np.testing.assert_allclose(given.values.sel(mask="nothing"), ends.ends[1], rtol=1e-4, atol=1e-5)


def test_bad_input_is_refused_in_a_sentence(pairs: Behaviour) -> None:
    on = masked("gpt2")
    circuit = Circuit(graph=on.graph, kept=on.graph.valid)
    with pytest.raises(CircuitError, match="learn them with optimal_constants and give these"):
        Replacement(on.model, pairs, "optimal")
    with pytest.raises(CircuitError, match="steps is a whole number of 1 or more.*found 0 and"):
        optimal_constants(on, pairs, circuit, steps=0)
    with pytest.raises(CircuitError, match="different lengths.*'mean-by-position'"):
        optimal_constants(on, pairs, circuit, by_position=True)
