"""Whose directory it is: other studies, other files and unwritable places are refused untouched."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from small_model import save_model

import cutaway
from cutaway.behaviours import Behaviour
from cutaway.errors import StudyError
from cutaway.model import Model
from cutaway.study import Settings, Study, read_study, run


@pytest.fixture
def begun(model: Model, behaviour: Behaviour, quick: Settings, tmp_path: Path) -> Study:
    return run(model, behaviour, tmp_path / "study", settings=quick, stages=["blackbox"])


def contents(directory: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def test_another_model_is_refused(begun: Study, behaviour: Behaviour, quick: Settings) -> None:
    other = cutaway.open(save_model(begun.directory.parent / "other", seed=1))
    before = contents(begun.directory)
    with pytest.raises(StudyError, match=r"belongs to another study: its model is small .* other"):
        run(other, behaviour, begun.directory, settings=quick)
    assert contents(begun.directory) == before


def test_a_refusal_names_a_directory_to_begin_in(
    begun: Study, model: Model, behaviour: Behaviour, quick: Settings
) -> None:
    taken = begun.directory.with_name("study-2")
    taken.mkdir()
    with pytest.raises(StudyError, match=r"Begin this one in \S+study-3 \(--out\)") as refused:
        run(model, behaviour, begun.directory, settings=quick, seed=1)
    named = Path(str(refused.value).split("Begin this one in ")[1].split(" ")[0])
    there = run(model, behaviour, named, settings=quick, seed=1, stages=["blackbox"])
    assert there.directory == begun.directory.with_name("study-3")


def test_another_behaviour_is_refused(begun: Study, model: Model, quick: Settings) -> None:
    other = cutaway.behaviour("ioi", model, n=9, seed=5)
    with pytest.raises(StudyError, match=r"another study: its behaviour is ioi \(\w+\) and not"):
        run(model, other, begun.directory, settings=quick)


def test_another_seed_and_other_versions_are_refused(
    begun: Study, model: Model, behaviour: Behaviour, quick: Settings
) -> None:
    with pytest.raises(StudyError, match="its seed is 0 and not 1"):
        run(model, behaviour, begun.directory, settings=quick, seed=1)
    path = begun.directory / "study.json"
    record = json.loads(path.read_text("utf-8"))
    record["versions"]["torch"] = "1.0"
    path.write_text(json.dumps(record), "utf-8")
    with pytest.raises(StudyError, match=r"made with torch 1\.0 and not .*--fresh"):
        run(model, behaviour, begun.directory, settings=quick)


def test_fresh_keeps_the_old_study_aside(
    begun: Study, model: Model, behaviour: Behaviour, quick: Settings
) -> None:
    before = (begun.directory / "blackbox.nc").read_bytes()
    run(model, behaviour, begun.directory, settings=quick, stages=["blackbox"], seed=3, fresh=True)
    run(model, behaviour, begun.directory, settings=quick, stages=["blackbox"], seed=4, fresh=True)
    assert (begun.directory.parent / "study.old" / "blackbox.nc").read_bytes() == before
    assert (begun.directory.parent / "study.old-2" / "study.json").exists()


@pytest.mark.parametrize("fresh", [False, True])
def test_a_directory_with_other_files_is_refused(
    model: Model, behaviour: Behaviour, quick: Settings, tmp_path: Path, fresh: bool
) -> None:
    (tmp_path / "thesis.tex").write_text("mine", "utf-8")
    with pytest.raises(StudyError, match=r"thesis\.tex.*not a study's directory"):
        run(model, behaviour, tmp_path, settings=quick, fresh=fresh)
    assert contents(tmp_path) == {str(tmp_path / "thesis.tex"): b"mine"}


def test_a_path_under_a_file_is_refused_before_any_work(
    model: Model, behaviour: Behaviour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    monkeypatch.setattr(Model, "run", lambda *_: pytest.fail("the model was run"))
    for out in (tmp_path / "file", tmp_path / "file" / "study"):
        with pytest.raises(StudyError, match="cannot be written"):
            run(model, behaviour, out)


def test_a_file_in_place_of_a_study_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("")
    with pytest.raises(StudyError, match=r"pairs\.csv is a file; give the directory of a study"):
        read_study(tmp_path / "pairs.csv")


def test_a_damaged_manifest_is_refused_and_fresh_puts_it_aside(
    begun: Study, model: Model, behaviour: Behaviour, quick: Settings
) -> None:
    (begun.directory / "study.json").write_text('{"format": 1, "stages"', "utf-8")
    with pytest.raises(StudyError, match=r"damaged.*--fresh"):
        run(model, behaviour, begun.directory, settings=quick)
    again = run(model, behaviour, begun.directory, settings=quick, stages=["blackbox"], fresh=True)
    assert again.computed == ("blackbox",)
    assert (begun.directory.parent / "study.old" / "study.json").exists()


def test_unknown_stages_and_empty_plans_are_refused(
    model: Model, behaviour: Behaviour, tmp_path: Path
) -> None:
    with pytest.raises(StudyError, match="no stage 'patchin'; a study has: blackbox, distractors"):
        run(model, behaviour, tmp_path / "study", stages=["patchin"])
    with pytest.raises(StudyError, match="No stage was named"):
        run(model, behaviour, tmp_path / "study", stages=[])
    assert not (tmp_path / "study").exists()


def test_settings_refuse_nonsense() -> None:
    with pytest.raises(StudyError, match="patch_examples must be at least 1; found 0"):
        Settings(patch_examples=0)


def test_a_result_that_was_not_run_says_so(begun: Study) -> None:
    with pytest.raises(StudyError, match="without the stage 'patching'"):
        _ = begun.patching


@pytest.mark.parametrize("fresh", [False, True])
def test_two_processes_in_one_directory_are_refused(
    begun: Study, model: Model, behaviour: Behaviour, quick: Settings, fresh: bool
) -> None:
    code = "import sys, pathlib; from cutaway.study.directory import alone\n"
    code += "with alone(pathlib.Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(begun.directory)], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert other.stdout is not None
    assert other.stdout.readline() == "in\n"
    before = contents(begun.directory)
    with pytest.raises(StudyError, match="Another process is at work on the study in"):
        run(model, behaviour, begun.directory, settings=quick, fresh=fresh)
    assert contents(begun.directory) == before
    other.communicate()
    again = run(model, behaviour, begun.directory, settings=quick, stages=["blackbox"])
    assert again.computed == ()
