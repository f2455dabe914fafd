"""Faithfulness and its areas worked out by hand, and circuits whose worth is known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from tests.circuits.each_family import EVEN, batch, masked

import cutaway
from cutaway.behaviours import METRICS, Behaviour
from cutaway.circuits import (
    Circuit,
    CircuitError,
    Curve,
    Evaluation,
    Replacement,
    curve,
    discover,
    evaluate,
    top_n,
)
from cutaway.circuits.controls import alike
from cutaway.circuits.faithfulness import measured
from cutaway.errors import InputError
from cutaway.model import replace


def by_hand(values: list[list[float]], shares: list[float]) -> Curve:
    return Curve(
        values=xr.DataArray(np.array(values), {"share": shares}, ("share", "example")),
        clean=xr.DataArray(np.array([3.0, 5.0]), dims="example"),
        ablated=xr.DataArray(np.array([1.0, 3.0]), dims="example"),
        by="score", provenance={},
    )  # fmt: skip


def test_the_areas_by_hand() -> None:
    found = by_hand([[1, 3], [2, 4], [4, 6], [3, 5]], [0.1, 0.2, 0.5, 1.0])
    np.testing.assert_allclose(found.faithfulness["mean"], [0, 0.5, 1.5, 1])
    assert found.cpr.mean == pytest.approx(0.1 * 0.25 + 0.3 * 1.0 + 0.5 * 1.25)
    assert found.cmd.mean == pytest.approx(0.1 * 0.75 + 0.3 * 0.5 + 0.5 * 0.25)
    # Every example has the same ratio, so the intervals have no width.
    assert found.cpr.low == pytest.approx(found.cpr.mean)
    assert found.faithfulness["high"].to_numpy() == pytest.approx([0, 0.5, 1.5, 1])


def test_intervals_are_as_wide_as_examples_differ() -> None:
    found = by_hand([[1, 5], [3, 5]], [0.5, 1.0])
    low, mean, high = (float(found.faithfulness[end][0]) for end in ("low", "mean", "high"))
    assert (low, mean, high) == (0, 0.5, 1)


def test_the_whole_graph_is_faithful_and_a_curve_is_its_circuits(
    pairs: Behaviour, tmp_path: Path
) -> None:
    on = masked("llama-grouped")
    scores = discover(on, pairs, "exact")
    found = curve(on, pairs, scores, sizes=(0.1, 0.4, 1.0), batch_size=2)
    assert float(found.faithfulness["mean"][-1]) == pytest.approx(1, abs=1e-4)
    at = batch(on, pairs)
    chosen = top_n(scores, round(0.4 * len(on.graph)))
    np.testing.assert_allclose(found.values[1], at.values(chosen.mask[None])[0], rtol=1e-4,
                               atol=1e-5)  # fmt: skip
    expected = (found.values[1].mean() - found.ablated.mean()) / (
        found.clean.mean() - found.ablated.mean()
    )
    assert float(found.faithfulness["mean"][1]) == pytest.approx(float(expected))
    found.save(tmp_path / "curve.nc")
    loaded = Curve.load(tmp_path / "curve.nc")
    assert (loaded.cpr, loaded.cmd, loaded.by) == (found.cpr, found.cmd, "magnitude")


def test_evaluation_of_everything_and_of_less(pairs: Behaviour) -> None:
    on = masked("gpt2")
    whole = Circuit(graph=on.graph, kept=on.graph.valid)
    found = evaluate(
        on, pairs, whole, controls=2, sets=3, other_metrics=["prob_diff"], other_ablations=["mean"]
    )
    assert found.faithfulness.mean == pytest.approx(1, abs=1e-4)
    assert [one.mean for one in found.controls] == pytest.approx([1, 1], abs=1e-4)
    assert set(found.others) == {
        "logit_diff, mean", "prob_diff, counterfactual", "prob_diff, mean"
    }  # fmt: skip
    assert all(ratio.mean == pytest.approx(1, abs=1e-3) for ratio in found.others.values())
    # Without the set, circuit and model are the same when the circuit is the model.
    assert found.incompleteness["distance"].max() < 1e-4
    assert list(found.minimality["change"]) == sorted(found.minimality["change"])
    assert "110 of 110 edges (100.0%)" in str(found)


def test_what_evaluation_says_of_parts_is_what_masks_do(pairs: Behaviour) -> None:
    on = masked("gpt2")
    scores = discover(on, pairs, "eap")
    circuit = top_n(scores, 30)
    found = evaluate(on, pairs, circuit, controls=3, sets=4, seed=1)
    at = batch(on, pairs)
    gap = abs((at.ends[0] - at.ends[1]).mean())
    value = at.values(circuit.mask[None])[0].mean()
    for row in found.minimality.itertuples():
        names = [str(writer) for writer in on.graph.writers]
        mask = circuit.mask[None].clone()
        mask[..., names.index(str(row.part))] = 0
        assert row.change == pytest.approx(abs(value - at.values(mask).mean()) / gap, abs=1e-4)
    assert set(found.minimality["part"]) == set(circuit.parts)
    for row in found.incompleteness.itertuples():
        gone = [names.index(name) for name in str(row.parts).split(", ") if name]
        masks = torch.stack([circuit.mask, torch.as_tensor(on.graph.valid).float()])
        masks[..., gone] = 0
        both = at.values(masks).mean(axis=1)
        assert (row.circuit, row.model) == pytest.approx(tuple(both), abs=1e-4)
        assert row.low <= row.distance + 1e-6
        assert row.distance <= row.high + 1e-6
    assert found.faithfulness.mean == pytest.approx(
        (value - at.ends[1].mean()) / (at.ends[0] - at.ends[1]).mean(), abs=1e-3
    )
    reaching = [not one.high < found.faithfulness.low for one in found.controls]
    assert found.checks["random"].says.startswith(f"{np.mean(reaching):.0%} of 3 random circuits")


@pytest.mark.parametrize("ablation", ["mean", "zero"])
def test_parts_that_are_off_are_parts_overwritten_by_hooks(ablation: str, pairs: Behaviour) -> None:
    """What a circuit keeps under these ablations is what plain edits of the model leave."""
    on = masked("gpt2")
    parts = ["a0.h1", "m0", "a1.h0"]
    kept = on.graph.valid & ~np.isin([str(writer) for writer in on.graph.writers], parts)
    found = measured(on, pairs, kept[None], ablation=ablation)
    constants = Replacement(on.model, pairs, ablation)(slice(0, len(pairs)))
    edits = [
        replace("z.0", constants.z[0][:, :, [1]], head=[1]), replace("mlp_out.0", constants.mlp[0]),
        replace("z.1", constants.z[1][:, :, [0]], head=[0]),
    ]  # fmt: skip
    run = on.model.run(pairs.clean, edits=edits)
    by_hooks = METRICS["logit_diff"](pairs.end_logits(run.logits), pairs)
    np.testing.assert_allclose(found.values[0], by_hooks, rtol=1e-4, atol=1e-5)
    assert np.abs(found.values[0] - found.clean).max() > 1e-3


@pytest.mark.parametrize("ablation", ["counterfactual", "mean"])
@pytest.mark.parametrize("family", ["gpt2", "gptj", "llama-grouped", "deepseek_v3"])
def test_masks_that_are_run_once_for_all_are_each_alone(
    family: str, ablation: str, pairs: Behaviour
) -> None:
    on = masked(family)
    generator = np.random.default_rng(0)
    few = [(generator.random(on.graph.valid.shape) < share) & on.graph.valid
           for share in (0.02, 0.02, 0.1, 0.1, 0.2)]  # fmt: skip
    masks = np.stack([*few, few[0], np.zeros_like(few[0]), on.graph.valid])
    found = measured(on, pairs, masks, ablation=ablation)
    at = batch(on, pairs, ablation)
    for mask, values in zip(masks, found.values, strict=True):
        alone = at.values(torch.as_tensor(mask, dtype=torch.float32)[None])[0]
        np.testing.assert_allclose(values, alone, rtol=1e-4, atol=1e-5)


def test_controls_are_alike() -> None:
    on = masked("gptj")
    generator = np.random.default_rng(0)
    kept = (generator.random(on.graph.valid.shape) < 0.3) & on.graph.valid
    circuit = Circuit(graph=on.graph, kept=kept)
    drawn = alike(circuit, generator)
    assert drawn.sum() == kept.sum()
    assert (drawn != kept).any()
    assert not (drawn & ~on.graph.valid).any()
    for kind in ("q", "k", "v", "mlp", "logits"):
        rows = [reader.kind == kind for reader in on.graph.readers]
        assert drawn[rows].sum() == kept[rows].sum()


def test_bad_input_is_refused_in_a_sentence(pairs: Behaviour) -> None:
    on = masked("gpt2")
    scores = discover(on, pairs, "random")
    with pytest.raises(CircuitError, match=r"two or more growing shares .* found \(0.5, 0.1\)"):
        curve(on, pairs, scores, sizes=(0.5, 0.1))
    other = Circuit(graph=masked("llama-grouped").graph, kept=masked("llama-grouped").graph.valid)
    with pytest.raises(CircuitError, match="is built otherwise"):
        evaluate(on, pairs, other)
    same = Behaviour.from_tokens(
        [[3, 4, 5]], [[3, 4, 5]], answers=[5], wrong_answers=[6]
    )  # fmt: skip
    with pytest.raises(CircuitError, match="total effect of about zero"):
        curve(on, same, scores)


WRONG_COUNTS: list[tuple[dict[str, Any], str]] = [
    ({"controls": -1}, "controls must be a whole number of 0 or more; found -1"),
    ({"controls": 2.5}, "controls must be a whole number of 0 or more; found 2.5"),
    ({"sets": True}, "sets must be a whole number of 0 or more; found True"),
    ({"seed": -1}, "seed must be a whole number of 0 or more; found -1"),
    ({"other_metrics": ["loss"]}, "no metric 'loss'"),
    ({"other_ablations": ["noise"]}, "no ablation 'noise'"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG_COUNTS)
def test_wrong_settings_are_refused_before_any_pass(settings: dict[str, Any], message: str) -> None:
    on = masked("gpt2")
    ran: list[int] = []
    with pytest.raises(CircuitError, match=message):
        evaluate(on, EVEN, Circuit(graph=on.graph, kept=on.graph.valid),
                 progress=lambda done, _: ran.append(done), **settings)  # fmt: skip
    assert not ran


def test_another_tokenizer_s_prompts_are_refused_before_any_pass() -> None:
    on, foreign = masked("gpt2"), replaced(EVEN, 10**5)
    circuit = Circuit(graph=on.graph, kept=on.graph.valid)
    with pytest.raises(InputError, match="Token id 100000 is outside .*'s vocabulary of"):
        discover(on, foreign, ablation="mean")
    with pytest.raises(InputError, match="Token id 100000 is outside"):
        evaluate(on, foreign, circuit, ablation="mean")
    with pytest.raises(InputError, match="Token id 100000 is outside"):
        evaluate(on, EVEN, circuit, others={"foreign": foreign})


def replaced(pairs: Behaviour, token: int) -> Behaviour:
    """The same pairs with another corrupt token."""
    clean, corrupt = (side.ids.tolist() for side in (pairs.clean, pairs.corrupt))
    corrupt[0][2] = token
    return Behaviour.from_tokens(clean, corrupt, answers=pairs.answers,
                                 wrong_answers=pairs.wrong_answers)  # fmt: skip


def test_other_prompts_without_an_effect_leave_the_rest(tmp_path: Path) -> None:
    on = masked("gpt2")
    same = Behaviour.from_tokens(
        EVEN.clean.ids.tolist(), EVEN.clean.ids.tolist(),
        answers=EVEN.answers, wrong_answers=EVEN.wrong_answers,
    )  # fmt: skip
    whole = Circuit(graph=on.graph, kept=on.graph.valid)
    found = evaluate(on, EVEN, whole, controls=2, others={"same": same, "again": EVEN}, quick=True)
    assert list(found.others) == ["again"]
    assert list(found.unmeasured) == ["same"]
    assert "total effect of about zero" in found.unmeasured["same"]
    assert "no effect to keep a fraction of" in str(found)
    found.save(tmp_path / "evaluation.nc")
    assert Evaluation.load(tmp_path / "evaluation.nc").unmeasured == found.unmeasured


def test_one_prompt_is_said_to_be_too_few() -> None:
    on = masked("gpt2")
    whole = Circuit(graph=on.graph, kept=on.graph.valid)
    found = evaluate(on, EVEN.rows([0]), whole, controls=2, quick=True)
    assert not found.passes
    assert all("two prompts or more" in check.says for check in found.checks.values())
    assert "nan" not in " ".join(check.says for check in found.checks.values())


def test_a_model_in_double_precision_goes_all_the_way() -> None:
    """The shipped model, opened as float64."""
    model = cutaway.open(dtype="float64")
    ioi = cutaway.behaviour("ioi", model, n=6)
    scores = discover(model, ioi, "eap")
    sizes = curve(model, ioi, scores, sizes=(0.1, 1.0))
    assert float(sizes.faithfulness["mean"][-1]) == pytest.approx(1, abs=1e-9)
    found = evaluate(model, ioi, top_n(scores, 40), controls=2, quick=True)
    assert np.isfinite(found.preference.mean)
