"""Nothing finished is computed twice, nothing is lost, nothing is half written."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path

import pytest
import xarray as xr

from cutaway.behaviours import Behaviour
from cutaway.model import Model
from cutaway.study import PLAN, RoleHypothesis, Settings, Study, run
from cutaway.study.saving import sha256
from cutaway.study.stage import Inputs, Silent, SkippedError

OBSERVED = PLAN.only("blackbox", "lens", "attribution", "patching", "attention", "roles", "report")
"""Quick stages of every kind, for what is about stopping and going on."""
AFTER = tuple(OBSERVED)[tuple(OBSERVED).index("patching") :]
"""What is left to do of them when patching did not finish."""


class Watched(Silent):
    """Notes what a study says, and can interrupt a stage."""

    def __init__(self, interrupt: str = "") -> None:
        self.kept: list[str] = []
        self.notes: list[str] = []
        self._interrupt, self._running = interrupt, ""

    def started(self, name: str, title: str) -> None:
        self._running = name

    def advanced(self, done: int, total: int) -> None:
        if self._running == self._interrupt:
            raise KeyboardInterrupt

    def finished(self, name: str, title: str, *, kept: bool, seconds: float) -> None:
        if kept:
            self.kept.append(name)

    def noted(self, sentence: str) -> None:
        self.notes.append(sentence)


def stamps(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in directory.glob("*.*")
            if path.name != "study.json"}  # fmt: skip


def parts(directory: Path) -> list[Path]:
    return list(directory.rglob("*.part*"))


def test_a_second_run_computes_nothing(
    finished: Path, model: Model, behaviour: Behaviour, quick: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    before, manifest = stamps(finished), (finished / "study.json").read_text("utf-8")

    def never(*_: object, **__: object) -> None:
        raise AssertionError("the model was run")

    monkeypatch.setattr(Model, "run", never)
    watched = Watched()
    again = run(model, behaviour, finished, settings=quick, progress=watched)
    assert again.computed == ()
    assert watched.kept == list(PLAN)
    assert stamps(finished) == before
    assert (finished / "study.json").read_text("utf-8") == manifest
    assert again.report.read_text("utf-8").startswith("<!DOCTYPE html>")


def test_an_interrupted_study_goes_on_where_it_stopped(
    model: Model, behaviour: Behaviour, quick: Settings, tmp_path: Path
) -> None:
    out = tmp_path / "study"
    with pytest.raises(KeyboardInterrupt):
        run(model, behaviour, out, plan=OBSERVED, settings=quick, progress=Watched("patching"))
    record = json.loads((out / "study.json").read_text("utf-8"))["stages"]
    assert record["patching"]["status"] == "interrupted"
    assert [record[name]["status"] for name in ("blackbox", "lens", "attribution")] == ["done"] * 3
    assert not parts(out)
    assert not list(out.glob("patching*"))
    before = stamps(out)
    resumed = run(model, behaviour, out, plan=OBSERVED, settings=quick)
    assert resumed.computed == AFTER
    assert stamps(out).items() >= before.items()


def test_resumed_numbers_are_those_of_a_single_run(
    whole: Study, model: Model, behaviour: Behaviour, quick: Settings, tmp_path: Path
) -> None:
    out = tmp_path / "study"
    with pytest.raises(KeyboardInterrupt):
        run(model, behaviour, out, plan=OBSERVED, settings=quick, progress=Watched("attribution"))
    resumed = run(model, behaviour, out, plan=OBSERVED, settings=quick)
    xr.testing.assert_identical(
        resumed.patching.heads_noise.values, whole.patching.heads_noise.values
    )
    xr.testing.assert_identical(resumed.attribution.values, whole.attribution.values)


def test_an_error_in_a_stage_is_recorded_and_leaves_nothing_half_written(
    model: Model, behaviour: Behaviour, quick: Settings, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from cutaway.patch import Effects

    out, save = tmp_path / "study", Effects.save

    def full(self: Effects, path: Path) -> Path:
        if "stream" in str(path):
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device", str(path))
        return save(self, path)

    monkeypatch.setattr(Effects, "save", full)
    with pytest.raises(OSError, match="No space left"):
        run(model, behaviour, out, plan=OBSERVED, settings=quick)
    record = json.loads((out / "study.json").read_text("utf-8"))["stages"]["patching"]
    assert record["status"] == "failed"
    assert "No space left" in record["message"]
    assert not parts(out)
    assert not list(out.glob("patching.stream*"))
    monkeypatch.undo()
    assert run(model, behaviour, out, plan=OBSERVED, settings=quick).computed == AFTER


def test_a_kill_in_the_middle_loses_only_the_running_stage(
    model: Model, behaviour: Behaviour, quick: Settings, model_directory: Path, tmp_path: Path
) -> None:
    out = tmp_path / "study"
    code = (
        "import sys, time, cutaway\n"
        "from cutaway.study import PLAN, Settings, run\n"
        "from cutaway.study.stage import Silent\n"
        "class Slow(Silent):\n"
        "    def started(self, name, title): self.name = name\n"
        "    def advanced(self, done, total): time.sleep(60 if self.name == 'patching' else 0)\n"
        "model = cutaway.open(sys.argv[1])\n"
        "pairs = cutaway.behaviour('ioi', model, n=10, seed=0)\n"
        f"settings = {quick!r}\n"
        f"plan = PLAN.only{tuple(OBSERVED)}\n"
        "run(model, pairs, sys.argv[2], plan=plan, settings=settings, progress=Slow())\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(model_directory), str(out)])
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and child.poll() is None:
        manifest = out / "study.json"
        if manifest.exists() and "patching" in json.loads(manifest.read_text("utf-8"))["stages"]:
            break
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    (out / ".patching.heads_denoise.nc.part").write_bytes(b"what a kill leaves")
    resumed = run(model, behaviour, out, plan=OBSERVED, settings=quick)
    assert resumed.computed == AFTER
    assert not parts(out)


def test_a_damaged_stage_file_is_kept_aside_and_its_stage_done_again(
    finished: Path, model: Model, behaviour: Behaviour, quick: Settings
) -> None:
    path = finished / "attribution.nc"
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    watched = Watched()
    again = run(model, behaviour, finished, settings=quick, progress=watched)
    assert again.computed[0] == "attribution"
    assert set(again.computed) <= {"attribution", "report"}
    assert (finished / "attribution.nc.old").read_bytes() == whole[:1000]
    assert "attribution.nc.old" in watched.notes[0]


def test_a_missing_stage_file_is_made_again(
    finished: Path, model: Model, behaviour: Behaviour, quick: Settings
) -> None:
    (finished / "report.html").unlink()
    assert run(model, behaviour, finished, settings=quick).computed == ("report",)


def test_a_study_of_before_a_setting_was_added_goes_on(
    finished: Path, model: Model, behaviour: Behaviour, quick: Settings
) -> None:
    record = json.loads((finished / "study.json").read_text("utf-8"))
    del record["settings"]["path_examples"]
    (finished / "study.json").write_text(json.dumps(record), "utf-8")
    again = run(model, behaviour, finished, settings=quick)
    assert again.manifest.settings["path_examples"] == quick.path_examples


def test_only_what_depends_on_a_change_is_computed_again(
    finished: Path, model: Model, behaviour: Behaviour, quick: Settings
) -> None:
    record = json.loads((finished / "study.json").read_text("utf-8"))
    record["stages"]["attention"]["inputs"] = "of another version"
    (finished / "study.json").write_text(json.dumps(record), "utf-8")
    again = run(model, behaviour, finished, settings=quick)
    assert again.computed[0] == "attention"
    assert set(again.computed) <= {"attention", "report"}


def test_stages_can_be_run_in_part(
    model: Model, behaviour: Behaviour, quick: Settings, tmp_path: Path
) -> None:
    out = tmp_path / "study"
    part = run(model, behaviour, out, plan=OBSERVED, settings=quick, stages=["attention"])
    assert part.computed == ("patching", "attention")
    assert not (out / "report.html").exists()
    rest = run(model, behaviour, out, plan=OBSERVED, settings=quick)
    assert rest.computed == tuple(name for name in OBSERVED if name not in part.computed)


def test_other_settings_make_only_what_reads_them_again(
    finished: Path, model: Model, behaviour: Behaviour, quick: Settings
) -> None:
    watched, before = Watched(), stamps(finished)
    changed = replace(quick, controls=3)
    again = run(model, behaviour, finished, settings=changed, progress=watched)
    assert again.computed == ("evaluation", "report")
    assert "its controls is 2 and not 3" in watched.notes[0]
    assert len(again.evaluation.circuit.controls) == 3
    assert again.manifest.settings["controls"] == 3
    same = {name for name, stamp in stamps(finished).items() if before[name] == stamp}
    assert set(before) - same == {"evaluation.circuit.nc", "evaluation.sizes.nc", "report.html"}
    assert run(model, behaviour, finished, settings=changed).computed == ()


def test_other_hypotheses_make_only_their_stage_and_the_report_again(
    whole: Study, finished: Path, model: Model, behaviour: Behaviour, quick: Settings
) -> None:
    watched = Watched()
    changed = replace(quick, hypotheses=(RoleHypothesis("0.0", "does not matter"),))
    again = run(model, behaviour, finished, settings=changed, progress=watched)
    assert again.computed == ("hypotheses", "report")
    assert "its hypotheses are others" in watched.notes[0]
    assert "does not matter" in again.report.read_text("utf-8")
    assert "does not matter" not in whole.report.read_text("utf-8")
    assert run(model, behaviour, finished, settings=changed).computed == ()


def test_a_result_of_an_older_form_is_kept_aside_and_made_again(
    finished: Path, model: Model, behaviour: Behaviour, quick: Settings
) -> None:
    path, record = (
        finished / "blackbox.nc",
        json.loads((finished / "study.json").read_text("utf-8")),
    )
    data = xr.load_dataset(path, engine="h5netcdf").drop_vars("top_text")
    path.unlink()
    data.to_netcdf(path, engine="h5netcdf")
    record["stages"]["blackbox"]["files"]["blackbox.nc"] = sha256(path)
    (finished / "study.json").write_text(json.dumps(record), "utf-8")
    again = run(model, behaviour, finished, settings=quick)
    assert again.computed[0] == "blackbox"
    assert (finished / "blackbox.nc.old").exists()


def test_a_stage_reads_no_setting_that_it_does_not_name(
    model: Model, behaviour: Behaviour, quick: Settings, whole: Study
) -> None:
    read: set[str] = set()

    class Noting(Settings):
        def __getattribute__(self, name: str) -> object:
            read.add(name)
            return super().__getattribute__(name)

    settings = Noting(**vars(quick))
    origin = {name: getattr(whole.manifest, name) for name in
              ("versions", "model", "behaviour", "settings", "command", "python")}  # fmt: skip
    for stage in PLAN.values():
        read.clear()
        needed = {name: whole.results[name] for name in stage.needs}
        with suppress(SkippedError):
            stage.compute(
                Inputs(
                    model=model, behaviour=behaviour, settings=settings, results=needed,
                    origin=origin, tick=lambda _done, _of: None,
                )
            )  # fmt: skip
        asked = read & {field.name for field in fields(Settings)}
        assert asked <= {"seed", *stage.reads}, stage.name
