"""One prompt as tokens, each with the stretch of text that it covers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cutaway.behaviours.problems import Problems
from cutaway.errors import BehaviourError
from cutaway.model.tokens import encode, token_strings


@dataclass(frozen=True, kw_only=True)
class Tokenized:
    """A prompt's tokens, special ones in front included."""

    ids: tuple[int, ...]
    """Token ids as the model reads them."""
    texts: tuple[str, ...]
    """Each token as a person reads it."""
    offsets: tuple[tuple[int, int], ...]
    """The characters that each token covers, [start, stop); (0, 0) for special tokens."""

    @property
    def shown(self) -> str:
        """The tokens for a message, shortened in the middle when they are many."""
        quoted = [repr(text) for text in self.texts]
        return ", ".join(quoted if len(quoted) <= 16 else [*quoted[:8], "…", *quoted[-7:]])


def tokenize(
    tokenizer: Any, text: str, bos: bool | None, problems: Problems, row: int, field: str
) -> Tokenized | None:
    """The text's tokens, or None after noting what is wrong with it."""
    if not text.strip():
        problems.add(row, field, "the prompt is empty; give at least one word")
        return None
    ids = encode(tokenizer, text, bos=bos)
    offsets = text_offsets(tokenizer, text)
    before = len(ids) - len(offsets)
    plain = encode(tokenizer, text, bos=False)
    texts = token_strings(tokenizer, ids)
    if before < 0 or ids[before:] != plain:
        problems.add(
            row,
            field,
            f"this tokenizer puts {texts[-1]!r} after the text by default, and nothing follows "
            f"that; pass bos=True or bos=False",
        )
        return None
    unknown = tokenizer.unk_token_id
    if unknown is not None and unknown not in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        missing = [
            text[start:stop].strip()
            for token, (start, stop) in zip(plain, offsets, strict=True)
            if token == unknown
        ]
        if missing:
            words = ", ".join(repr(word) for word in dict.fromkeys(missing))
            problems.add(
                row, field, f"not in this tokenizer's vocabulary: {words}; use other words"
            )
            return None
    return Tokenized(
        ids=tuple(ids), texts=tuple(texts), offsets=((0, 0),) * before + tuple(offsets)
    )


def text_offsets(tokenizer: Any, text: str) -> list[tuple[int, int]]:
    """The characters that each token of the text covers, without special tokens.

    Raises `BehaviourError` for a tokenizer that is not a fast one and does not know.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise BehaviourError(
            f"Text can only be aligned with a fast tokenizer, and {type(tokenizer).__name__} is "
            f"not one; load it with use_fast=True, or give token ids with Behaviour.from_tokens."
        )
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return [(int(start), int(stop)) for start, stop in encoded["offset_mapping"]]


def is_one_token(tokenizer: Any, text: str) -> bool:
    """Whether a text is exactly one known token where it stands after other text.

    It is tokenised after a line break, since some tokenizers put a space of their own before the
    first word; where the line break merges with it, alone.
    """
    anchor = encode(tokenizer, "\n", bos=False)
    joined = encode(tokenizer, "\n" + text, bos=False)
    after = joined[len(anchor) :]
    ids = after if joined[: len(anchor)] == anchor else encode(tokenizer, text, bos=False)
    return len(ids) == 1 and ids[0] != tokenizer.unk_token_id
