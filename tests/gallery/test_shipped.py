"""The shipped model: a plain Hugging Face directory that does every built-in behaviour."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel

from cutaway import gallery
from cutaway.behaviours.builtin import GENERATORS
from cutaway.errors import ModelError
from cutaway.gallery.evaluate import measure

HERE = gallery.path()


@pytest.fixture(scope="module")
def opened():
    return AutoModelForCausalLM.from_pretrained(HERE).eval(), AutoTokenizer.from_pretrained(HERE)


def test_the_default_ships() -> None:
    assert gallery.DEFAULT in gallery.models()
    with pytest.raises(ModelError, match=r"No model named 'gpt5' ships with Cutaway; there is "):
        gallery.path("gpt5")


def test_it_is_a_small_safe_standard_directory() -> None:
    files = {file.name: file.stat().st_size for file in HERE.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
            "tokenizer_config.json", "README.md"} == set(files)  # fmt: skip
    assert sum(files.values()) <= 10_000_000
    config = json.loads((HERE / "config.json").read_text())
    assert config["model_type"] == "gpt2"
    assert "auto_map" not in config


def test_it_loads_as_float32_gpt2(opened) -> None:
    model, tokenizer = opened
    assert isinstance(model, GPT2LMHeadModel)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert 1_000_000 < model.num_parameters() < 2_500_000
    assert len(tokenizer) == model.config.vocab_size
    assert tokenizer(" Mary")["input_ids"][0] == tokenizer.bos_token_id == model.config.bos_token_id


def test_the_tokenizer_is_the_one_that_the_repository_builds(opened) -> None:
    from cutaway.gallery.tokenizer import build

    model, tokenizer = opened
    assert build(model.config.n_positions).get_vocab() == tokenizer.get_vocab()


@pytest.mark.parametrize("name", list(GENERATORS))
def test_it_does_every_behaviour_on_what_it_has_never_seen(name: str, opened) -> None:
    n = 200 if name == "phone-number" else 400  # one number, four held-out templates: few prompts
    measured = measure(*opened, name, n=n, split="held-out", seed=12345)
    assert measured.accuracy >= 0.95
    assert measured.logit_diff > 2


def test_the_card_has_the_figures_and_the_command() -> None:
    card = (HERE / "README.md").read_text(encoding="utf-8")
    assert "python -m cutaway.gallery.train" in card
    assert all(f"| `{name}` | held-out |" in card for name in GENERATORS)


def test_it_writes_sentences(opened) -> None:
    model, tokenizer = opened
    ids = tokenizer("One day, Mary found a", return_tensors="pt")
    out = model.generate(**ids, max_new_tokens=20, do_sample=False, pad_token_id=0)
    assert "." in tokenizer.decode(out[0][1:])
