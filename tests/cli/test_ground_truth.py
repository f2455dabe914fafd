"""`cutaway ground-truth`: the files and the page it writes, going on after Ctrl-C, bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from cutaway.ground_truth import measured

Command = Callable[..., Result]
Refused = Callable[..., str]

PAGE = "# A page\n\n<!-- begin ground-truth -->\nold\n<!-- end ground-truth -->\n\nThe end.\n"
SMALL = ("ground-truth", "--methods", "eap,random", "--models", "fraction", "--examples", 8)


def test_rows_and_page(command: Command, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(PAGE)
    result = command(*SMALL, "--nulls", 1, "--out", "made/rows.json", "--markdown", "page.md")
    assert result.exit_code == 0, result.output
    assert "AUROC over edges, constructed models" in result.stdout
    record = json.loads((tmp_path / "made" / "rows.json").read_text())
    assert [row["method"] for row in record["rows"]] == ["eap", "random"]
    assert {row["kind"] for row in record["rows"]} == {"constructed"}
    assert record["rows"][0]["edges"] > record["rows"][1]["edges"]
    assert [one["kind"] for one in record["reports"]] == ["constructed"] * 2 + ["untrained"] * 2
    assert not any(one["passed"] for one in record["reports"] if one["kind"] == "untrained")
    assert record["provenance"]["examples"] == 8
    page = (tmp_path / "page.md").read_text()
    assert page.startswith("# A page\n\n<!-- begin ground-truth -->\n")
    assert page.endswith("<!-- end ground-truth -->\n\nThe end.\n")
    assert "old" not in page
    assert "| `eap` |" in page
    assert not list(tmp_path.rglob("*.unfinished-*"))


def test_what_is_done_when_interrupted_is_kept(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    discover = measured.discover
    monkeypatch.setattr(measured, "discover", _stops_at("random", discover))
    result = command(*SMALL)
    assert result.exit_code == 130
    assert "the same command goes on from there" in " ".join(result.stderr.split())
    assert not (tmp_path / "cutaway-ground-truth.json").exists()

    monkeypatch.setattr(measured, "discover", _stops_at("eap", discover))
    result = command(*SMALL)
    assert result.exit_code == 0, result.output
    assert "1 rows were finished earlier" in result.stderr
    assert len(json.loads((tmp_path / "cutaway-ground-truth.json").read_text())["rows"]) == 2


def _stops_at(name: str, discover: Callable[..., Any]) -> Callable[..., Any]:
    """Discovery that Ctrl-C ends at a method (the warming up, which has no seed, aside)."""

    def run(on: Any, behaviour: Any, method: str, **more: Any) -> Any:
        if method == name and more:
            raise KeyboardInterrupt
        return discover(on, behaviour, method, **more)

    return run


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--methods", "eap-gi"), "no discovery method 'eap-gi'; did you mean 'eap-ig'?"),
        (("--methods", ","), "Name at least one discovery method: exact, "),
        (("--models", "sorted"), "no model 'sorted'; did you mean 'sort'?"),
        (("--out", "rows.nc"), "ends in .csv or .json; found 'rows.nc'"),
        (("--out", "/proc/no/rows.json"), "No such file or directory (/proc/no); free"),
        (("--markdown", "no.md"), "no page 'no.md'; make a file with the lines <!-- begin"),
        (("--markdown", "bare.md"), "'bare.md' does not say where the tables go"),
    ],
)
def test_bad_input(refused: Refused, tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    (tmp_path / "bare.md").write_text("# Nothing here\n")
    assert says in refused("ground-truth", *words)
