"""Bad input: exit code 2, one sentence that names the fault, no traceback, nothing overwritten."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import Result

Refused = Callable[..., str]

HEADER = "clean,corrupt,answer,wrong_answer"
CLEAN = '"John and Mary went to the store, John gave a drink to"'
CORRUPT = '"John and Mary went to the store, Mary gave a drink to"'
ROW = f"{CLEAN},{CORRUPT}, Mary, John"


@pytest.fixture
def copy(model_directory: Path, tmp_path: Path) -> Path:
    """A copy of the model's directory, to be spoilt."""
    return Path(shutil.copytree(model_directory, tmp_path / "copy"))


def pairs(directory: Path, *lines: str, start: bytes = b"") -> str:
    path = directory / "pairs.csv"
    path.write_bytes(start + "\n".join(lines).encode())
    return str(path)


def test_a_circuit_of_a_single_pair(refused: Refused, tmp_path: Path) -> None:
    said = refused("circuit", "--quick", "--prompts", pairs(tmp_path, HEADER, ROW))
    assert "'pairs' are held out, and it has 1; give at least 2" in said


# ── models ───────────────────────────────────────────────────────────────────────────────────


def test_unknown_model_with_the_hub_offline(
    refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    said = refused("study", "ioi", "--model", "nobody/no-such-model")
    assert "'nobody/no-such-model' could not be opened" in said


def test_the_hubs_client_says_nothing_of_its_retries(
    refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    chatter = logging.getLogger("huggingface_hub")
    monkeypatch.setattr(chatter, "level", logging.WARNING)
    refused("check", "nobody/no-such-model")
    assert not logging.getLogger("huggingface_hub.utils._http").isEnabledFor(logging.WARNING)


def test_a_path_that_is_not_there(refused: Refused) -> None:
    assert "'./nowhere'" in refused("check", "./nowhere")


def test_a_directory_without_weights(refused: Refused, copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    assert "no weights" in refused("study", "ioi", "-m", copy)


def test_pickles_are_refused(refused: Refused, copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    said = refused("check", copy)
    assert "pickle" in said
    assert "save_pretrained" in said


def test_remote_code_is_refused_unless_asked_for(refused: Refused, copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text("utf-8"))
    config["auto_map"] = {"AutoModelForCausalLM": "evil.Model"}
    (copy / "config.json").write_text(json.dumps(config), "utf-8")
    said = refused("study", "ioi", "-m", copy)
    assert "its own code" in said


def test_a_device_that_is_not_there(refused: Refused, model_directory: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert "no device 'cuda:7'" in refused("check", model_directory, "--device", "cuda:7")


def test_a_type_that_is_not_one(refused: Refused, model_directory: Path) -> None:
    assert "floating-point type" in refused("check", model_directory, "--dtype", "int8")


def test_a_model_without_a_tokenizer(refused: Refused, copy: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink()
    assert "tokenizer" in refused("study", "ioi", "-m", copy)


# ── behaviours and prompts ───────────────────────────────────────────────────────────────────


def test_unknown_behaviour(refused: Refused) -> None:
    assert "did you mean 'ioi'?" in refused("study", "iio")
    assert "no built-in behaviour" in refused("behaviours", "telepathy")


def test_no_behaviour(refused: Refused) -> None:
    assert "Name a behaviour" in refused("study")


def test_unknown_variation(refused: Refused, model_directory: Path) -> None:
    assert "KEY=VALUE" in refused("study", "ioi", "-m", model_directory, "--vary", "order")
    assert "colour" in refused("study", "ioi", "-m", model_directory, "--vary", "colour=red")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["clean,corrupt,answer", f"{CLEAN},{CORRUPT}, Mary"], "lacks the column 'wrong_answer'"),
        ([HEADER], "0 rows"),
        ([HEADER, f"{CLEAN},{CORRUPT}, Mary and, John"], "tokens"),
        ([HEADER, f'{CLEAN},"John gave a drink to", Mary, John'], "equal length"),
        ([HEADER, f"{CLEAN},{CORRUPT},NaN, John"], "NaN"),
        ([HEADER + ",label:S2", f"{ROW},Tuesday"], "Tuesday"),
    ],
)
def test_pairs_that_cannot_be_used(
    refused: Refused, model_directory: Path, tmp_path: Path, lines: list[str], said: str
) -> None:
    file = pairs(tmp_path, *lines)
    assert said in refused("study", "--prompts", file, "--model", model_directory)


def test_a_byte_order_mark_is_no_fault(
    command: Callable[..., object], model_directory: Path, tmp_path: Path
) -> None:
    file = pairs(tmp_path, HEADER, ROW, ROW, start=b"\xef\xbb\xbf")
    result = command("study", "--prompts", file, "-m", model_directory, "--stage", "blackbox")
    assert getattr(result, "exit_code", None) == 0


def test_a_file_that_is_not_there(refused: Refused, model_directory: Path) -> None:
    assert "no file 'pairs.csv'" in refused("study", "--prompts", "pairs.csv")


def test_prompts_longer_than_the_context(
    refused: Refused, model_directory: Path, tmp_path: Path
) -> None:
    long = " ".join(["John and Mary"] * 30)
    file = pairs(tmp_path, HEADER, f"{long} John,{long} Mary, Mary, John")
    said = refused("sweep", "--prompts", file, "-m", model_directory, "--out", tmp_path / "x.nc")
    assert "context" in said


# ── sweeps ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--memory", "2 gold"], "--memory takes a size such as 2GB or 512MiB; found '2 gold'"),
        (["--memory", "0"], "found '0'"),
        (["--memory", "10kB"], "too small"),
        (["--part", "9.6", "--part", "2"], "all of one kind; found 9.6, 2"),
        (["--part", "99"], "99"),
        (["--plot", "heads.png"], "ends in .svg; found 'heads.png'"),
        (["--site", "q", "--by", "layer,head,position", "--plot", "q.svg"], "has 3 (layer, head"),
    ],
)
def test_options_of_a_sweep(
    refused: Refused, model_directory: Path, words: list[str], said: str
) -> None:
    assert said in refused("sweep", "ioi", "-m", model_directory, "--n", 2, *words)


# ── sites ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--site", "head_uot"], "did you mean 'head_out'"),
        (["--site", "head_out.7", "--by", "head"], "head_out.1"),
        (["--site", "mlp_out"], "cannot be swept by"),
        (["--site", "resid_pre", "--by", "layer,position", "--position", "S3"], "S3"),
    ],
)
def test_sweeps_of_what_is_not_there(
    refused: Refused, model_directory: Path, words: list[str], said: str
) -> None:
    assert said in refused("sweep", "ioi", "-m", model_directory, "--n", 2, *words)


@pytest.mark.parametrize("site", ["head_out.9.0", "head_out.0.9", "nose.1"])
def test_ablating_what_is_not_there(refused: Refused, model_directory: Path, site: str) -> None:
    assert site.split(".")[0] in refused(
        "generate", "John", "-m", model_directory, "--ablate", site
    )


# ── directories ──────────────────────────────────────────────────────────────────────────────


def test_an_output_that_cannot_be_written_is_refused_before_the_model_is_opened(
    refused: Refused, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    said = refused("study", "ioi", "-m", "nobody/no-such-model", "--out", tmp_path / "file/study")
    assert "cannot be written" in said
    said = refused("sweep", "ioi", "-m", "nobody/no-such-model", "--out", tmp_path / "file/x.nc")
    assert "cannot be written" in said


def test_another_studys_directory(
    command: Callable[..., object], refused: Refused, model_directory: Path
) -> None:
    common = ("study", "ioi", "-m", model_directory, "--out", "mine", "--stage", "blackbox")
    command(*common, "--n", 3)
    assert "belongs to another study" in refused(*common, "--n", 4)


def test_a_directory_with_other_files(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine", "utf-8")
    assert "thesis.tex" in refused("study", "ioi", "--out", tmp_path)
    assert "thesis.tex" in refused("study", "ioi", "--out", tmp_path, "--fresh")


def test_a_full_disk_leaves_what_was_measured_for_the_next_try(
    command: Callable[..., Result], model_directory: Path, tmp_path: Path
) -> None:
    from cutaway.patch import Effects

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "x.nc")

    asked = ("sweep", "ioi", "-m", model_directory, "--n", 2)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Effects, "save", full)
        stopped = command(*asked)
    assert stopped.exit_code == 2
    assert stopped.stderr.count("Error: ") == 1
    assert "No space left on device" in stopped.stderr
    left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert len(left) == 1
    assert ".unfinished-" in left[0]
    again = command(*asked)
    assert again.exit_code == 0, again.output
    assert "were finished earlier" in again.stderr
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".nc"]


def test_an_unknown_stage(refused: Refused) -> None:
    assert "no stage 'guess'" in refused("study", "ioi", "--stage", "guess")


def test_what_typer_refuses_has_exit_code_2_as_well(command: Callable[..., object]) -> None:
    for words in (["study", "ioi", "--n", "0"], ["study", "--colour"], ["dance"]):
        assert getattr(command(*words), "exit_code", None) == 2
