"""Every number of a report has a command beside it, and the commands do what they say."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from cutaway.behaviours import Behaviour
from cutaway.cli import app
from cutaway.model import Model
from cutaway.study import Settings, Study
from cutaway.study.lens import Lenses
from cutaway.study.report import assemble
from cutaway.study.saving import load_parts
from cutaway.study.stage import Inputs
from cutaway.views import Report, render
from cutaway.views.text import number


@pytest.fixture(scope="module")
def page(whole: Study, model: Model, behaviour: Behaviour, quick: Settings,
         model_directory: Path) -> Report:  # fmt: skip
    origin = {name: getattr(whole.manifest, name)
              for name in ("versions", "model", "behaviour", "settings", "python")}  # fmt: skip
    origin["command"] = shlex.join(
        ["cutaway", "study", "ioi", "--model", str(model_directory), "--n", "10",
         "--stage", "report", "--stage=lens"]
    )  # fmt: skip
    inputs = Inputs(model=model, behaviour=behaviour, settings=quick, origin=origin,
                    results=whole.results, tick=lambda done, total: None)  # fmt: skip
    return assemble(inputs)


def snippets(page: Report) -> Iterator[tuple[str, str]]:
    """Every command with what it stands beside."""
    for point in page.points:
        yield point.heading, point.reproduce
        if point.figure is not None:
            yield point.figure.title, point.figure.reproduce
    for section in page.sections:
        yield section.heading, section.reproduce
        yield from ((figure.title, figure.reproduce) for figure in section.figures)


def expressions(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("cutaway ")]


def test_everything_has_a_command_that_runs(page: Report, whole: Study) -> None:
    names: dict[str, object] = {"study": whole, "np": np}
    done = [sentence for section in page.sections for sentence in section.sentences
            if sentence.startswith("Not done")]  # fmt: skip
    for where, text in snippets(page):
        missing = any(section.heading == where and section.sentences[0] in done
                      for section in page.sections if section.sentences)  # fmt: skip
        assert text or missing, where
        for expression in expressions(text):
            assert eval(expression, names) is not None or expression.startswith("print"), where


def test_what_a_command_gives_is_what_is_drawn(page: Report, whole: Study) -> None:
    checked = 0
    for section in page.sections:
        for figure in section.figures:
            if not figure.reproduce.startswith("study.lens.clean") or figure.table is None:
                continue
            found = eval(figure.reproduce, {"study": whole})
            mean = found["mean"].to_numpy() if isinstance(found, xr.Dataset) else None
            if mean is None:
                continue
            for row, cells in zip(mean, figure.table.rows, strict=True):
                for value, cell in zip(row, cells[1:], strict=True):
                    assert cell.startswith(number(value))
                    checked += 1
    assert checked == whole.lens.clean.mean.size


def test_a_section_s_command_makes_its_stage(
    page: Report, whole: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = next(one for one in page.sections if "study.lens" in one.reproduce)
    words = shlex.split(section.reproduce.splitlines()[0])
    assert words[:3] == ["cutaway", "study", "ioi"]
    assert words[-2:] == ["--stage", "lens"]
    assert words.count("--stage") == 1
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, [*words[1:], "--out", "again"])
    assert result.exit_code == 0, result.output
    made = load_parts("lens", Lenses, tmp_path / "again")
    example = whole.lens.clean.logit_diff.sizes["example"]
    assert made.clean.logit_diff.sizes["example"] >= example
    record = json.loads((tmp_path / "again" / "study.json").read_text())
    assert list(record["stages"]) == ["lens"]


def test_every_command_is_on_the_page(page: Report, whole: Study) -> None:
    written = unescape(render(page))
    for _, text in snippets(page):
        assert text in written
    assert page.given in written
    assert 'href="#reproduce"' in written
