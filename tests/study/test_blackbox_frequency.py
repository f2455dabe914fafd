"""Word frequency: correlations against scipy's, merges and scores read as they are."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

import cutaway
from cutaway.behaviours.builtin.words import DISTRACTORS
from cutaway.errors import BehaviourError
from cutaway.model import Model
from cutaway.study import Settings
from cutaway.study.blackbox_frequency import (
    Frequency,
    by_model,
    by_tokenizer,
    frequency,
    spearman,
)
from cutaway.study.blackbox_section import common
from cutaway.study.stage import Inputs


@pytest.fixture(scope="module")
def septet() -> Model:
    return cutaway.open()


@given(st.lists(st.integers(0, 6), min_size=4, max_size=30), st.integers(0, 1000))
def test_the_correlation_is_scipys(values: list[int], seed: int) -> None:
    left = np.array(values, dtype=np.float64)
    right = np.random.default_rng(seed).integers(5, size=len(values)).astype(np.float64)
    found = spearman(left, right, n_boot=20, seed=seed)
    if len(set(values)) == 1 or len(set(right.tolist())) == 1:
        assert np.isnan(found.mean)
    else:
        assert float(found.mean) == pytest.approx(float(spearmanr(left, right).statistic))


def test_what_goes_together_is_found_and_what_does_not_is_not() -> None:
    rng = np.random.default_rng(0)
    common = rng.normal(size=120)
    assert float(spearman(common, common + rng.normal(size=120)).low) > 0.3
    found = spearman(common, rng.normal(size=120))
    assert float(found.low) < 0 < float(found.high)


def opened(backend: Tokenizer, d_vocab: int) -> Any:
    """What is asked of a model here: its tokenizer and how many tokens it has."""
    return SimpleNamespace(
        tokenizer=PreTrainedTokenizerFast(tokenizer_object=backend), d_vocab=d_vocab
    )


def test_merges_are_in_the_order_in_which_they_were_learnt() -> None:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=60, show_progress=False)
    backend.train_from_iterator(["the the the the the cat cat cat sat on mats"] * 5, trainer)
    ranks = by_tokenizer(opened(backend, backend.get_vocab_size() + 3))
    known = backend.get_vocab()
    assert ranks[known["the"]] > ranks[known["cat"]] > ranks[known["mats"]]
    assert ranks[known["t"]] > ranks[known["the"]]
    assert (ranks[-3:] == ranks.min()).all()


def test_a_unigram_vocabulary_holds_its_own_frequencies() -> None:
    scores = [("<unk>", 0.0), ("the", -1.5), ("cat", -4.0)]
    found = by_tokenizer(opened(Tokenizer(models.Unigram(scores, unk_id=0)), 5))
    assert found.tolist() == [0.0, -1.5, -4.0, -4.0, -4.0]


def test_whole_words_have_no_order(septet: Model) -> None:
    with pytest.raises(BehaviourError, match="WordPiece is not ordered by frequency"):
        by_tokenizer(septet)


def test_the_models_own_is_its_mean_prediction(septet: Model) -> None:
    found = by_model(septet)
    assert np.exp(found).sum() == pytest.approx(1)
    each = [septet.run(sentence).logits[0].double().softmax(-1) for sentence in DISTRACTORS]
    expected = torch.cat(each).mean(dim=0).log().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_words_are_those_under_the_labels(septet: Model, tmp_path: Path) -> None:
    ioi = cutaway.behaviour("ioi", septet, n=40)
    # a behaviour that is stronger for common names, by construction
    planted = by_model(septet)[[ids[0] for ids in ioi.answers]]
    found = frequency(septet, ioi, planted)
    assert found.sources == ["unigram"]
    assert "IO" in found.words
    assert "answer" not in found.words  # it is the same word
    assert float(found.correlation("unigram", "IO").mean) == pytest.approx(1)
    assert "merge rank" in found.left_out
    again = Frequency.load(found.save(tmp_path / "frequency.nc"))
    assert again.frequency.equals(found.frequency)
    assert again.left_out == found.left_out


def test_that_some_word_matters_is_said_of_nothing_but_by_chance(septet: Model) -> None:
    """Twelve words of random frequencies: 5 % of such reports may name one, and not half."""
    ioi = cutaway.behaviour("ioi", septet, n=2)
    words, example = [f"word {n}" for n in range(12)], np.arange(40)
    named = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        coords = {"source": ["unigram"], "word": words, "example": example}
        found = Frequency(
            frequency=xr.DataArray(rng.normal(size=(1, 12, 40)), coords, tuple(coords)),
            logit_diff=xr.DataArray(rng.normal(size=40), {"example": example}, "example"),
            left_out={}, provenance={"configuration": {"seed": 0}},
        )  # fmt: skip
        inputs = Inputs(
            model=septet, behaviour=ioi, settings=Settings(), results={"frequency": found},
            origin={}, tick=lambda _done, _of: None,
        )  # fmt: skip
        named += "goes with the frequency of" in common(inputs).sentences[1]
    assert named <= 6


def test_bad_input_is_refused_in_a_sentence(septet: Model) -> None:
    phone = cutaway.behaviour("phone-number", septet, n=6)
    with pytest.raises(BehaviourError, match=r"one logit difference for each of the 6 examples"):
        frequency(septet, phone, np.ones(5))
    with pytest.raises(BehaviourError, match="there are fewer than 8 different words"):
        frequency(septet, phone, np.ones(6))
    with pytest.raises(BehaviourError, match="opened without a tokenizer"):
        by_model(replace_tokenizer(septet))


def replace_tokenizer(model: Model) -> Any:
    return SimpleNamespace(tokenizer=None, d_vocab=model.d_vocab)
