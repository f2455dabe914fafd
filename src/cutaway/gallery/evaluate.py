"""How well a model does the built-in behaviours: `python -m cutaway.gallery.evaluate [DIR]`.

For each behaviour and split, n examples from a seed that training never used; at each prompt's last
token, whether the largest logit of a right answer beats that of every wrong one (accuracy), and the
mean logit over right answers minus the mean over wrong ones (logit difference).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer

from cutaway.behaviours import METRICS, build
from cutaway.behaviours.builtin import GENERATORS, Split
from cutaway.gallery import DEFAULT, path

SEED = 1_000_003


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One behaviour on one split."""

    behaviour: str
    """The behaviour's name."""
    split: Split
    """Which examples: all, or only held-out ones."""
    n: int
    """How many examples."""
    accuracy: float
    """The fraction where a right answer's logit is above all wrong ones'."""
    logit_diff: float
    """The mean logit difference."""


@torch.no_grad()
def measure(
    model: Any, tokenizer: Any, behaviour: str, *, n: int, split: Split = "all", seed: int = SEED
) -> Measured:
    """One behaviour's accuracy and logit difference on `n` examples."""
    examples = build(behaviour, tokenizer, n=n, split=split, seed=seed)
    # A causal model never sees the padding on the right of the last token.
    logits = model(input_ids=examples.clean.ids).logits[
        torch.arange(n), examples.clean.labels["end"]
    ]
    return Measured(
        behaviour=behaviour,
        split=split,
        n=n,
        accuracy=float(METRICS["accuracy"](logits, examples).mean()),
        logit_diff=float(METRICS["logit_diff"](logits, examples).mean()),
    )


def measure_all(
    model: Any, tokenizer: Any, *, n: int = 200, splits: Sequence[Split] = ("all", "held-out")
) -> list[Measured]:
    """Every behaviour, on all examples and on held-out ones."""
    return [
        measure(model, tokenizer, behaviour, n=n, split=split)
        for behaviour in GENERATORS
        for split in splits
    ]


def table(rows: list[Measured]) -> Table:
    """The figures as a table for the terminal."""
    drawn = Table("behaviour", "split", "n", "accuracy", "logit difference")
    for row in rows:
        drawn.add_row(
            row.behaviour, row.split, str(row.n), f"{row.accuracy:.1%}", f"{row.logit_diff:+.2f}"
        )
    return drawn


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m cutaway.gallery.evaluate", description=__doc__)
    parser.add_argument("directory", nargs="?", type=Path, default=None)
    parser.add_argument("--n", type=int, default=250, help="examples per behaviour and split")
    given = parser.parse_args()
    directory = given.directory or path(DEFAULT)
    model = AutoModelForCausalLM.from_pretrained(directory).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    Console().print(table(measure_all(model, tokenizer, n=given.n)))


if __name__ == "__main__":
    main()
