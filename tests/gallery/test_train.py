"""Training: what a step reads depends on seed and step alone, and a resumed run is the same run."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from cutaway.errors import CutawayError
from cutaway.gallery.tokenizer import build
from cutaway.gallery.train import Recipe, batch, train

TINY = Recipe(
    steps=5, finish=4, tokens=256, primer=1, layers=1, heads=2, width=8, warmup=1, save_every=100
)
QUIET = Console(quiet=True)


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    tokenizer = build(TINY.context)
    assert torch.equal(batch(TINY, tokenizer, 3), batch(TINY, tokenizer, 3))
    assert not torch.equal(batch(TINY, tokenizer, 3), batch(TINY, tokenizer, 2))
    assert not torch.equal(batch(TINY, tokenizer, 3), batch(replace(TINY, seed=1), tokenizer, 3))
    assert batch(TINY, tokenizer, 0).shape == (8, 32)
    assert batch(TINY, tokenizer, 1).shape == (4, 64)
    assert batch(TINY, tokenizer, 3).shape == (2, 128)


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cutaway.gallery.train.measure_all", lambda *_, **__: [])
    recipe = replace(TINY, save_every=2)
    whole, _, _ = train(recipe, tmp_path / "whole", QUIET)

    def stop(self: Recipe, step: int) -> float:
        if step == 3:
            raise KeyboardInterrupt
        return learning_rate(self, step)

    learning_rate = Recipe.learning_rate
    with monkeypatch.context() as patch:
        patch.setattr(Recipe, "learning_rate", stop)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "parts", QUIET)
    resumed, _, _ = train(recipe, tmp_path / "parts", QUIET)
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_another_recipes_checkpoint_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cutaway.gallery.train.measure_all", lambda *_, **__: [])
    recipe = replace(TINY, steps=1, save_every=1)
    train(recipe, tmp_path, QUIET)
    with pytest.raises(CutawayError, match="made with other settings"):
        train(replace(recipe, rate=1.0), tmp_path, QUIET)
