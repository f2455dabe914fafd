"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class MetricName(StrEnum):
    """The metrics there are (`cutaway.behaviours.METRICS`, which is not imported for `--help`)."""

    logit_diff = "logit_diff"
    prob_diff = "prob_diff"
    accuracy = "accuracy"
    kl = "kl"


ModelName = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME|DIR",
        help="A shipped model, a Hugging Face hub name, or a local directory. "
        "Left out: the model that ships with Cutaway.",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="Where to run: cpu, cuda, cuda:1, … Left out: a GPU when there is one.",
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        metavar="TYPE",
        help="The weights' type: float32, bfloat16, … Left out: the checkpoint's own.",
    ),
]
Revision = Annotated[
    str | None,
    typer.Option("--revision", metavar="REV", help="A branch, tag or commit of a hub model."),
]
RemoteCode = Annotated[
    bool,
    typer.Option("--trust-remote-code", help="Run Python code that comes with the model."),
]
Count = Annotated[
    int | None,
    typer.Option(
        "--n",
        "--examples",
        min=1,
        metavar="N",
        help="How many pairs. Left out: a hundred of a built-in behaviour (32 for a sweep), and "
        "every row of a file.",
    ),
]
Seed = Annotated[
    int, typer.Option("--seed", min=0, metavar="SEED", help="For examples, resamples and draws.")
]
Vary = Annotated[
    list[str] | None,
    typer.Option(
        "--vary",
        metavar="KEY=VALUE",
        help="Fix one of a built-in behaviour's variations, for example order=ABBA; may be given "
        "several times. `cutaway behaviours NAME` lists them.",
    ),
]
Prompts = Annotated[
    str | None,
    typer.Option(
        "--prompts",
        metavar="FILE",
        help="Your own behaviour: a CSV file with the columns clean, corrupt, answer and "
        "wrong_answer, or a JSON file with the same.",
    ),
]
BehaviourName = Annotated[
    str | None,
    typer.Argument(
        metavar="BEHAVIOUR",
        help="A built-in behaviour (`cutaway behaviours` lists them); with --prompts, a name for "
        "your own, which may be left out.",
        show_default=False,
    ),
]
AnyModel = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        help="A shipped model, a hub name or a directory. Left out: the shipped model.",
        show_default=False,
    ),
]
