"""`cutaway mechanism`: each says what its analysis says, and what does not fit is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

import cutaway
from cutaway.mechanisms import Recall, induction

Command = Callable[..., Result]
Refused = Callable[..., str]


def test_induction_is_said_as_in_python(command: Command, model_directory: Path) -> None:
    result = command("mechanism", "induction", "induction", "-m", model_directory, "--n", 8)
    assert result.exit_code == 0, result.output
    model = cutaway.open(model_directory)
    found = induction(model, cutaway.behaviour("induction", model, n=8))
    assert result.stdout == f"{found}\n"


def test_recall_is_saved_and_drawn(command: Command, tmp_path: Path) -> None:
    result = command(
        "mechanism", "recall", "capitals", "--n", 8, "--strength", 3,
        "--out", "recall.nc", "--plot", "recall.svg",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    saved = Recall.load(tmp_path / "recall.nc")
    assert saved.strength == 3
    assert str(saved) in result.stdout
    assert (tmp_path / "recall.svg").read_text("utf-8").startswith("<svg")


def test_memorised_text_and_other_texts(
    command: Command, model_directory: Path, tmp_path: Path
) -> None:
    (tmp_path / "texts.txt").write_text("The capital of France is\n\nThe store is in the park\n")
    result = command(
        "mechanism", "memorised", "--text", "The phone number of the lighthouse is 01 99",
        "--other", "texts.txt", "--suffix", 2, "--neurons", 3, "-m", model_directory,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "of 1 texts, the last 2 token(s)" in result.stdout
    assert "3 neurons" in result.stdout


def test_reuse(command: Command, model_directory: Path) -> None:
    result = command("mechanism", "reuse", "ioi", "induction", "-m", model_directory, "--n", 12)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("Heads that serve two behaviours or more")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("inductive",), "no mechanism 'inductive'"),
        (("recall",), "recall takes one behaviour; found 0"),
        (("reuse", "ioi"), "two behaviours or more; found 1"),
        (("induction", "ioi", "induction"), "at most one behaviour; found 2"),
        (("recall", "capital"), "did you mean 'capitals'"),
        (("induction", "--strength", 2), "--strength is for recall"),
        (("recall", "capitals", "--suffix", 2), "--suffix is for memorised"),
        (("memorised",), "either one behaviour or strings"),
        (("memorised", "phone-number", "--other", "none.txt"), "no file 'none.txt'"),
        (("induction", "--plot", "x.png"), "ends in .svg"),
    ],
)
def test_what_is_refused(refused: Refused, words: tuple[object, ...], says: str) -> None:
    assert says in refused("mechanism", *words)
