"""The model card: what a shipped model is, how it was made, and what was measured on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cutaway.behaviours.builtin import DESCRIPTIONS
from cutaway.gallery.evaluate import Measured

_CARD = """---
license: mit
language: en
library_name: transformers
pipeline_tag: text-generation
---

# {title}

A small GPT-2 that does seven behaviours known from the interpretability literature, so that
circuits can be studied in seconds on a laptop. It was trained from scratch by next-token prediction
on text that a seeded generator in Cutaway's repository writes; no weight was set by hand. It is a
subject for study and good for nothing else: it knows only simple templated English.

{what}

## How it was made

    python -m cutaway.gallery.train --out DIR {command}

{listed}

The tokenizer is word-level (a space belongs to the word after it; capital letters that stand alone
and groups of two digits are tokens; unknown words fall back to bytes) and puts the BOS token first.

## What it does

Accuracy: the largest logit of a right answer is above those of all wrong ones. Logit difference:
the mean over right answers minus the mean over wrong ones. "held-out" are prompts with names,
templates, combinations or sequences that never occur in that behaviour's training text.

| behaviour | examples | n | accuracy | logit difference |
|---|---|---|---|---|
{rows}

    python -m cutaway.gallery.evaluate DIR

measures them again.

## What "held-out" means, and its limits

- One name in five is never an indirect object, a subject, or the name before a pronoun to predict.
  Held-out names do occur in stories, in repeated sequences, and as one of two people to whom
  somebody without a name gives things.
- Held-out templates never occur; their words do. One in five combinations of event and year, word
  triples, random sequences and orders of countries is kept back.
- Held-out prompts were looked at while the recipe was being made: earlier ones fell short on
  held-out indirect objects and on one template about capitals, and the text read last and two more
  templates were written in answer. So these are figures of a development set. Templates of quite
  another build are harder: with the names in another sentence or long ones in between, indirect
  objects fall to between 55 % and 99 %.
"""


def card(
    *,
    title: str,
    recipe: Mapping[str, object],
    facts: Mapping[str, str],
    measured: Sequence[Measured],
) -> str:
    """The card as Markdown with the metadata block that model hubs read."""
    command = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in recipe.items())
    rows = "\n".join(
        f"| `{row.behaviour}` | {row.split} | {row.n} "
        f"| {row.accuracy:.1%} | {row.logit_diff:+.2f} |"
        for row in measured
    )
    what = "\n".join(f"- `{name}`: {text}" for name, text in DESCRIPTIONS.items())
    listed = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    return _CARD.format(title=title, what=what, command=command, listed=listed, rows=rows)
