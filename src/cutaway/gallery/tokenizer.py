"""The shipped model's tokenizer: whole words, and bytes for what is not in its vocabulary.

1. Text is split into words with the space before them, capital letters that stand alone (so that
   acronyms are spelled), numbers in groups of two digits, and single other characters.
2. Each piece is one token if the vocabulary has it. Otherwise it is cut greedily into the longest
   known parts, at worst single bytes, so that decoding gives back every text exactly.
3. The vocabulary is the 256 bytes, the numbers, the letters, every word of the built-in behaviours
   and every piece that is common in a sample of the training text.

A text begins with the BOS token, as every document does in training.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from string import ascii_uppercase

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from cutaway.behaviours.builtin import words
from cutaway.gallery.text import PATTERN, documents

BOS = "<|endoftext|>"
UNKNOWN = "<unk>"
COMMON = 5
"""How often the sample must have a piece; what is spelled out at random is rarer."""
LONGEST = 1000
"""Only a piece of more bytes than this, such as a thousand letters in a row, is unknown."""


def vocabulary(sample: int = 20_000) -> list[str]:
    """Every piece of text that is one token, sorted; the same on every call."""
    names = (*words.FEMALE_NAMES, *words.MALE_NAMES)
    pieces = {f" {word}" for word in (*names, *words.COMMON_WORDS, *words.TITLES, *words.OWNERS)}
    pieces |= {*names, *(f" {word}" for pair in words.CAPITALS.items() for word in pair)}
    pieces |= {space + f"{number:02d}" for number in range(100) for space in ("", " ")}
    pieces |= {space + str(digit) for digit in range(10) for space in ("", " ")}
    pieces |= {space + letter for letter in ascii_uppercase for space in ("", " ")}
    counts = Counter(
        piece
        for document in documents(random.Random(0), sample)
        for piece in re.findall(PATTERN, document)
    )
    return sorted(pieces | {piece for piece, count in counts.items() if count >= COMMON})


def build(context: int) -> PreTrainedTokenizerFast:
    """The tokenizer, for a model that reads up to `context` tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    known = [to_bytes.pre_tokenize_str(piece)[0][0] for piece in vocabulary()]
    tokens = dict.fromkeys([BOS, UNKNOWN, *alphabet, *known])
    tokenizer = Tokenizer(
        models.WordPiece(
            vocab={token: index for index, token in enumerate(tokens)},
            unk_token=UNKNOWN,
            continuing_subword_prefix="",
            max_input_chars_per_word=LONGEST,
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(PATTERN), "isolated"), to_bytes]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=BOS,
        pad_token=BOS,
        unk_token=UNKNOWN,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )
