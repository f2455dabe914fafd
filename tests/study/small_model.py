"""A tiny random GPT-2 with a word-level tokenizer that knows every word of the IOI prompts."""

from __future__ import annotations

import random
import re
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from cutaway.behaviours.builtin import GENERATORS
from cutaway.model.tiny import tiny

SHARED = Path(__file__).parents[2] / "../shared"


def vocabulary() -> list[str]:
    """The words and marks of many IOI prompts."""
    examples = GENERATORS["ioi"](random.Random(0), 400, vocabulary=lambda _text: True)
    words = {word for each in examples for word in re.findall(r"\w+|[^\w\s]+", each.clean.text)}
    return ["<unk>", "<bos>", "<eos>", *sorted(words)]


def save_model(directory: Path, *, seed: int = 0) -> Path:
    """A Hugging Face directory with weights and tokenizer."""
    words = vocabulary()
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<bos>", eos_token="<eos>"
    )
    tokenizer.save_pretrained(directory)
    tiny("gpt2", seed=seed, vocab_size=len(words)).save_pretrained(directory)
    return directory
