"""Attention over the real tokens, whatever the padding."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cutaway.behaviours import Behaviour
from cutaway.errors import CutawayError
from cutaway.model import Model
from cutaway.observe import (
    AttentionBetween,
    AttentionTo,
    Patterns,
    attention_between,
    attention_patterns,
    attention_to,
)


def test_patterns_are_those_of_the_prompt_alone(
    opened: Callable[[str], Model], pairs: Behaviour
) -> None:
    model = opened("llama")
    found = attention_patterns(model, pairs, [(1, 2), "0.3"], examples=[4, 1])
    assert found.values.dims == ("example", "head", "query_position", "key_position")
    assert found.tokens == (pairs.token_texts[4], pairs.token_texts[1])
    alone = model.run(pairs.clean.ids[4:5, :6], keep=["pattern.1", "pattern.0"])
    pattern = found.of((1, 2), example=4)
    assert pattern.shape == (6, 6)
    np.testing.assert_allclose(pattern, alone["pattern.1.2"][0], atol=1e-6)
    np.testing.assert_allclose(found.of("0.3", 4), alone["pattern.0.3"][0], atol=1e-6)
    assert np.isnan(found.values.sel(example=4, head="1.2")[6:]).all()
    np.testing.assert_allclose(found.of("1.2", 1).sum("key_position"), 1.0, rtol=1e-5)


def test_attention_to_labels_is_read_off_the_patterns(
    opened: Callable[[str], Model], pairs: Behaviour
) -> None:
    model = opened("gpt2")
    found = attention_to(model, pairs, batch_size=2)
    assert found.values.dims == ("example", "layer", "head", "position")
    for example in range(5):
        pattern = attention_patterns(model, pairs, ["1.3"], examples=[example]).of("1.3", example)
        read = found.values.sel(example=example, layer=1, head=3)
        np.testing.assert_allclose(read.sel(position="there"), pattern[-1, 3], atol=1e-6)
        np.testing.assert_allclose(read.sel(position="end"), pattern[-1, -1], atol=1e-6)
    assert found.mean.sizes == {"layer": 2, "head": 4, "position": 2}
    assert set(found.interval()) == {"mean", "low", "high"}


def test_both_survive_being_saved(
    opened: Callable[[str], Model], pairs: Behaviour, tmp_path: Path
) -> None:
    patterns = attention_patterns(opened("gpt2"), pairs, [(0, 0)], examples=[0, 2])
    again = Patterns.load(patterns.save(tmp_path / "patterns.nc"))
    assert again.to_dataset().identical(patterns.to_dataset())
    assert again.tokens == patterns.tokens
    weights = attention_to(opened("gpt2"), pairs)
    read = AttentionTo.load(weights.save(tmp_path / "weights.nc"))
    assert read.to_dataset().identical(weights.to_dataset())
    with pytest.raises(CutawayError, match="holds a result 'Patterns' in format 1, not 'Att"):
        AttentionTo.load(tmp_path / "patterns.nc")
    with pytest.raises(CutawayError, match="holds a result 'Patterns'"):
        weights.save(tmp_path / "patterns.nc")


def test_bad_input_is_refused_in_a_sentence(
    opened: Callable[[str], Model], pairs: Behaviour
) -> None:
    model = opened("gpt2")
    with pytest.raises(CutawayError, match="No head was given"):
        attention_patterns(model, pairs, [])
    with pytest.raises(CutawayError, match="'nine' is not a head; write"):
        attention_patterns(model, pairs, ["nine"])
    with pytest.raises(CutawayError, match=r"the last is 'pattern\.0\.3'"):
        attention_patterns(model, pairs, [(0, 4)])
    with pytest.raises(CutawayError, match="examples 0 to 4"):
        attention_patterns(model, pairs, [(0, 1)], examples=[5])
    with pytest.raises(CutawayError, match=r"no head '1\.1' on example 0; they hold"):
        attention_patterns(model, pairs, [(0, 1)]).of((1, 1), 0)
    with pytest.raises(CutawayError, match="no position labelled 'eve'"):
        attention_to(model, pairs, query="eve")


def test_attention_between_labels_adds_up_and_is_that_of_the_patterns(
    opened: Callable[[str], Model], pairs: Behaviour
) -> None:
    model = opened("llama")
    found = attention_between(model, pairs, batch_size=2)
    assert found.values.dims == ("example", "layer", "head", "from", "to")
    assert found.values["to"].values.tolist() == ["there", "end", "elsewhere"]
    np.testing.assert_allclose(found.values.sum("to"), 1.0, rtol=1e-5)
    for example in range(5):
        pattern = attention_patterns(model, pairs, ["1.3"], examples=[example]).of("1.3", example)
        read = found.values.sel(example=example, layer=1, head=3)
        rows = pattern.values[[3, -1]]
        np.testing.assert_allclose(read.sel(to=["there", "end"]), rows[:, [3, -1]], atol=1e-6)
        unlabelled = np.delete(rows, [3, rows.shape[1] - 1], axis=1).sum(axis=1)
        np.testing.assert_allclose(read.sel(to="elsewhere"), unlabelled, atol=1e-6)
    to_end = attention_to(model, pairs, query="there")
    np.testing.assert_allclose(
        found.values.sel({"from": "there", "to": "end"}), to_end.values.sel(position="end")
    )


def test_attention_between_labels_is_listed_drawn_and_saved(
    opened: Callable[[str], Model], pairs: Behaviour, tmp_path: Path
) -> None:
    found = attention_between(opened("gpt2"), pairs)
    top = found.top(100)
    assert len(top) == 2 * 2 * 4
    assert (top["from"] != top["to"]).all()
    assert (top["mean"].diff().dropna() <= 0).all()
    first = top.iloc[0]
    at = {name: first[name] for name in ("layer", "head", "from", "to")}
    assert first["mean"] == pytest.approx(float(found.mean.sel(at)))
    assert first["low"] <= first["mean"] <= first["high"]
    one, every = found.plot((1, 2)), found.plot(query="there")
    assert "head 1.2" in one.title
    assert one.table is not None
    assert every.table is not None
    assert [len(one.table.rows), len(one.table.columns)] == [2, 4]
    assert len(every.table.rows) == 2 * 4
    again = AttentionBetween.load(found.save(tmp_path / "between.nc"))
    assert again.to_dataset().identical(found.to_dataset())
    with pytest.raises(CutawayError, match=r"no head 2\.0 here"):
        found.plot((2, 0))
    with pytest.raises(CutawayError, match="no label 'eve' here"):
        found.plot(query="eve")
    with pytest.raises(CutawayError, match="counted twice"):
        attention_between(opened("gpt2"), pairs, positions=["end", -1])
