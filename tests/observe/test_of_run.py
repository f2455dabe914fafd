"""A finished run read at a position: the same numbers as the measurements over a behaviour give."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from cutaway.behaviours import Behaviour
from cutaway.model import Model, Site
from cutaway.model.edits import ablate, add
from cutaway.observe import attribute, attribute_neurons, logit_lens
from cutaway.observe.of_run import (
    end_logits,
    neurons_of_logit,
    parts_of_logit,
    sites_read,
    top_tokens,
)

FAMILIES = ("gpt2", "llama", "gemma2", "olmo2", "bloom", "granite", "cohere")


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_are_those_of_the_attribution(
    opened: Callable[[str], Model], pairs: Behaviour, family: str
) -> None:
    model, one = opened(family), pairs.rows([1])
    run = model.run(one.clean, keep=sites_read(model))
    found = parts_of_logit(model, run, -1, [5, 11])
    reference = attribute(model, one, target=(5, 11))
    np.testing.assert_allclose(found.heads, reference.heads[0], rtol=1e-4, atol=1e-5)
    mlps = reference.values[0, (reference.values["kind"] == "mlp_out").to_numpy()]
    np.testing.assert_allclose(found.mlps, mlps, rtol=1e-4, atol=1e-5)
    assert abs(found.rest) < 1e-4 * max(1.0, abs(found.logit))


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_neurons_are_those_of_the_attribution(
    opened: Callable[[str], Model], pairs: Behaviour, family: str
) -> None:
    model, one = opened(family), pairs.rows([1])
    run = model.run(one.clean, keep=[*sites_read(model), "mlp_post.1"])
    found = neurons_of_logit(model, run, 1, -1, [5])
    reference = attribute_neurons(model, one, layers=[1], target=5)
    np.testing.assert_allclose(found, reference.values[0, 0], rtol=1e-4, atol=1e-5)


def test_the_lens_and_the_logits_are_the_model_s(
    opened: Callable[[str], Model], pairs: Behaviour
) -> None:
    model, one = opened("llama"), pairs.rows([1])
    run = model.run(one.clean, keep=sites_read(model))
    ids, shares = top_tokens(model, run, [2, -1])
    reference = logit_lens(model, one, positions=[2, -1])
    np.testing.assert_array_equal(ids, reference.top_token[0])
    torch.testing.assert_close(end_logits(model, run, -1), run.logits[0, -1])
    torch.testing.assert_close(shares[-1, -1], run.logits[0, -1].softmax(dim=-1).max())


def test_parts_follow_edits_and_tell_what_the_stream_was_given(
    opened: Callable[[str], Model], pairs: Behaviour
) -> None:
    model, one = opened("gpt2"), pairs.rows([1])
    without = model.run(one.clean, keep=sites_read(model), edits=ablate("z.1.2"))
    found = parts_of_logit(model, without, -1, [5])
    assert float(found.heads[1, 2]) == 0
    assert abs(found.rest) < 1e-4
    last = Site("resid_post", model.n_layers - 1)
    steered = model.run(
        one.clean, keep=sites_read(model), edits=add(last, torch.ones(model.d_model).cumsum(0))
    )
    found = parts_of_logit(model, steered, -1, [5])
    assert found.logit == pytest.approx(float(steered.logits[0, -1, 5]), abs=1e-4)
    assert abs(found.rest) > 1e-2
