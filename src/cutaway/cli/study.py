"""`cutaway study`: one behaviour from prompts to a report."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from cutaway.cli import options
from cutaway.cli.boundary import Interrupted
from cutaway.cli.inputs import check_named, chosen_behaviour, opened, study_name, variations

if TYPE_CHECKING:
    from pathlib import Path

    from cutaway.behaviours import Behaviour
    from cutaway.model import Model
    from cutaway.study import Plan, Settings, Study


class Source(NamedTuple):
    """What the user named."""

    opened_as: str
    """The model, as it was given; empty for the shipped one."""
    prompts: str | None
    """The file with the pairs, if there was one."""


class Asked(NamedTuple):
    """What is to be done."""

    plan: Plan
    """The stages there are."""
    without: tuple[str, ...]
    """Those that were left out of it."""
    settings: Settings
    """How much is measured, and what is claimed."""
    stages: list[str] | None
    """The stages wanted; None for all."""
    again: list[str]
    """Those to be made anew."""
    fresh: bool
    """Whether to begin anew."""


Out = Annotated[
    str | None,
    typer.Option(
        "--out",
        "-o",
        metavar="DIR",
        help="The study's directory. Left out: cutaway-studies/BEHAVIOUR-MODEL.",
    ),
]
Fresh = Annotated[
    bool,
    typer.Option("--fresh", help="Begin anew; a study that is there is kept aside (DIR.old)."),
]
Stages = Annotated[
    list[str] | None,
    typer.Option(
        "--stage",
        metavar="STAGE",
        help="Run only this stage and what it needs; may be given several times.",
    ),
]
Again = Annotated[
    list[str] | None,
    typer.Option(
        "--again",
        metavar="STAGE",
        help="Make this stage anew although nothing changed; may be given several times.",
    ),
]
Hypotheses = Annotated[
    str | None,
    typer.Option(
        "--hypotheses",
        metavar="FILE",
        help="Test what this TOML or JSON file claims of heads and MLPs. Left out: the study "
        "states what it observes itself.",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Another setting (cutaway.study.Settings), for example controls=100; may be given "
        "several times.",
    ),
]
Without = Annotated[
    list[str] | None,
    typer.Option(
        "--without",
        metavar="STAGE",
        help="Leave this stage out; the report says so. May be given several times.",
    ),
]
PatchExamples = Annotated[
    int,
    typer.Option("--patch-examples", min=1, metavar="N", help="At most so many pairs are patched."),
]
Heads = Annotated[
    int, typer.Option("--heads", min=1, metavar="N", help="Show the attention of so many heads.")
]


def study(
    behaviour: options.BehaviourName = None,
    model: options.ModelName = None,
    prompts: options.Prompts = None,
    n: options.Count = None,
    seed: options.Seed = 0,
    vary: options.Vary = None,
    out: Out = None,
    fresh: Fresh = False,
    stage: Stages = None,
    without: Without = None,
    again: Again = None,
    hypotheses: Hypotheses = None,
    patch_examples: PatchExamples = 32,
    heads: Heads = 4,
    set_: Set = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    revision: options.Revision = None,
    trust_remote_code: options.RemoteCode = False,
) -> None:
    """Take one behaviour from prompts to a report.

    Measures the behaviour from outside, reads each layer with the logit lens, attributes the answer
    to the model's parts, patches every head, MLP and layer, estimates every head at every place
    from gradients, follows the paths back from the logits, tests who writes the answer and who
    feeds them (or what you claim) on prompts kept aside, finds the smallest circuit that keeps the
    behaviour, evaluates it on held-out prompts, tests the built-in story of it, attacks what was
    found, and writes report.html.

    Every stage is saved as it finishes: after Ctrl-C the same command goes on where it stopped, and
    run again it recomputes nothing.
    """
    from cutaway.study.directory import check_output

    check_named(behaviour, prompts)
    variations(vary)
    given = {"seed": seed, "patch_examples": patch_examples, "heads_shown": heads}
    asked = _asked(stage, without, again, given, set_, hypotheses, fresh=fresh)
    directory = _directory(behaviour, prompts, model, out)
    check_output(directory)
    loaded = opened(model, device, dtype, revision, trust_remote_code)
    examples = chosen_behaviour(behaviour, prompts, loaded, n=n, usual=100, seed=seed, vary=vary)
    source = Source(opened_as=model or "", prompts=prompts)
    _summary(_run(loaded, examples, directory, asked, source))


def _asked(
    stages: list[str] | None, without: list[str] | None, again: list[str] | None,
    given: dict[str, int], changed: list[str] | None, hypotheses: str | None, *, fresh: bool,
) -> Asked:  # fmt: skip
    """What is to be done, checked before a model is opened."""
    from cutaway.errors import StudyError
    from cutaway.study.hypothesis import read_hypotheses
    from cutaway.study.plan import PLAN
    from cutaway.study.settings import Settings

    plan = PLAN.without(*without) if without else PLAN
    for names in (stages, again):
        if names:
            plan.chosen(names)
    values: dict[str, int | float] = {**given}
    for item in changed or []:
        name, equals, value = item.partition("=")
        if not equals:
            raise StudyError(f"--set takes NAME=VALUE, for example controls=100; found {item!r}.")
        values[name] = Settings.read(name, value)
    claimed = () if hypotheses is None else read_hypotheses(hypotheses)
    settings = Settings(**values, hypotheses=claimed)  # pyright: ignore[reportArgumentType]
    return Asked(plan, tuple(without or ()), settings, stages, again or [], fresh)


def _run(
    model: Model, examples: Behaviour, directory: Path, asked: Asked, source: Source
) -> Study:  # fmt: skip
    """Run the study with bars; Ctrl-C says how to go on."""
    import cutaway.study
    from cutaway.cli.bars import Bars
    from cutaway.study.reproduce import script

    python = script(
        model, examples, asked.settings, directory, opened_as=source.opened_as,
        prompts=source.prompts, without=asked.without,
    )  # fmt: skip
    try:
        with Bars() as bars:
            bars.noted(f"{examples.name}: {len(examples)} pairs in {model.name}, to {directory}")
            return cutaway.study.run(
                model, examples, directory, plan=asked.plan, stages=asked.stages,
                again=asked.again, settings=asked.settings, fresh=asked.fresh, progress=bars,
                command=_command(), python=python,
            )  # fmt: skip
    except KeyboardInterrupt:
        raise Interrupted(
            f"Interrupted. Every finished stage is in {directory}; the same command (without "
            "--fresh) goes on from there."
        ) from None


def _directory(name: str | None, prompts: str | None, model: str | None, out: str | None) -> Path:
    """Where the study goes."""
    from pathlib import Path

    return Path("cutaway-studies") / study_name(name, prompts, model) if out is None else Path(out)


def _command() -> str:
    """This command as it was typed, less what only said where and whether to begin anew."""
    given, kept = iter(sys.argv[1:]), ["cutaway"]
    for word in given:
        if word in ("--out", "-o", "--again"):
            next(given, None)
        elif word != "--fresh" and not word.startswith(("--out=", "--again=")):
            kept.append(word)
    return shlex.join(kept)


def _summary(found: Study) -> None:
    """What was found in a few lines, and last the report's path."""
    from cutaway.study.summary import summary

    for sentence in summary(found.results.values()):
        print(sentence)
    if "report" in found.results:
        print(f"Report: {found.report}")
    else:
        print(f"Results: {found.directory}")
