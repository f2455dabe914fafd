"""Small tokenizers, built here: nothing is downloaded. And what is tested beside the project."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

SHARED = Path(__file__).parents[2] / "../shared"

SPELLED = """
<unk> <bos> <eos> When Mary and John Tom Sara went to the store , gave a drink she he was happy
because said that
"""
WORDS = SPELLED.split()

SENTENCES = (
    "When Mary and John went to the store, John gave a drink to Mary. Tom said that she was here. "
    "Sara was happy because she won. Tom was sad because he lost. The years 1732 and 1799."
)


@pytest.fixture(scope="session")
def words() -> PreTrainedTokenizerFast:
    """Whole words and marks; unknown ones become <unk>; spaces are dropped; no BOS by default."""
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<bos>", eos_token="<eos>"
    )


@pytest.fixture(scope="session")
def byte_level() -> PreTrainedTokenizerFast:
    """A byte-level BPE like GPT-2's: " she" and "she" are different, nothing is unknown."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    names = " ".join(f"she {name} he" for name in ("Mary", "John", "Tom", "Sara") for _ in "ab")
    backend.train_from_iterator([SENTENCES, names, "she he to drink"] * 3, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<end>", eos_token="<end>", unk_token="<end>"
    )


@pytest.fixture(scope="session")
def with_bos() -> PreTrainedTokenizerFast:
    """Words with a leading space like SentencePiece's, and a BOS token put first by default."""
    vocabulary = ["<unk>", "<s>", "</s>", *(f"▁{word}" for word in WORDS[3:]), "▁"]
    backend = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate(vocabulary)}, unk_token="<unk>")
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("▁[^▁]*"), behavior="isolated")
    backend.decoder = decoders.Metaspace()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.fixture(scope="session")
def with_eos() -> PreTrainedTokenizerFast:
    """Words with an end token after every text."""
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<bos>", eos_token="<eos>"
    )


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real tokenizers and data beside the project."""
    if not SHARED.exists():
        pytest.skip("the folder of real models and data is not beside this checkout")
    return SHARED
