"""As a real process: how quickly it answers, and what Ctrl-C does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

RUN = "import sys; from cutaway.cli import main; sys.argv[0] = 'cutaway'; main()"


def start(*words: object, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *map(str, words)], cwd=cwd, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "COLUMNS": "100"},
    )  # fmt: skip


def test_help_answers_at_once(tmp_path: Path) -> None:
    """The whole process, in processor time: a busy machine must not fail it."""
    before = os.times()
    child = start("--help", cwd=tmp_path)
    out, _error = child.communicate()
    after = os.times()
    assert child.returncode == 0
    assert "study" in out
    spent = after.children_user + after.children_system
    assert spent - before.children_user - before.children_system < 0.5


def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(
    model_directory: Path, tmp_path: Path
) -> None:
    words = ("study", "ioi", "--model", model_directory, "--n", 16, "--out", "mine")
    child = start(*words, cwd=tmp_path)
    manifest = tmp_path / "mine/study.json"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and child.poll() is None:
        if manifest.exists() and "patching" in json.loads(manifest.read_text("utf-8"))["stages"]:
            break
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    _out, error = child.communicate(timeout=60)
    assert child.returncode == 130, error
    assert "the same command" in error
    assert "Traceback" not in error
    stages = json.loads(manifest.read_text("utf-8"))["stages"]
    assert stages["patching"]["status"] == "interrupted"
    assert not list(tmp_path.rglob("*.part*"))

    again = start(*words, cwd=tmp_path)
    out, error = again.communicate(timeout=120)
    assert again.returncode == 0, error
    assert out.rstrip().endswith("mine/report.html")
    after = json.loads(manifest.read_text("utf-8"))["stages"]
    assert after["blackbox"] == stages["blackbox"]
    assert after["patching"]["status"] == "done"


def test_a_bad_model_leaves_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    child = start("study", "ioi", "--model", "empty", cwd=tmp_path)
    out, error = child.communicate()
    assert child.returncode == 2
    assert not out
    assert [line for line in error.splitlines() if line.strip()] == [
        "Error: 'empty' has no config.json, so it is not a model's directory."
    ]
