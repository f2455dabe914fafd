"""The notebooks run from the first cell to the last, and are kept without outputs."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
from documents import ROOT, anchors

import cutaway

nbformat = pytest.importorskip("nbformat", reason="nbformat comes with the extra [test]")
nbclient = pytest.importorskip("nbclient", reason="nbclient comes with the extra [test]")

FOLDER = ROOT / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def opened(path: Path) -> Any:
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def name(path: Path) -> str:
    return path.stem


def figures(book: Any) -> list[str]:
    """The kinds of everything that executed cells show, text aside."""
    return [
        kind
        for cell in book.cells
        for output in cell.get("outputs", [])
        for kind in output.get("data", {})
        if kind in ("image/svg+xml", "application/vnd.jupyter.widget-view+json")
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_a_notebook_is_valid_and_has_no_outputs(path: Path) -> None:
    book = opened(path)
    nbformat.validate(book)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert code
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert book.cells[0].source.startswith("# ")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_its_links_lead_somewhere(path: Path) -> None:
    text = "\n".join(cell.source for cell in opened(path).cells if cell.cell_type == "markdown")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        page, _, anchor = target.partition("#")
        found = (FOLDER / page).resolve()
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_it_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the shipped model, in a kernel of its own, in an empty directory."""
    monkeypatch.setenv("CUTAWAY_MODEL", "septet")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    # the package under test, wherever it was imported from
    monkeypatch.setenv("PYTHONPATH", str(Path(cutaway.__file__).parents[1]), prepend=os.pathsep)
    book = opened(path)
    client = nbclient.NotebookClient(
        book, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    assert len(figures(book)) >= 1


def test_the_page_lists_every_notebook_by_its_title() -> None:
    page = (FOLDER / "index.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"\(([\w]+\.ipynb)\)", page)) == [path.name for path in NOTEBOOKS]
    for path in NOTEBOOKS:
        title = opened(path).cells[0].source.splitlines()[0].removeprefix("# ")
        assert f"[{title}]({path.name})" in page
