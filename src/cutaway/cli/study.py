"""`cutaway study`: one behaviour from prompts to a report."""

from __future__ import annotations

import re
import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cutaway.cli.boundary import Interrupted
from cutaway.cli.options import (
    Count,
    Device,
    Dtype,
    ModelName,
    Prompts,
    RemoteCode,
    Revision,
    Seed,
    Vary,
    check_named,
    chosen_behaviour,
    opened,
    variations,
)

if TYPE_CHECKING:
    from pathlib import Path

    from cutaway.study import Study


def study(
    behaviour: Annotated[
        str | None,
        typer.Argument(
            metavar="BEHAVIOUR",
            help="A built-in behaviour (`cutaway behaviours` lists them); with --prompts, a name "
            "for your own, which may be left out.",
            show_default=False,
        ),
    ] = None,
    model: ModelName = None,
    prompts: Prompts = None,
    n: Count = 100,
    seed: Seed = 0,
    vary: Vary = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="The study's directory. Left out: cutaway-studies/BEHAVIOUR-MODEL.",
        ),
    ] = None,
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Begin anew; a study that is there is kept aside (DIR.old)."),
    ] = False,
    stage: Annotated[
        list[str] | None,
        typer.Option(
            "--stage",
            metavar="STAGE",
            help="Run only this stage and what it needs; may be given several times.",
        ),
    ] = None,
    patch_examples: Annotated[
        int,
        typer.Option(
            "--patch-examples", min=1, metavar="N", help="At most so many pairs are patched."
        ),
    ] = 32,
    heads: Annotated[
        int,
        typer.Option("--heads", min=1, metavar="N", help="Show the attention of so many heads."),
    ] = 4,
    device: Device = None,
    dtype: Dtype = None,
    revision: Revision = None,
    trust_remote_code: RemoteCode = False,
) -> None:
    """Take one behaviour from prompts to a report.

    Measures the behaviour from outside, reads each layer with the logit lens, attributes the answer
    to the model's parts, patches every head and every layer and position, and writes report.html.
    Every stage is saved as it finishes: after Ctrl-C the same command goes on where it stopped, and
    run again it recomputes nothing.
    """
    from cutaway.study.directory import check_output
    from cutaway.study.plan import chosen_stages

    check_named(behaviour, prompts)
    chosen_stages(stage)
    variations(vary)
    directory = _directory(behaviour, prompts, model, out)
    check_output(directory)
    loaded = opened(model, device, dtype, revision, trust_remote_code)
    examples = chosen_behaviour(behaviour, prompts, loaded, n=n, seed=seed, vary=vary)

    import cutaway.study
    from cutaway.cli.bars import Bars
    from cutaway.study.reproduce import script

    settings = cutaway.study.Settings(seed=seed, patch_examples=patch_examples, heads_shown=heads)
    python = script(loaded, examples, settings, directory, opened_as=model or "", prompts=prompts)
    try:
        with Bars() as bars:
            bars.noted(f"{examples.name}: {len(examples)} pairs in {loaded.name}, to {directory}")
            found = cutaway.study.run(
                loaded, examples, directory, stages=stage, seed=seed, settings=settings,
                fresh=fresh, progress=bars, command=_command(), python=python,
            )  # fmt: skip
    except KeyboardInterrupt:
        raise Interrupted(
            f"Interrupted. Every finished stage is in {directory}; the same command (without "
            "--fresh) goes on from there."
        ) from None
    _summary(found)


def _directory(name: str | None, prompts: str | None, model: str | None, out: str | None) -> Path:
    """Where the study goes."""
    from pathlib import Path

    from cutaway import gallery

    if out is not None:
        return Path(out)
    source = model or gallery.DEFAULT
    short = Path(source).resolve().name if Path(source).is_dir() else source
    named = name or Path(prompts or "").stem
    return Path("cutaway-studies") / _safe(f"{named}-{short}")


def _safe(name: str) -> str:
    """A name that can be one directory."""
    return re.sub(r"[^\w.-]+", "-", name).strip(".-") or "study"


def _command() -> str:
    """This command as it was typed, less what only said where and whether to begin anew."""
    given, kept = iter(sys.argv[1:]), ["cutaway"]
    for word in given:
        if word in ("--out", "-o"):
            next(given, None)
        elif word != "--fresh" and not word.startswith("--out="):
            kept.append(word)
    return shlex.join(kept)


def _summary(found: Study) -> None:
    """What was found in a few lines, and last the report's path."""
    from cutaway.study.sentences import summary

    for sentence in summary(found.results):
        print(sentence)
    if "report" in found.results:
        print(f"Report: {found.report}")
    else:
        print(f"Results: {found.directory}")
