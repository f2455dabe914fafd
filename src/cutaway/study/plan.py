"""The plan: every stage by name, in the order in which they run.

A stage is added here and nowhere else: give its name, the stages whose results it reads, the
settings it reads, and the function from `Inputs` to its result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cutaway.errors import StudyError
from cutaway.observe import Attribution
from cutaway.study import (
    attention,
    attribution,
    blackbox,
    discovery,
    estimates,
    evaluation,
    lens,
    patching,
    paths,
    redteam,
    roles,
    scrubbing,
)
from cutaway.study.report import assemble
from cutaway.study.saving import load_parts, replace_file, save_parts, sha256
from cutaway.study.settings import Settings
from cutaway.study.stage import Inputs, Stage
from cutaway.study.verdict import RedTeam
from cutaway.views import Report, write

REPORT = "report.html"


def _stage(
    name: str,
    title: str,
    compute: Callable[[Inputs], Any],
    result: type[Any],
    *,
    needs: Sequence[str] = (),
    reads: Sequence[str] = (),
) -> Stage:
    """A stage whose result is a `Result` or a dataclass of several."""
    return Stage(
        name=name,
        title=title,
        needs=tuple(needs),
        reads=tuple(reads),
        compute=compute,
        save=partial(save_parts, name),
        load=partial(load_parts, name, result),
    )


def _save_report(report: Report, directory: Path) -> dict[str, str]:
    path = directory / REPORT
    replace_file(path, lambda part: write(report, part))
    return {REPORT: sha256(path)}


def _load_report(directory: Path) -> Path:
    return directory / REPORT


_MEASURED = (
    _stage("blackbox", "Black box", blackbox.measure, blackbox.BlackBox),
    _stage("lens", "Logit lens", lens.read, lens.Lenses, reads=["lens_examples"]),
    _stage(
        "attribution", "Direct attribution", attribution.split, Attribution,
        reads=["lens_examples"],
    ),
    _stage(
        "patching", "Activation patching", patching.patch, patching.Patching,
        reads=["patch_examples"],
    ),
    _stage(
        "estimates", "Attribution patching", estimates.estimate, estimates.Estimated,
        reads=["patch_examples"],
    ),
    _stage(
        "paths", "Path patching", paths.follow, paths.Paths,
        reads=["path_examples", "heads_followed"],
    ),
    _stage(
        "attention", "Attention", attention.attend, attention.Attention,
        needs=["patching"], reads=["heads_shown", "attention_examples", "lens_examples"],
    ),
    _stage(
        "roles", "Heads’ roles", roles.describe, roles.Roles,
        needs=["estimates"], reads=["patch_examples"],
    ),
    _stage(
        "discovery", "Circuit discovery", discovery.find, discovery.Discovered,
        reads=["discovery_examples", "evaluation_examples", "kept"],
    ),
    _stage(
        "evaluation", "Circuit evaluation", evaluation.judge, evaluation.Evaluated,
        needs=["discovery"], reads=["discovery_examples", "evaluation_examples", "controls"],
    ),
    _stage(
        "scrubbing", "Causal scrubbing", scrubbing.test, scrubbing.Scrubbing,
        reads=["scrub_examples"],
    ),
    _stage(
        "redteam", "Red team", redteam.attack, RedTeam,
        needs=["attribution", "patching", "discovery"],
        reads=[
            "patch_examples", "discovery_examples", "evaluation_examples", "kept",
            "attack_examples",
        ],
    ),
)  # fmt: skip

_STAGES = (
    *_MEASURED,
    Stage(
        name="report",
        title="Report",
        needs=tuple(stage.name for stage in _MEASURED),
        reads=tuple(field.name for field in fields(Settings) if field.name != "seed"),
        alone=True,
        compute=assemble,
        save=_save_report,
        load=_load_report,
    ),
)

PLAN: MappingProxyType[str, Stage] = MappingProxyType({stage.name: stage for stage in _STAGES})
"""Every stage by name, in order."""


def chosen_stages(names: Sequence[str] | None) -> list[Stage]:
    """The named stages and all that they need, in the plan's order; all of it for None."""
    wanted = set(PLAN if names is None else names)
    unknown = sorted(wanted - set(PLAN))
    if unknown or not wanted:
        what = f"There is no stage {unknown[0]!r}" if unknown else "No stage was named"
        raise StudyError(f"{what}; a study has: {', '.join(PLAN)}.")
    for stage in reversed(_STAGES):
        if stage.name in wanted:
            wanted.update(stage.needs)
    return [stage for stage in PLAN.values() if stage.name in wanted]
