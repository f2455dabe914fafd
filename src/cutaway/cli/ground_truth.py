"""`cutaway ground-truth`: every discovery method on models whose circuit is known.

Finished rows are kept in a journal beside the file that will be written (`cutaway.patch.journal`).
After Ctrl-C or a kill the same command goes on from there; other models and methods may be asked
for, and take what is finished with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from cutaway.cli import options
from cutaway.cli.boundary import kept_beside

if TYPE_CHECKING:
    from pathlib import Path

    from cutaway.cli.bars import Bars
    from cutaway.ground_truth import GroundTruth, Report

T = TypeVar("T")

Methods = Annotated[
    str | None,
    typer.Option(
        "--methods", metavar="NAMES", help="Discovery methods, with commas between. Left out: all."
    ),
]
Models = Annotated[
    str | None,
    typer.Option(
        "--models",
        metavar="NAMES",
        help="Models, with commas between: sort, sort-trained, …; constructed and trained stand "
        "for all of a kind. Left out: all.",
    ),
]
Examples = Annotated[
    int, typer.Option("--examples", min=4, metavar="N", help="Pairs of prompts for each model.")
]
Nulls = Annotated[
    int,
    typer.Option(
        "--nulls",
        min=0,
        metavar="N",
        help="Also report a circuit in each of so many null cases (untrained models, shuffled "
        "answers), and on the models, and count those that pass their evaluation.",
    ),
]
Searched = Annotated[
    int,
    typer.Option(
        "--searched",
        min=0,
        metavar="N",
        help="A null case without a behaviour is refused before any search, which says nothing of "
        "a method; in the first N that have an effect a circuit is looked for all the same.",
    ),
]
Out = Annotated[
    str,
    typer.Option("--out", "-o", metavar="FILE", help="Where every row is written: .csv or .json."),
]
Markdown = Annotated[
    str | None,
    typer.Option(
        "--markdown",
        metavar="PAGE.md",
        help="Put the tables into this page, between its lines <!-- begin ground-truth --> and "
        "<!-- end ground-truth -->.",
    ),
]


def ground_truth(
    methods: Methods = None,
    models: Models = None,
    examples: Examples = 50,
    nulls: Nulls = 0,
    searched: Searched = 12,
    seed: options.Seed = 0,
    out: Out = "cutaway-ground-truth.json",
    markdown: Markdown = None,
) -> None:
    """Run every discovery method on models whose circuit is known, and say how right it is.

    Prints AUROC over edges and over heads and MLPs, precision at the true size, processor time, and
    peak memory above the model.

    What is finished is kept as it goes: after Ctrl-C or a kill the same command goes on from there.
    """
    from pathlib import Path

    from cutaway import ground_truth as work

    names = (_split(models), _split(methods))
    work.choose_models(names[0])
    work.choose_methods(names[1])
    target = work.checked_file(out)
    page = None if markdown is None else Path(markdown)
    if page is not None:
        work.check_page(page, "ground-truth")
    found = _run(names, examples, (nulls, searched), seed, target)
    print(found.text())
    print(f"\nSaved: {target}")
    if page is not None:
        work.into_page(page, "ground-truth", found.markdown())
        print(f"Written into: {page}")


def _split(names: str | None) -> list[str] | None:
    """Names with commas between."""
    if names is None:
        return None
    return [name.strip() for name in names.split(",") if name.strip()]


def _run(
    names: tuple[list[str] | None, list[str] | None], examples: int, nulls: tuple[int, int],
    seed: int, target: Path,
) -> GroundTruth:  # fmt: skip
    """Everything that was asked for, going on where an interrupted run stopped."""
    from transformers.utils import logging

    from cutaway import ground_truth as work
    from cutaway.cli.bars import Bars

    logging.disable_progress_bar()
    settings = work.identity(examples=examples, seed=seed)
    models, methods = work.choose_models(names[0]), work.choose_methods(names[1])
    many = len(models) * len(methods)
    target.parent.mkdir(parents=True, exist_ok=True)
    with kept_beside(target, settings) as journal, Bars() as bars:
        if journal.resumed:
            bars.noted(f"Going on: {journal.resumed:,} rows were finished earlier.")
        scored = work.measure(models, methods, examples=examples, seed=seed, journal=journal)
        rows = _counted(bars, "known circuits", scored, many)
        reports: list[Report] = []
        if nulls[0]:
            cases = work.known(models, methods, examples=examples, seed=seed, journal=journal)
            reports += _counted(bars, "their reports", cases, many)
            cases = work.nulls(
                nulls[0], methods, examples=examples, searched=nulls[1], seed=seed, journal=journal
            )
            reports += _counted(bars, "null cases", cases, nulls[0] * len(methods))
        found = work.GroundTruth(rows=rows, reports=reports, provenance=settings)
        found.save(target)
    return found


def _counted(bars: Bars, title: str, rows: Iterator[T], many: int) -> list[T]:
    """All rows, with a bar."""
    bars.started(title, title)
    found: list[T] = []
    for row in rows:
        found.append(row)
        bars.advanced(len(found), many)
    return found
