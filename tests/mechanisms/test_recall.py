"""Recall that was built is read back; an untrained model recalls nothing."""

from pathlib import Path

import numpy as np
import pytest
from tests.mechanisms import relation_model

import cutaway
from cutaway.errors import InputError
from cutaway.mechanisms import Recall, recall
from cutaway.observe import logit_lens

NEUTRAL = ["so {}"]


def test_the_stages_and_the_vector_that_were_built(tmp_path: Path) -> None:
    model = relation_model.built()
    found = recall(model, relation_model.pairs(model), neutral=NEUTRAL, n_targets=40)
    assert found.stages == {
        "argument formation": "resid_pre.0",
        "function application": "resid_post.1",
        "saturation": "resid_post.1",
    }
    assert found.layer == 1
    assert found.transplants
    gains = found.gains.set_index("added")
    assert gains.loc["this MLP's output", "on top"] == 1
    assert gains.loc["MLP 0's output", "gain"] == 0
    np.testing.assert_allclose(found.base, 0.5)  # the country itself comes first
    again = Recall.load(found.save(tmp_path / "recall.nc"))
    assert str(again) == str(found)
    assert again.stages == found.stages
    assert "function application at resid_post.1" in found.plot().shows


def test_an_untrained_model_has_no_stages_and_no_vector() -> None:
    model = relation_model.untrained()
    found = recall(model, relation_model.pairs(model), neutral=NEUTRAL, n_targets=40)
    assert found.stages["function application"] is None
    assert not found.transplants


def test_on_the_shipped_model() -> None:
    """The answer's curve is the lens's; the argument is never formed at the end; one MLP's output
    makes other prompts answer, and neither random vectors nor other MLPs do so as well."""
    model = cutaway.open()
    capitals = cutaway.behaviour("capitals", model, n=30)
    found = recall(model, capitals, strength=4)
    lens = logit_lens(model, capitals, positions="end")
    mine = found.answer.sel(reading=lens.rank["layer"].values)
    np.testing.assert_allclose(mine, 1 / (1 + lens.rank.squeeze("position")))
    assert found.stages["argument formation"] is None
    assert found.stages["function application"] is not None
    assert found.layer == 3
    assert found.transplants
    assert "no such stage" in str(found)


def test_what_is_refused() -> None:
    model = relation_model.built()
    pairs = relation_model.pairs(model)
    with pytest.raises(InputError, match="has 'COUNTRY'"):
        recall(model, pairs, argument="CITY")
    with pytest.raises(InputError, match="one {} where the subject goes"):
        recall(model, pairs, neutral=["so"])
    with pytest.raises(InputError, match="strength=0"):
        recall(model, pairs, n_targets=2, strength=0)
    with pytest.raises(InputError, match="two with different answers"):
        recall(model, pairs.rows([0]), neutral=NEUTRAL)
