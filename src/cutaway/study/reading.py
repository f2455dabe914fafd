"""Reading a study back from its directory, without the model that it is about."""

from __future__ import annotations

from pathlib import Path

from cutaway.errors import StudyError
from cutaway.study.directory import MANIFEST
from cutaway.study.manifest import Manifest, StageRecord
from cutaway.study.plan import PLAN, Plan
from cutaway.study.saving import DamagedFileError, check_files
from cutaway.study.stage import Skipped, Stage
from cutaway.study.study import Study


def read_study(directory: str | Path, *, plan: Plan = PLAN) -> Study:
    """What a study has, as far as it is finished and whole; nothing is computed or written.

    A stage with a damaged file counts as skipped, with what is wrong as its reason. `plan` says how
    stages of one's own are read. Raises `StudyError` where there is no study.
    """
    path = Path(directory)
    manifest = Manifest.read(path)
    if manifest is None:
        raise StudyError(
            f"{path} holds no study (no {MANIFEST}); give the directory that `cutaway study` wrote."
        )
    results = {
        name: _result(plan[name], record, path)
        for name, record in manifest.stages.items()
        if name in plan and record.status in ("done", "skipped")
    }
    return Study(directory=path, manifest=manifest, results=results, computed=())


def _result(stage: Stage, record: StageRecord, directory: Path) -> object:
    if record.status == "skipped":
        return Skipped(stage=stage.name, reason=record.message)
    try:
        check_files(directory, record.files)
        return stage.load(directory)
    except DamagedFileError as error:
        return Skipped(stage=stage.name, reason=f"{error}; run the study again to make it anew.")
