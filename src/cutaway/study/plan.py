"""The plan: every stage by name, in the order in which they run.

A stage is added here and nowhere else: give its name, the stages whose results it reads, the
settings it reads, and the function from `Inputs` to its result.

A plan is a value. `PLAN` is the whole method; `without`, `only` and `with_stage` make others of it,
and `cutaway.study.run(…, plan=…)` carries them out. The report is made of whatever a plan has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

from cutaway.errors import StudyError
from cutaway.observe import Attribution
from cutaway.study import (
    attention,
    attribution,
    blackbox,
    blackbox_stages,
    discovery,
    estimates,
    evaluation,
    hypotheses,
    lens,
    patching,
    paths,
    redteam,
    roles,
    scrubbing,
)
from cutaway.study.blackbox_flipped import Flips
from cutaway.study.blackbox_frequency import Frequency
from cutaway.study.blackbox_insertions import Insertions
from cutaway.study.report import assemble
from cutaway.study.saving import replace_file, sha256
from cutaway.study.settings import Settings
from cutaway.study.stage import Stage
from cutaway.study.tested import Hypotheses
from cutaway.study.verdict import RedTeam
from cutaway.views import Report, write

REPORT = "report.html"
_STAGE = "report"


class Plan(Mapping[str, Stage]):
    """Stages in the order in which they run, by name.

    Raises `StudyError` for two stages of one name, a setting that there is not, and a stage whose
    needs do not stand before it.
    """

    def __init__(self, stages: Iterable[Stage]) -> None:
        listed = list(stages)
        self._stages = {stage.name: stage for stage in listed}
        if len(self._stages) < len(listed):
            names = [stage.name for stage in listed]
            twice = next(name for name in names if names.count(name) > 1)
            raise StudyError(f"A plan has each stage once, and {twice!r} is in this one twice.")
        known = {field.name for field in fields(Settings)}
        for number, stage in enumerate(listed):
            if unknown := sorted(set(stage.reads) - known):
                raise StudyError(
                    f"The stage {stage.name!r} reads the setting {unknown[0]!r}, which there is "
                    f"not; there are {', '.join(sorted(known))}."
                )
            before = {each.name for each in listed[:number]}
            if lacking := [name for name in stage.needs if name not in before and not stage.alone]:
                raise StudyError(
                    f"The stage {stage.name!r} needs {lacking[0]!r}, which does not stand before "
                    "it in the plan; put it there, or leave both out."
                )

    def __getitem__(self, name: str) -> Stage:
        return self._stages[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._stages)

    def __len__(self) -> int:
        return len(self._stages)

    def __repr__(self) -> str:
        return f"Plan({', '.join(self)})"

    def without(self, *names: str) -> Plan:
        """The plan without some stages; the report says that they were left out."""
        self._check(names)
        return Plan(stage for name, stage in self.items() if name not in names)

    def only(self, *names: str) -> Plan:
        """The named stages and all that they need; with "report", a report of just these."""
        named = [self[name] for name in self._check(names)]
        plain = [stage.name for stage in named if not stage.alone]
        kept = {stage.name for stage in self.chosen(plain)} if plain else set[str]()
        return Plan(stage for name, stage in self.items() if name in kept or name in names)

    def with_stage(self, stage: Stage, *, after: str | None = None) -> Plan:
        """The plan with one more stage, after another one, or before the report.

        A stage of the same name is replaced where it stands.
        """
        listed = list(self.values())
        if stage.name in self:
            listed[list(self).index(stage.name)] = stage
        else:
            before_report = next((n for n, each in enumerate(listed) if each.alone), len(listed))
            at = before_report if after is None else list(self).index(self._check([after])[0]) + 1
            listed.insert(at, stage)
        return Plan(_reporting(each, stage.name, listed) if each.alone else each for each in listed)

    def chosen(self, names: Sequence[str] | None) -> list[Stage]:
        """The named stages and all that they need, in the plan's order; all of it for None."""
        wanted = set(self) if names is None else set(self._check(names))
        for stage in reversed(list(self.values())):
            if stage.name in wanted:
                wanted.update(set(stage.needs) & set(self))
        return [stage for stage in self.values() if stage.name in wanted]

    def _check(self, names: Sequence[str]) -> Sequence[str]:
        unknown = sorted(set(names) - set(self))
        if unknown or not names:
            what = f"There is no stage {unknown[0]!r}" if unknown else "No stage was named"
            raise StudyError(f"{what}; a study has: {', '.join(self)}.")
        return names


def _reporting(report: Stage, name: str, stages: Iterable[Stage]) -> Stage:
    """The report with one more stage among those that it tells of."""
    own = tuple(stage for stage in stages if stage.section is not None)
    needs = (*report.needs, *([] if name in report.needs else [name]))
    return replace(report, needs=needs, compute=partial(assemble, more=own))


def _save_report(report: Report, directory: Path) -> dict[str, str]:
    path = directory / REPORT
    replace_file(path, lambda part: write(report, part))
    return {REPORT: sha256(path)}


def _load_report(directory: Path) -> Path:
    return directory / REPORT


_MEASURED = (
    Stage.of("blackbox", "Black box", blackbox.measure, blackbox.BlackBox),
    Stage.of(
        "distractors", "Distractors", blackbox_stages.distract, Insertions,
        reads=["distractor_examples"],
    ),
    Stage.of(
        "flips", "Smallest flips", blackbox_stages.flip, Flips,
        reads=["flip_examples", "flip_passes"],
    ),
    Stage.of(
        "frequency", "Word frequency", blackbox_stages.common, Frequency, needs=["blackbox"],
    ),
    Stage.of("lens", "Logit lens", lens.read, lens.Lenses, reads=["lens_examples"]),
    Stage.of(
        "attribution", "Direct attribution", attribution.split, Attribution,
        reads=["lens_examples"],
    ),
    Stage.of(
        "patching", "Activation patching", patching.patch, patching.Patching,
        reads=["patch_examples"],
    ),
    Stage.of(
        "estimates", "Attribution patching", estimates.estimate, estimates.Estimated,
        reads=["patch_examples"],
    ),
    Stage.of(
        "paths", "Path patching", paths.follow, paths.Paths,
        reads=["path_examples", "heads_followed"],
    ),
    Stage.of(
        "attention", "Attention", attention.attend, attention.Attention,
        needs=["patching"], reads=["heads_shown", "attention_examples", "lens_examples"],
    ),
    Stage.of(
        "roles", "Heads’ roles", roles.describe, roles.Roles,
        needs=["estimates"], reads=["patch_examples"],
    ),
    Stage.of(
        "hypotheses", "Hypotheses", hypotheses.test, Hypotheses,
        reads=["hypotheses", "heads_followed", "discovery_examples", "evaluation_examples"],
    ),
    Stage.of(
        "discovery", "Circuit discovery", discovery.find, discovery.Discovered,
        reads=["discovery_examples", "evaluation_examples", "kept"],
    ),
    Stage.of(
        "evaluation", "Circuit evaluation", evaluation.judge, evaluation.Evaluated,
        needs=["discovery"], reads=["discovery_examples", "evaluation_examples", "controls"],
    ),
    Stage.of(
        "scrubbing", "Causal scrubbing", scrubbing.test, scrubbing.Scrubbing,
        reads=["scrub_examples"],
    ),
    Stage.of(
        "redteam", "Red team", redteam.attack, RedTeam,
        needs=["attribution", "patching", "discovery"],
        reads=[
            "patch_examples", "discovery_examples", "evaluation_examples", "kept",
            "attack_examples",
        ],
    ),
)  # fmt: skip

PLAN = Plan(
    (
        *_MEASURED,
        Stage(
            name=_STAGE,
            title="Report",
            needs=tuple(stage.name for stage in _MEASURED),
            reads=tuple(field.name for field in fields(Settings) if field.name != "seed"),
            alone=True,
            compute=assemble,
            save=_save_report,
            load=_load_report,
        ),
    )
)
"""Every stage by name, in order: the whole method."""
