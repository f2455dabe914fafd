"""A model that does not fit is refused before its weights are read."""

import json
from pathlib import Path

import pytest
import torch

from cutaway.errors import ModelError
from cutaway.model import open_model, size
from cutaway.model.tiny import tiny


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    tiny("llama").save_pretrained(tmp_path)
    return tmp_path


def test_the_size_is_that_of_the_weights_in_the_type_asked_for(saved: Path) -> None:
    parameters = sum(weight.numel() for weight in tiny("llama").parameters())
    assert size.weights_size(saved, None) == 4 * parameters
    assert size.weights_size(saved, torch.bfloat16) == 2 * parameters


def test_only_what_is_loaded_counts(tmp_path: Path) -> None:
    tiny("llama").save_pretrained(tmp_path, max_shard_size="20KB")
    assert json.loads((tmp_path / "model.safetensors.index.json").read_text())
    whole = size.weights_size(tmp_path, None)
    assert whole == sum(4 * weight.numel() for weight in tiny("llama").parameters())
    tiny("gpt2").save_pretrained(tmp_path / "other")
    (tmp_path / "other" / "model.safetensors").rename(tmp_path / "consolidated.safetensors")
    assert size.weights_size(tmp_path, None) == whole


def test_a_model_too_large_is_refused_in_one_sentence(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(size, "free_memory", lambda device: 1000)
    with pytest.raises(ModelError, match=r"does not fit: its weights take .* GiB and 0.0 GiB are"):
        open_model(saved)
