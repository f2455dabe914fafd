"""Shared keys, parallel layers, post-norms and experts: what was planted or random stays so."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from tests.mechanisms import relation_model

from cutaway.mechanisms import induction, memorised, recall
from cutaway.mechanisms.induction import along, said_twice
from cutaway.mechanisms.transplant import Targets, with_added
from cutaway.model import Model
from cutaway.observe import WeightsError
from cutaway.patch.paths import path_patch

torch.set_num_threads(1)
FAMILIES = pytest.mark.parametrize("family", ["llama", "gpt_neox", "gemma2"])


@pytest.fixture(scope="module")
def opened() -> Callable[[str], Model]:
    return cache(relation_model.of_family)


@FAMILIES
def test_random_models_have_no_mechanism(opened: Callable[[str], Model], family: str) -> None:
    model = opened(family)
    pairs = relation_model.pairs(model)
    assert induction(model, n=12).pairs == []
    found = recall(model, pairs, neutral=["so {}"], n_targets=24)
    assert not found.transplants
    middle = [name for name in found.answer["reading"].values if "mid" in name]
    assert bool(middle) != model.parallel
    texts = [f"capital c{n} k{n} so c{5 - n}" for n in range(6)]
    strings = memorised(model, texts, other=texts[::-1], suffix=2, neurons=3, draws=2)
    assert not strings.needed.notnull().any()


@FAMILIES
def test_a_key_that_heads_share_is_reached(opened: Callable[[str], Model], family: str) -> None:
    """Effects along the path to a head's key are those of plain path patching to its key-value
    head."""
    model = opened(family)
    rows = said_twice(model, n=4)
    from_all = path_patch(
        model, rows, "head_out", f"k.1.{3 // (4 // model.n_kv_heads)}", mode="noise", plan=False
    )
    mine = along(model, rows, "1.3")[0]
    np.testing.assert_allclose(mine, from_all.mean.transpose("layer", "head"), atol=1e-4)


@FAMILIES
def test_what_is_added_is_added_at_the_last_token(
    opened: Callable[[str], Model], family: str
) -> None:
    """Adding what one prompt's stream lacks of another's makes it answer as the other does."""
    model = opened(family)
    last = model.n_layers - 1
    one, other = (model.run(f"so c{n}", keep=[f"resid_post.{last}"]) for n in (1, 2))
    site = f"resid_post.{last}"
    moved = (other[site] - one[site])[:, -1]
    token = int(other.last_logits.argmax())
    chosen = Targets(tokens=model.tokens("so c1"), answers=((token,),), sources=np.array([0]))
    assert with_added(model, chosen, last, moved) == 1.0


def test_experts_are_refused_before_anything_runs(opened: Callable[[str], Model]) -> None:
    with pytest.raises(WeightsError, match="mixture of experts"):
        memorised(opened("mixtral"), "so c1 k1", other=["so c1 c2", "so c1 c3"])
