"""Shares of heads by source and of MLPs by neuron: their sums, and what taking them out does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cutaway.behaviours import Behaviour
from cutaway.errors import CutawayError, InputError
from cutaway.model import Model, Site
from cutaway.model.edits import ablate
from cutaway.observe import (
    AttributionError,
    Shares,
    attribute,
    attribute_neurons,
    attribute_sources,
)

FAMILIES = ("gpt2", "llama", "gemma2", "olmo2", "gptj", "bloom", "granite", "cohere", "opt", "glm4")


def parts(model: Model, pairs: Behaviour, kind: str, **options: Any) -> np.ndarray:
    values = attribute(model, pairs, **options).values
    return values[:, (values["kind"] == kind).to_numpy()].to_numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_sources_add_up_to_the_heads(
    opened: Callable[[str], Model], pairs: Behaviour, family: str
) -> None:
    model = opened(family)
    found = attribute_sources(model, pairs, batch_size=3)
    heads = parts(model, pairs, "head_out").reshape(found.total.shape)
    np.testing.assert_allclose(found.total, heads, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "bloom"])
def test_all_positions_leave_no_rest(
    opened: Callable[[str], Model], pairs: Behaviour, family: str
) -> None:
    one = pairs.rows([0])
    everywhere = list(range(int(one.clean.lengths[0])))
    found = attribute_sources(opened(family), one, positions=everywhere)
    np.testing.assert_allclose(found.rest, 0, atol=1e-5)
    assert np.abs(found.values).max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_neurons_add_up_to_the_mlp(
    opened: Callable[[str], Model], pairs: Behaviour, family: str
) -> None:
    model = opened(family)
    found = attribute_neurons(model, pairs, batch_size=3)
    np.testing.assert_allclose(found.total, parts(model, pairs, "mlp_out"), rtol=1e-4, atol=1e-5)
    if family == "llama":
        np.testing.assert_allclose(found.rest, 0, atol=1e-5)


def test_a_neurons_share_is_what_the_last_stream_loses_without_it(
    opened: Callable[[str], Model], pairs: Behaviour
) -> None:
    model, layer = opened("gpt2"), 1
    direction = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))
    found = attribute_neurons(model, pairs, layers=[layer], target=direction)
    end, row = pairs.clean.labels["end"], torch.arange(len(pairs))
    last = Site("resid_final")
    whole = model.run(pairs.clean, keep=[last])[last][row, end] @ direction
    cut = model.run(pairs.clean, keep=[last], edits=[ablate(f"mlp_post.{layer}.5")])[last]
    lost = (whole - cut[row, end] @ direction).detach()
    np.testing.assert_allclose(found.values.sel(layer=layer, neuron=5), lost, atol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "cohere", "olmo2"])
@pytest.mark.parametrize("target", [7, (7, 9), "direction"])
def test_any_target_adds_up(
    opened: Callable[[str], Model], pairs: Behaviour, family: str, target: Any
) -> None:
    model = opened(family)
    run = model.run(pairs.clean, keep=[Site("resid_final")])
    logits = pairs.end_logits(run.logits).detach()
    if target == "direction":
        aimed = torch.randn(len(pairs), model.d_model, generator=torch.Generator().manual_seed(1))
        end = pairs.clean.labels["end"]
        stream = run[Site("resid_final")][torch.arange(len(pairs)), end]
        expected = (stream * aimed).sum(dim=1)
    else:
        aimed = target
        expected = logits[:, 7] - (logits[:, 9] if isinstance(target, tuple) else 0)
    found = attribute(model, pairs, target=aimed, batch_size=3)
    np.testing.assert_allclose(found.measured, expected.detach(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.total, found.target, rtol=1e-3, atol=1e-4)
    heads = parts(model, pairs, "head_out", target=aimed)
    shares = attribute_sources(model, pairs, target=aimed)
    np.testing.assert_allclose(shares.total.to_numpy().reshape(heads.shape), heads, atol=1e-4)


def test_saved_and_ranked(opened: Callable[[str], Model], pairs: Behaviour, tmp_path: Path) -> None:
    found = attribute_neurons(opened("gpt2"), pairs)
    again = Shares.load(found.save(tmp_path / "shares.nc"))
    np.testing.assert_array_equal(again.values, found.values)
    table = found.top(3)
    best = np.abs(found.values.mean("example").to_numpy()).max()
    assert abs(table["mean"][0]) == pytest.approx(best)
    assert list(table.columns) == ["layer", "neuron", "mean", "low", "high"]


def test_what_is_refused(opened: Callable[[str], Model], pairs: Behaviour) -> None:
    model = opened("gpt2")
    with pytest.raises(InputError, match="counted twice"):
        attribute_sources(model, pairs, positions=["end", -1])
    with pytest.raises(AttributionError, match="found \\(3,\\)"):
        attribute(model, pairs, target=torch.ones(3))
    with pytest.raises(AttributionError, match="found 100000"):
        attribute(model, pairs, target=100000)
    with pytest.raises(CutawayError, match="mixture of experts"):
        attribute_neurons(opened("mixtral"), pairs)
