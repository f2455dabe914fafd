"""`cutaway study compare`: two studies held together."""

from __future__ import annotations

from typing import Annotated

import typer

First = Annotated[str, typer.Argument(metavar="A", help="The directory of a study.")]
Second = Annotated[str, typer.Argument(metavar="B", help="The directory of another one.")]
Page = Annotated[
    str | None,
    typer.Option(
        "--out", "-o", metavar="FILE",
        help="The page to write. Left out: compare-A-B.html, in this directory.",
    ),
]  # fmt: skip


def compare(first: First, second: Second, out: Page = None) -> None:
    """Hold two studies together: two models, two checkpoints, two behaviours.

    Says what is the same and what is not, with intervals: accuracy and logit difference, what every
    head does (where the models have as many), the circuits' overlap beside chance, roles, and the
    outcomes of the red team. Prints a table and writes a page. No model is opened.
    """
    from pathlib import Path

    import cutaway.study
    from cutaway.study.comparison_page import save_comparison

    found = cutaway.study.compare(first, second)
    print(found)
    names = [Path(each).resolve().name for each in (first, second)]
    page = save_comparison(found, out or f"compare-{names[0]}-{names[1]}.html")
    print(f"Page: {page}")
