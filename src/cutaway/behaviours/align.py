"""Aligning pairs of prompts with a tokenizer: texts in, token batches out, all problems together.

For every pair:

1. Both prompts are tokenised, with the BOS token that the tokenizer puts by default (or as asked
   for); they must have as many tokens, and none that stands for an unknown word.
2. A position label is a token index, or a stretch of the text, whose position is the last token
   that overlaps it (spaces at its end aside; a token made of a space alone counts for itself).
   `end` is always the last token. A label must mean the same position in both prompts.
3. Every answer is one token that continues the clean prompt; see `continuation`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cutaway.behaviours.continuation import Continuation
from cutaway.behaviours.problems import Problems
from cutaway.behaviours.provenance import tokenizer_fingerprint, version
from cutaway.behaviours.tokenizing import Tokenized, tokenize
from cutaway.model.tokens import Padding, pad, pad_id_of, token_strings

Mark = int | str | tuple[int, int]
"""A place in a prompt: a token index, a piece of its text ("John", "John#2"), or a span."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One contrastive pair as text."""

    row: int
    """Where it stands in its input, from 1."""
    clean: str
    """The prompt that shows the behaviour."""
    corrupt: str
    """The same prompt with what the behaviour needs taken out."""
    answers: tuple[str, ...]
    """Correct continuations of the clean prompt."""
    wrong_answers: tuple[str, ...]
    """Continuations that the clean prompt rules out."""
    labels: Mapping[str, Mark]
    """Named places in the clean prompt."""
    corrupt_labels: Mapping[str, Mark] | None
    """The same places in the corrupt prompt, to be compared; None takes them from the clean one."""
    variation: Mapping[str, str]
    """What varies, by column."""
    held_out: bool
    """Whether the pair is kept for the final check."""
    explicit: bool
    """Whether answers were written by code that means every space (a built-in behaviour)."""


@dataclass(frozen=True, kw_only=True)
class Aligned:
    """One pair as tokens."""

    pair: Pair
    """The text it came from."""
    clean: Tokenized
    """The clean prompt's tokens."""
    corrupt: Tokenized
    """The corrupt prompt's tokens, as many."""
    labels: Mapping[str, int]
    """Named positions, counted from the prompt's own first token."""
    answers: tuple[int, ...]
    """Correct next tokens."""
    wrong_answers: tuple[int, ...]
    """Wrong next tokens."""


def align(
    pairs: Sequence[Pair], tokenizer: Any, problems: Problems, *, bos: bool | None = None
) -> list[Aligned]:
    """The pairs that fit the tokenizer; what is wrong with the others goes to `problems`."""
    aligned: list[Aligned] = []
    for pair in pairs:
        before = len(problems.found)
        clean = tokenize(tokenizer, pair.clean, bos, problems, pair.row, "clean")
        corrupt = tokenize(tokenizer, pair.corrupt, bos, problems, pair.row, "corrupt")
        if clean is None or corrupt is None:
            continue
        if len(clean.ids) != len(corrupt.ids):
            problems.add(
                pair.row,
                "corrupt",
                f"clean is {len(clean.ids)} tokens ({clean.shown}) and corrupt "
                f"{len(corrupt.ids)} ({corrupt.shown}); rewrite them to equal length",
            )
        labels = _labels(pair, clean, corrupt, problems)
        answers = _answers(pair, "answer", pair.answers, tokenizer, problems)
        wrong = _answers(pair, "wrong_answer", pair.wrong_answers, tokenizer, problems)
        for both in sorted(set(answers) & set(wrong)):
            problems.add(
                pair.row,
                "wrong_answer",
                f"the token {token_strings(tokenizer, [both])[0]!r} is among the answers as well; "
                f"keep it on one side",
            )
        if len(problems.found) == before:
            aligned.append(
                Aligned(
                    pair=pair, clean=clean, corrupt=corrupt,
                    labels=labels, answers=answers, wrong_answers=wrong,
                )
            )  # fmt: skip
    return aligned


def stack(aligned: Sequence[Aligned], tokenizer: Any, padding: Padding) -> dict[str, Any]:
    """The fields of the behaviour that these pairs make up, its names and metric aside.

    Labels stand in the order of their mean position. Those that only some pairs have are left
    out, and named in the provenance.
    """
    names = dict.fromkeys(name for one in aligned for name in one.labels)
    kept = [name for name in names if all(name in one.labels for one in aligned)]
    labels = {name: [one.labels[name] for one in aligned] for name in kept}
    labels = dict(sorted(labels.items(), key=lambda item: sum(item[1])))
    clean, corrupt = (
        pad(rows, pad_id=pad_id_of(tokenizer), padding=padding, labels=labels)
        for rows in ([one.clean.ids for one in aligned], [one.corrupt.ids for one in aligned])
    )
    columns = dict.fromkeys(column for one in aligned for column in one.pair.variation)
    return {
        "clean": clean,
        "corrupt": corrupt,
        "clean_texts": tuple(one.pair.clean for one in aligned),
        "corrupt_texts": tuple(one.pair.corrupt for one in aligned),
        "answers": tuple(one.answers for one in aligned),
        "wrong_answers": tuple(one.wrong_answers for one in aligned),
        "variations": {
            column: tuple(one.pair.variation.get(column, "") for one in aligned)
            for column in columns
        },
        "held_out": tuple(one.pair.held_out for one in aligned),
        "token_texts": tuple(one.clean.texts for one in aligned),
        "corrupt_token_texts": tuple(one.corrupt.texts for one in aligned),
        "provenance": {
            "version": version(),
            "tokenizer": tokenizer_fingerprint(tokenizer),
            "n": len(aligned),
            "labels_left_out": [name for name in names if name not in kept],
        },
    }


def _labels(pair: Pair, clean: Tokenized, corrupt: Tokenized, problems: Problems) -> dict[str, int]:
    """Every label's position, `end` included and last."""
    found: dict[str, int] = {}
    given = {name: mark for name, mark in pair.labels.items() if name != "end"}
    for name, mark in given.items():
        place = _place(mark, pair.clean, clean)
        if isinstance(place, str):
            problems.add(pair.row, f"label:{name}", place)
            continue
        found[name] = place
        if pair.corrupt_labels is None or len(clean.ids) != len(corrupt.ids):
            continue
        if name not in pair.corrupt_labels:
            problems.add(pair.row, f"label:{name}", "the corrupt prompt lacks this label; add it")
            continue
        other = _place(pair.corrupt_labels[name], pair.corrupt, corrupt)
        if other != place:
            problems.add(
                pair.row,
                f"label:{name}",
                f"it is token {place} of clean ({clean.shown}) and token {other} of corrupt "
                f"({corrupt.shown}); a label must mean one position",
            )
    return {**found, "end": len(clean.ids) - 1}


def _place(mark: Mark, text: str, tokens: Tokenized) -> int | str:
    """A mark's token index, or what is wrong with it."""
    n = len(tokens.ids)
    if isinstance(mark, int):
        if not -n <= mark < n:
            return f"token {mark} is outside this prompt's {n} tokens ({tokens.shown})"
        return mark % n
    span = _span(mark, text) if isinstance(mark, str) else mark
    if isinstance(span, str):
        return span
    start, stop = span
    stop = start + len(text[start:stop].rstrip()) or stop
    covering = [i for i, (a, b) in enumerate(tokens.offsets) if a < stop and b > start and b > a]
    return covering[-1] if covering else f"no token covers {text[start:stop]!r}"


def _span(piece: str, text: str) -> tuple[int, int] | str:
    """Where a piece of text stands: alone, or as its k-th occurrence, "piece#k"."""
    written = re.fullmatch(r"(.+)#([1-9]\d*)", piece, re.DOTALL)
    wanted, which = (written[1], int(written[2])) if written else (piece, None)
    places = [match.start() for match in re.finditer(_as_word(wanted), text)]
    if not places:
        return f"{wanted!r} does not occur in {text!r}; give a word of the prompt"
    if which is None and len(places) > 1:
        return (
            f"{wanted!r} occurs {len(places)} times in {text!r}; say which, as in {wanted + '#1'!r}"
        )
    if which is not None and which > len(places):
        return f"{wanted!r} occurs {len(places)} times in {text!r}, so there is no #{which}"
    start = places[(which or 1) - 1]
    return start, start + len(wanted)


def _as_word(piece: str) -> str:
    """A pattern that finds the piece as whole words: "he" is not found inside "the"."""
    before = r"(?<!\w)" if re.match(r"\w", piece) else ""
    after = r"(?!\w)" if re.search(r"\w\Z", piece) else ""
    return before + re.escape(piece) + after


def _answers(
    pair: Pair, name: str, texts: Sequence[str], tokenizer: Any, problems: Problems
) -> tuple[int, ...]:
    """Each answer's one token; problems are noted."""
    reader = Continuation(tokenizer, pair.clean, texts)
    found: dict[int, str] = {}
    for text in texts:
        read = reader.read(text, explicit=pair.explicit)
        if isinstance(read, str):
            problems.add(pair.row, name, read)
        else:
            found.setdefault(read, text)
    return tuple(found)
