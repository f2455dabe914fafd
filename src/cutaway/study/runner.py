"""Running a study: the plan, one stage after the other, each saved as it finishes.

1. The directory is claimed before any work; one that belongs to another study, or that another
   process is at work in, is refused.
2. Each stage's inputs get a fingerprint. A stage that is recorded as done with the same one, and
   whose files still have the recorded hashes, is kept and its files are read.
3. Otherwise it is computed, written whole (temporary file, then rename) and recorded. A file that
   no longer is what was recorded is first put aside. A stage that the inputs do not allow is
   recorded as skipped with its sentence, and so is what cannot do without it.
4. Other settings than before make those stages again that read them, and what depends on these.
5. Ctrl-C, a kill or an error in the middle of a stage loses that stage and nothing before it.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Generator, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from cutaway.behaviours import Behaviour
from cutaway.errors import StudyError
from cutaway.model import Model
from cutaway.study.directory import (
    alone,
    check_output,
    claim,
    clear_parts,
    free_beside,
    put_aside,
)
from cutaway.study.hypotheses import check
from cutaway.study.manifest import Manifest, StageRecord, describe, now
from cutaway.study.plan import PLAN, Plan
from cutaway.study.reproduce import script
from cutaway.study.saving import DamagedFileError, check_files
from cutaway.study.settings import Settings
from cutaway.study.stage import Inputs, Progress, Silent, Skipped, SkippedError, Stage
from cutaway.study.study import Study

_LEFT_OUT = "it is left out of this study’s plan."


def run(
    model: Model,
    behaviour: Behaviour,
    out: str | Path,
    *,
    plan: Plan = PLAN,
    stages: Sequence[str] | None = None,
    again: Sequence[str] = (),
    seed: int | None = None,
    settings: Settings | None = None,
    fresh: bool = False,
    progress: Progress | None = None,
    command: str = "",
    python: str = "",
) -> Study:
    """Study a behaviour in a model, and leave results and report in the directory `out`.

    Args:
        model: the opened model.
        behaviour: its examples.
        out: the study's directory; it goes on where an earlier run of the same study stopped.
        plan: the stages there are, in order: `PLAN`, or what was made of it.
        stages: the stages wanted (those they need are run too); None means all of the plan.
        again: stages to compute anew although nothing changed; "report" makes the report again.
        seed: for bootstrap resamples and the choice of examples; wins over that of `settings`.
        settings: how much to measure.
        fresh: put a study that is there aside (`NAME.old`) and begin anew.
        progress: is told how the work advances.
        command: the command line that reproduces the study, for the report.
        python: the same in Python; when not given, one is written from the model and the behaviour.

    Raises:
        StudyError: the directory cannot be written or belongs to another study or process, there
            is no such stage, or a hypothesis names what the model or the prompts do not have.
    """
    wanted = plan.chosen(stages)
    anew = {stage.name for stage in plan.chosen(again)} & set(again) if again else set[str]()
    directory = Path(out)
    told = progress or Silent()
    check_output(directory)
    settled = settings or Settings()
    if seed is not None:
        settled = replace(settled, seed=seed)
    check(settled, model, behaviour)
    text = python or script(model, behaviour, settled, directory)
    manifest = describe(model, behaviour, settled, command, text)
    if fresh and directory.exists() and any(directory.iterdir()):
        told.noted(f"The study that was in {directory} is now in {put_aside(directory)}.")
    claim(directory)
    with alone(directory):
        clear_parts(directory)
        going_on = _continued(manifest, directory, told)
        work = _Work(model, behaviour, settled, directory, going_on, told)
        return work.through(wanted, anew)


def _continued(manifest: Manifest, directory: Path, told: Progress) -> Manifest:
    """The manifest to go on with: the saved one when it is the same study, else an error."""
    saved = Manifest.read(directory)
    if saved is None:
        manifest.write(directory)
        return manifest
    differences = saved.differences(manifest)
    if differences:
        raise StudyError(
            f"{directory} belongs to another study: {'; '.join(differences)}. Begin this one in "
            f"{free_beside(directory)} (--out), or here (--fresh), which keeps the old one aside."
        )
    changed = saved.other_settings(manifest)
    if not changed:
        # perhaps with settings that are new since, at their defaults
        return replace(saved, settings=manifest.settings)
    told.noted(f"Other settings than before: {'; '.join(changed)}. What reads them is done again.")
    return replace(manifest, stages=saved.stages)


class _Work:
    """One pass through the plan."""

    def __init__(
        self,
        model: Model,
        behaviour: Behaviour,
        settings: Settings,
        directory: Path,
        manifest: Manifest,
        progress: Progress,
    ) -> None:
        self.model, self.behaviour, self.settings = model, behaviour, settings
        self.directory, self.manifest, self.progress = directory, manifest, progress
        self.results: dict[str, object] = {}
        self.computed: list[str] = []

    def through(self, stages: Sequence[Stage], again: Set[str]) -> Study:
        self.behaviour.save(self.directory / "behaviour")
        for stage in stages:
            inputs = self._fingerprint(stage)
            kept = None if stage.name in again else self._kept(stage, inputs)
            if kept is None:
                self._compute(stage, inputs)
            else:
                self.results[stage.name] = kept[0]
                seconds = self.manifest.stages[stage.name].seconds
                self.progress.finished(stage.name, stage.title, kept=True, seconds=seconds)
        return Study(
            directory=self.directory,
            manifest=self.manifest,
            results=self.results,
            computed=tuple(self.computed),
        )

    def _fingerprint(self, stage: Stage) -> str:
        """Of everything that the stage's result depends on."""
        settings = {name: self.manifest.settings[name] for name in ("seed", *stage.reads)}
        described = {
            "stage": stage.name,
            "versions": dict(self.manifest.versions),
            "model": self.manifest.model["fingerprint"],
            "device": self.manifest.model["device"],
            "behaviour": self.manifest.behaviour["fingerprint"],
            "settings": settings,
            "needs": {name: self._given(name) for name in stage.needs},
        }
        if stage.version:
            described["version"] = stage.version
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]

    def _given(self, name: str) -> dict[str, str]:
        """What a finished stage gives on: its files' hashes, or why it was skipped."""
        if name not in self.results:
            return {"skipped": _LEFT_OUT}
        record = self.manifest.stages[name]
        return {"skipped": record.message} if record.status == "skipped" else dict(record.files)

    def _kept(self, stage: Stage, inputs: str) -> tuple[Any] | None:
        """The saved result, when it is one of these inputs and whole."""
        record = self.manifest.stages.get(stage.name)
        if record is None or record.inputs != inputs:
            return None
        if record.status == "skipped":
            return (Skipped(stage=stage.name, reason=record.message),)
        if record.status != "done":
            return None
        try:
            check_files(self.directory, record.files)
            return (stage.load(self.directory),)
        except DamagedFileError as error:
            aside = f", is kept as {put_aside(error.path).name}" if error.path.exists() else ""
            self.progress.noted(f"{error}{aside}; the stage {stage.name!r} is done again.")
            return None

    def _compute(self, stage: Stage, inputs: str) -> None:
        self.progress.started(stage.name, stage.title)
        began = time.perf_counter()
        record = StageRecord(status="running", inputs=inputs, started=now())
        with self._recorded(stage, record):
            try:
                result = stage.compute(self._inputs(stage))
                files = stage.save(result, self.directory)
                # what is used further on is what a later run will read
                self.results[stage.name] = stage.load(self.directory)
                record = replace(record, status="done", files=files)
            except SkippedError as error:
                self.results[stage.name] = Skipped(stage=stage.name, reason=str(error))
                record = replace(record, status="skipped", message=str(error))
                self.progress.noted(f"{stage.title} is skipped: {error}")
        seconds = round(time.perf_counter() - began, 3)
        self._record(stage.name, replace(record, seconds=seconds))
        self.computed.append(stage.name)
        self.progress.finished(stage.name, stage.title, kept=False, seconds=seconds)

    def _inputs(self, stage: Stage) -> Inputs:
        results = {
            name: self.results.get(name, Skipped(stage=name, reason=_LEFT_OUT))
            for name in stage.needs
        }
        missing = [one for one in results.values() if isinstance(one, Skipped)]
        if missing and not stage.alone:
            raise SkippedError(missing[0].reason)
        return Inputs(
            model=self.model,
            behaviour=self.behaviour,
            settings=self.settings,
            results=results,
            origin=self._origin(),
            tick=self.progress.advanced,
        )

    def _origin(self) -> dict[str, Any]:
        """The study's provenance for results: everything in the manifest but the stages."""
        names = ("versions", "model", "behaviour", "settings", "command", "python")
        return {name: getattr(self.manifest, name) for name in names}

    @contextmanager
    def _recorded(self, stage: Stage, record: StageRecord) -> Generator[None]:
        """Have the manifest say that the stage runs, and how it ended if it did not finish."""
        self._record(stage.name, record)
        try:
            yield
        except KeyboardInterrupt:
            self._record(stage.name, replace(record, status="interrupted"))
            raise
        except Exception as error:
            # a full disk may refuse this as well; the error that led here is the one to see
            with suppress(OSError):
                self._record(stage.name, replace(record, status="failed", message=str(error)))
            raise

    def _record(self, name: str, record: StageRecord) -> None:
        self.manifest = replace(self.manifest, stages={**self.manifest.stages, name: record})
        self.manifest.write(self.directory)
