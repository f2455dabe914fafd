"""What a built-in behaviour is made of, before any tokenizer has seen it.

A generator writes `Example`s: a clean prompt, a corrupt prompt with as many tokens, what should
follow and what should not. A prompt is kept as pieces of text, so that a position label names a
piece ("IO" is the piece " Mary") and follows it into any tokenizer: the labelled position is the
last token of the piece.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cutaway.errors import BehaviourError

Piece = tuple[str, str | None]
"""A piece of text and the position label of its last token, or None."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt as pieces of text in order, some of them labelled."""

    pieces: tuple[Piece, ...]
    """The text pieces in order; a piece may carry a position label ("IO", "S1", "end", …)."""

    def __post_init__(self) -> None:
        if any(not text for text, _ in self.pieces):
            raise BehaviourError(
                f"The prompt {self.text!r} has an empty piece, which no token can stand for; "
                f"give every piece at least one character."
            )
        named = [label for _, label in self.pieces if label is not None]
        if len(set(named)) < len(named):
            twice = next(label for label in named if named.count(label) > 1)
            raise BehaviourError(
                f"The prompt {self.text!r} has the position label {twice!r} twice; "
                f"a label must name one position."
            )

    @property
    def text(self) -> str:
        """The whole prompt."""
        return "".join(text for text, _ in self.pieces)

    @property
    def labels(self) -> tuple[str, ...]:
        """The position labels in the order of the text."""
        return tuple(label for _, label in self.pieces if label is not None)

    def prefix(self, label: str) -> str:
        """The text up to and including the labelled piece."""
        if label not in self.labels:
            raise BehaviourError(
                f"The prompt {self.text!r} has no position label {label!r}; "
                f"it has {', '.join(self.labels) or 'none'}."
            )
        until = next(i for i, (_, name) in enumerate(self.pieces) if name == label)
        return "".join(text for text, _ in self.pieces[: until + 1])


@dataclass(frozen=True, kw_only=True)
class Example:
    """One contrastive pair with its answers."""

    clean: Prompt
    """The prompt that shows the behaviour."""
    corrupt: Prompt
    """The same prompt with what the behaviour needs taken out or swapped; as many tokens."""
    answers: tuple[str, ...]
    """Correct next tokens, each one token, with a leading space where the text needs one."""
    wrong_answers: tuple[str, ...]
    """Next tokens that the clean prompt rules out, each one token."""
    variation: Mapping[str, str]
    """What varies between examples, by name: template, order, corruption, …"""
    held_out: bool
    """True when it is built from names, templates or sequences that training never sees."""
    slots: Mapping[str, str] = field(default_factory=dict[str, str])
    """What its clean prompt was filled with, by slot (`behaviours.recipe`)."""

    def __post_init__(self) -> None:
        if not self.answers or not self.wrong_answers:
            raise BehaviourError(
                f"The example {self.clean.text!r} has {len(self.answers)} answers and "
                f"{len(self.wrong_answers)} wrong answers; give at least one of each."
            )
        both = set(self.answers) & set(self.wrong_answers)
        if both:
            raise BehaviourError(
                f"The example {self.clean.text!r} has {sorted(both)[0]!r} among both its answers "
                f"and its wrong answers; keep it in one of them."
            )
