"""How to make a study again: the Python script that does what the command did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from cutaway.behaviours import Behaviour
from cutaway.model import Model
from cutaway.study.settings import Settings


def script(
    model: Model,
    behaviour: Behaviour,
    settings: Settings,
    directory: Path,
    *,
    opened_as: str | None = None,
    prompts: str | None = None,
    without: Sequence[str] = (),
) -> str:
    """Python that runs this study.

    `opened_as` is what the model was opened by (None: its own name), `prompts` the file that the
    behaviour was read from, `without` the stages that were left out of the plan.
    """
    name = model.name if opened_as is None else opened_as
    opening = f"cutaway.open({name!r})" if name else "cutaway.open()"
    each = {field.name: getattr(settings, field.name) for field in fields(settings)}
    options = ", ".join(f"{key}={value!r}" for key, value in each.items())
    named = "PLAN, " if without else ""
    named += "RoleHypothesis, " if settings.hypotheses else ""
    plan = f", plan=PLAN.without({', '.join(map(repr, without))})" if without else ""
    return "\n".join(
        [
            "import cutaway",
            "from cutaway.behaviours import Behaviour",
            f"from cutaway.study import {named}Settings, run",
            "",
            f"model = {opening}",
            f"behaviour = {_making(behaviour, prompts)}",
            f"settings = Settings({options})",
            f"study = run(model, behaviour, {str(directory)!r}, settings=settings{plan})",
            "print(study.report)",
        ]
    )


def _making(behaviour: Behaviour, prompts: str | None) -> str:
    """The expression that makes the behaviour; its saved copy where it was made by other code."""
    origin = behaviour.provenance
    if origin.get("source") == "built-in":
        varied = origin.get("variation")
        more = "".join(f", {key}={value!r}" for key, value in dict(varied or {}).items())  # pyright: ignore[reportArgumentType, reportCallIssue]
        split = f", split={origin['split']!r}" if origin.get("split") not in (None, "all") else ""
        return (
            f"cutaway.behaviour({origin['generator']!r}, model, n={len(behaviour)}, "
            f"seed={origin['seed']!r}{split}{more})"
        )
    if prompts is not None:
        reader = "from_json" if Path(prompts).suffix.lower() == ".json" else "from_csv"
        return f"Behaviour.{reader}({prompts!r}, model.tokenizer, name={behaviour.name!r})"
    return "Behaviour.load('behaviour')  # the copy in the study's directory"
