"""Attention over the real tokens, whatever the padding."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cutaway.behaviours import Behaviour
from cutaway.errors import CutawayError
from cutaway.model import Model
from cutaway.observe import AttentionTo, Patterns, attention_patterns, attention_to


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
