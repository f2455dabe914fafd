"""Two behaviours of one circuit share its heads; models and prompts without one share none."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import cutaway
from cutaway.behaviours import Behaviour
from cutaway.errors import InputError
from cutaway.mechanisms import Reuse, reuse
from cutaway.organisms import constructed, null

torch.set_num_threads(1)


def two(behaviour: Behaviour) -> list[Behaviour]:
    """The same task twice: on different pairs, under different names."""
    half = len(behaviour) // 2
    return [
        replace(behaviour.rows(slice(0, half)), name="one"),
        replace(behaviour.rows(slice(half, None)), name="other"),
    ]


def test_a_planted_circuit_serves_both(tmp_path: Path) -> None:
    organism = constructed("induction", n=60)
    found = reuse(organism.model, two(organism.behaviour), draws=5)
    assert found.shared == [(0, 1), (1, 0)]
    assert found.hurt["hurt"].all()
    assert float(np.abs(found.random).max()) < 1e-4  # no other head does anything
    assert found.pairs.iloc[0]["overlap"] == 1
    # two of eight heads, one in each layer of four: chance shares each with 1/4
    expected = (6 / 16) * (1 / 3) + 1 / 16
    assert found.pairs.iloc[0]["expected"] == pytest.approx(expected)
    assert found.pairs.iloc[0]["p"] == pytest.approx(1 / 16)
    again = Reuse.load(found.save(tmp_path / "reuse.nc"))
    assert str(again) == str(found)
    assert again.shared == found.shared
    assert again.plot().table is not None


def test_a_behaviour_that_the_model_lacks_is_not_hurt() -> None:
    """Wrong answers: moving the heads moves the metric, and there is nothing to lose."""
    organism = constructed("induction", n=60)
    one, other = two(organism.behaviour)
    sides = (other.clean, other.corrupt)
    turned = Behaviour.from_tokens(
        *([side.row_ids(row) for row in range(len(other))] for side in sides),
        answers=other.wrong_answers, wrong_answers=other.answers, name="turned",
    )  # fmt: skip
    found = reuse(organism.model, [*two(replace(one, name="one")), turned], draws=5)
    hurt = found.hurt.set_index("behaviour")
    assert not hurt.loc["turned", "hurt"]
    # though its interval says so
    assert bool((found.lost.sel(behaviour="turned", end="low") > found.random.max()).item())
    assert hurt.loc["one", "hurt"]


@pytest.mark.parametrize("seed", [0, 1])
def test_an_untrained_model_has_nothing_to_share(seed: int) -> None:
    organism = null("untrained", "induction", n=60, seed=seed)
    found = reuse(organism.model, two(organism.behaviour), draws=2, seed=seed)
    assert found.shared == []
    assert not found.hurt["hurt"].any()
    assert "does not have: one, other" in str(found)
    with pytest.raises(InputError, match="none to draw"):
        found.plot()


def test_on_the_shipped_model() -> None:
    """Capitals and acronyms run through the same heads, and IOI does not."""
    model = cutaway.open()
    behaviours = [cutaway.behaviour(name, model, n=24) for name in ("capitals", "acronyms", "ioi")]
    found = reuse(model, behaviours, draws=4)
    assert (0, 1) in found.shared
    hurt = found.hurt.set_index("behaviour")
    assert hurt.loc[["capitals", "acronyms"], "hurt"].all()
    assert not hurt.loc["ioi", "hurt"]
    top = found.pairs.iloc[0]
    assert {top["one"], top["other"]} == {"capitals", "acronyms"}
    assert top["overlap"] > top["expected"]


def test_what_is_refused() -> None:
    organism = constructed("induction", n=30)
    one, other = two(organism.behaviour)
    with pytest.raises(InputError, match="different names; found one"):
        reuse(organism.model, [one])
    with pytest.raises(InputError, match="different names"):
        reuse(organism.model, [one, one])
    with pytest.raises(InputError, match="'other' has 6 pairs"):
        reuse(organism.model, [one, other.rows(slice(6))])
