"""The planted pair is found, in built and in trained weights; an untrained model has none."""

from pathlib import Path

import numpy as np
import pytest
import torch

import cutaway
from cutaway.behaviours import Behaviour
from cutaway.errors import InputError
from cutaway.mechanisms import Induction, induction
from cutaway.mechanisms.induction import said_twice
from cutaway.organisms import constructed, null, trained

torch.set_num_threads(1)


@pytest.mark.parametrize("made", [constructed, trained])
def test_the_planted_pair_is_found(made: type, tmp_path: Path) -> None:
    found = induction(made("induction", n=1).model, n=24)
    assert found.pairs == [("0.1", "1.0")]
    (row,) = found.heads.to_dict("records")
    assert row["head"] == "1.0"
    assert row["copies"]
    (fed,) = found.composing.to_dict("records")
    assert fed["above chance"]
    assert fed["high"] < 0
    again = Induction.load(found.save(tmp_path / "induction.nc"))
    assert str(again) == str(found)
    assert again.pairs == found.pairs
    assert "0.1 feeds 1.0's key." in str(found)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_an_untrained_model_has_none(seed: int) -> None:
    found = induction(null("untrained", "induction", n=1, seed=seed).model, n=24, seed=seed)
    assert not found.heads["induction head"].any()
    assert found.pairs == []
    assert "no induction head" in str(found)
    assert found.plot().table is not None


def test_the_shipped_model_does_it_otherwise() -> None:
    """Its heads that look there are named, and none is called what it is not."""
    model = cutaway.open()
    found = induction(model, cutaway.behaviour("induction", model, n=24), most=3)
    assert float(found.correct.mean()) > 0.9
    assert "4.2" in found.heads["head"].tolist()
    assert not found.heads.set_index("head").loc["4.2", "matters"]
    assert "without mattering: 4.2" in str(found)
    random = induction(model, n=24)
    assert float(random.correct.mean()) < 0.2
    assert random.heads.empty


def test_pairs_differ_where_the_last_token_stood_first() -> None:
    model = constructed("induction", n=1).model
    rows = said_twice(model, n=10)
    for row in range(10):
        clean, corrupt = (side.row_ids(row) for side in (rows.clean, rows.corrupt))
        (at,) = np.flatnonzero(np.array(clean) != np.array(corrupt))
        assert at == int(rows.clean.labels["A1"][row])
        assert clean[at] == clean[-1]
        assert corrupt[at] not in clean
        assert rows.answers[row] == (clean[at + 1],)
        assert int(rows.clean.labels["B1"][row]) == at + 1


def test_prompts_without_repetition_are_refused() -> None:
    model = constructed("induction", n=1).model
    prompts = Behaviour.from_tokens(
        [[0, 1, 2, 3]], [[0, 1, 2, 4]], answers=[5], wrong_answers=[6], tokenizer=model.tokenizer
    )
    with pytest.raises(InputError, match="with this relation"):
        induction(model, prompts)
