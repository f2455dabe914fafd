"""What a head may attend along: relations between the token that looks and the token looked at.

A relation is a (row, query_position, key_position) mask over the real tokens, with no key after its
query. `KINDS` holds them by name, with what chance means for each:

| relation | from each token to | chance |
|---|---|---|
| previous token | the one before it | attention with queries of zero |
| current token | itself | attention with queries of zero |
| first token | the prompt's first | attention with queries of zero |
| duplicate token | earlier occurrences of itself | the same places, tokens shuffled |
| induction | what came after earlier occurrences of itself | the same places, tokens shuffled |
| same letter | other earlier tokens with its first letter | the same places, tokens shuffled |

Where a relation is of places, shuffling tokens would keep it; chance there is what a head does that
asks for nothing: with queries of zero it attends evenly, or as its family's own position biases,
windows and sinks have it. Random weights like some places, too: in untrained models we saw up to
0.32 above that chance. So a head is named after a place only when it gives it half of its attention
more than chance, and after tokens when it is a tenth. Where a relation is of tokens, the head's
attention to the same places in a prompt whose tokens were shuffled is what its liking for places
alone gives (Olsson et al. 2022, "In-context Learning and Induction Heads", use random repeated
tokens for the same reason).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from cutaway.errors import InputError
from cutaway.model.model import Model
from cutaway.model.tokens import Tokens

LEAST = 0.1
"""How far above chance attention must be to count, where nothing asks for more."""
Mask = Bool[Tensor, "row query_position key_position"]


@dataclass(frozen=True, kw_only=True)
class Relation:
    """A kind of place to attend to."""

    name: str
    """Its name."""
    says: str
    """Where a token looks, in words."""
    of: Literal["places", "tokens"]
    """What it depends on, and so which chance it is held against."""
    mask: Callable[[Tokens, list[list[str]]], Mask]
    """The mask, from the tokens and their texts."""
    texts: bool = False
    """Whether it needs the tokens' texts."""

    @property
    def least(self) -> float:
        """How far above chance a head's attention must be to be named after it."""
        return 0.5 if self.of == "places" else LEAST


def allowed(tokens: Tokens) -> Mask:
    """Real keys at or before each real query."""
    real, width = tokens.mask, tokens.mask.shape[1]
    return torch.ones(width, width, dtype=torch.bool).tril() & real[:, None] & real[:, :, None]


def shuffled(tokens: Tokens, generator: torch.Generator) -> Tokens:
    """Each prompt with its tokens in another order, the first left where it is."""
    ids = tokens.ids.clone()
    for row, (first, last) in enumerate(
        zip(tokens.first.tolist(), tokens.last.tolist(), strict=True)
    ):
        order = torch.randperm(last - first, generator=generator) + first + 1
        ids[row, first + 1 : last + 1] = tokens.ids[row, order]
    return Tokens(ids=ids, mask=tokens.mask, labels=tokens.labels)


def texts_of(model: Model, tokens: Tokens) -> list[list[str]]:
    """Each prompt's tokens as text, one for every position (padding as an empty text)."""
    found = [[""] * tokens.ids.shape[1] for _ in range(len(tokens))]
    for row, texts in enumerate(model.token_strings(tokens)):
        first = int(tokens.first[row])
        found[row][first : first + len(texts)] = texts
    return found


def _same(tokens: Tokens) -> Mask:
    return tokens.ids[:, :, None] == tokens.ids[:, None]


def _shifted(tokens: Tokens, by: int) -> Mask:
    width = tokens.ids.shape[1]
    return torch.ones(len(tokens), width, width, dtype=torch.bool).tril(-by).triu(-by)


def _previous(tokens: Tokens, texts: list[list[str]]) -> Mask:
    return _shifted(tokens, 1) & allowed(tokens)


def _current(tokens: Tokens, texts: list[list[str]]) -> Mask:
    return _shifted(tokens, 0) & allowed(tokens)


def _first(tokens: Tokens, texts: list[list[str]]) -> Mask:
    places = torch.arange(tokens.ids.shape[1])
    is_first = places == tokens.first[:, None]
    return is_first[:, None] & ~is_first[:, :, None] & allowed(tokens)


def _duplicate(tokens: Tokens, texts: list[list[str]]) -> Mask:
    return _same(tokens) & ~_shifted(tokens, 0) & allowed(tokens)


def _induction(tokens: Tokens, texts: list[list[str]]) -> Mask:
    after = torch.zeros_like(_same(tokens))
    after[:, :, 1:] = (_same(tokens) & allowed(tokens) & ~_shifted(tokens, 0))[:, :, :-1]
    return after & allowed(tokens) & ~_shifted(tokens, 0)


def _same_letter(tokens: Tokens, texts: list[list[str]]) -> Mask:
    initials = [[text.strip()[:1].casefold() for text in row] for row in texts]
    letters = sorted({each for row in initials for each in row})
    letter = torch.tensor([[letters.index(each) for each in row] for row in initials])
    known = torch.tensor([[each.isalpha() for each in row] for row in initials])
    alike = (letter[:, :, None] == letter[:, None]) & known[:, :, None] & known[:, None]
    return alike & ~_same(tokens) & allowed(tokens)


_LISTED = (
    Relation(name="previous token", says="the token before", of="places", mask=_previous),
    Relation(name="current token", says="itself", of="places", mask=_current),
    Relation(name="first token", says="the first token", of="places", mask=_first),
    Relation(
        name="duplicate token", says="earlier occurrences of itself", of="tokens", mask=_duplicate
    ),
    Relation(
        name="induction", says="what followed its earlier occurrences", of="tokens",
        mask=_induction,
    ),
    Relation(
        name="same letter", says="earlier tokens with its first letter", of="tokens",
        mask=_same_letter, texts=True,
    ),
)  # fmt: skip

KINDS: Mapping[str, Relation] = MappingProxyType({each.name: each for each in _LISTED})
"""Every relation by name."""


def known_relation(name: str, model: Model) -> Relation:
    """A relation by its name. Raises `InputError` for none, or one that the model cannot show."""
    if name not in KINDS:
        raise InputError(f"There is no relation {name!r}; choose one of {', '.join(KINDS)}.")
    if KINDS[name].texts and model.tokenizer is None:
        raise InputError(
            f"{name!r} is a relation of texts, and {model.name} was opened without a tokenizer."
        )
    return KINDS[name]
