"""Reading an answer as the one token that continues a prompt.

1. Exactly: the prompt with the answer is tokenised, and is the prompt's own tokens and one more.
2. Where the tokenizer would merge the answer into the prompt's last word ("13" and "52"): the
   answer must be one token by itself.
3. Where neither holds, and the answer with a leading space is one token: that token.

Text written by a person may lack the space it means. A word of two letters or more right after a
letter or a closing punctuation mark ("because" and "she") is therefore refused when the same word
with a space would be another token, and so is a space at the end of the prompt that should stand
before the answer. Text written by a generator means every space, and is taken as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cutaway.model.tokens import encode, token_strings

_CLOSING = ",.;:!?"


class Continuation:
    """Reads the answers of one prompt."""

    def __init__(self, tokenizer: Any, prompt: str, answers: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._prompt = prompt
        special = (tokenizer.bos_token_id, tokenizer.eos_token_id)
        unknown = tokenizer.unk_token_id
        bare = encode(tokenizer, prompt.rstrip(), bos=False)
        self._space_matters = prompt[-1:].isspace() and bare != encode(tokenizer, prompt, bos=False)
        self._unknown: int | None = None if unknown in special else unknown
        texts = ["", *answers]
        encoded = tokenizer([prompt + text for text in texts], add_special_tokens=False)
        # in one call, since sets of a hundred answers are common
        self._joined = dict(zip(texts, encoded["input_ids"], strict=True))

    def read(self, answer: str, *, explicit: bool) -> int | str:
        """The token, or what is wrong. `explicit` takes the answer's spaces as they are."""
        token = self._next(answer)
        if token is None:
            token = self._alone(answer)
        if not explicit and self._space_matters and (token is None or answer[:1].isspace()):
            return (
                f"the prompt ends in a space, which belongs before {answer.lstrip()!r}; take it "
                f"from the end of the prompt and put it before the answer"
            )
        if explicit or answer[:1].isspace():
            return self._refused(answer) if token is None else token
        spaced = self._next(f" {answer}")
        if token is not None and spaced not in (None, token) and self._runs_on(answer):
            return (
                f"{answer!r} would run on from the prompt's {self._prompt[-1]!r}; did you mean "
                f"{' ' + answer!r} (with a space)?"
            )
        if token is None:
            return self._refused(answer) if spaced is None else spaced
        return token

    def _with(self, answer: str) -> list[int]:
        """The tokens of the prompt and the answer together."""
        if answer not in self._joined:
            self._joined[answer] = encode(self._tokenizer, self._prompt + answer, bos=False)
        return list(self._joined[answer])

    def _next(self, answer: str) -> int | None:
        """The one token after the prompt's own, where prompt and answer do not merge."""
        own, joined = self._with(""), self._with(answer)
        fits = len(joined) == len(own) + 1 and joined[:-1] == own
        return joined[-1] if fits and joined[-1] != self._unknown else None

    def _alone(self, answer: str) -> int | None:
        """The answer as one token by itself, where it does not follow a space."""
        if self._prompt[-1:].isspace():
            return None
        ids = encode(self._tokenizer, answer, bos=False)
        return ids[0] if len(ids) == 1 and ids[0] != self._unknown else None

    def _runs_on(self, answer: str) -> bool:
        """Whether a word is glued to a letter or a closing mark."""
        last = self._prompt[-1:]
        return len(answer) > 1 and answer[:2].isalpha() and (last.isalpha() or last in _CLOSING)

    def _refused(self, answer: str) -> str:
        """Why an answer is not one token."""
        own, joined = self._with(""), self._with(answer)
        ids = encode(self._tokenizer, answer, bos=False)
        if self._unknown is not None and self._unknown in ids:
            return f"{answer!r} is not in this tokenizer's vocabulary; choose a word that is"
        if joined[: len(own)] == own:
            ids = joined[len(own) :]
        pieces = ", ".join(repr(piece) for piece in token_strings(self._tokenizer, ids))
        return (
            f"{answer!r} is {len(ids)} tokens ({pieces}) where one is needed; "
            f"choose answers of one token"
        )
