"""The page of results is whole: every method, every model, and the bars that they are held to.

It is made by `cutaway ground-truth --nulls 100 --markdown docs/ground-truth.md`.
"""

import re
from pathlib import Path

import pytest

from cutaway.circuits import METHODS
from cutaway.ground_truth.cases import KINDS

PAGE = Path(__file__).parents[2] / "docs" / "ground-truth.md"

Table = dict[str, dict[str, str]]


def tables() -> dict[str, Table]:
    """Each table of the page by its title: figures by method and column."""
    text = PAGE.read_text(encoding="utf-8").partition("<!-- begin ground-truth -->")[2]
    found: dict[str, Table] = {}
    for title, body in re.findall(r"\*\*(.+?)\*\*\n\n((?:\|.*\n)+)", text):
        head, _, *lines = [[cell.strip() for cell in row.strip("|").split("|")]
                           for row in body.splitlines()]  # fmt: skip
        found[title] = {
            line[0].strip("`"): dict(zip(head[1:], line[1:], strict=True)) for line in lines
        }
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "what", ["AUROC over edges", "AUROC over heads and MLPs", "Precision at the true size"]
)
def test_every_method_and_model_is_there(what: str, kind: str) -> None:
    table = tables()[f"{what}, {kind} models"]
    assert list(table) == list(METHODS)
    for figures in table.values():
        assert list(figures) == [*KINDS[kind], "mean"]
        assert all(0 <= float(figure) <= 1 for figure in figures.values())


def test_costs_reports_and_nulls_are_there() -> None:
    found = tables()
    assert list(found["Time and memory, mean over the models"]) == list(METHODS)
    for kind, names in KINDS.items():
        (sizes,) = (table for title, table in found.items()
                    if title.startswith("Edges of the reported") and kind in title)  # fmt: skip
        assert set(sizes) == {"true edges", *METHODS}
        assert set(sizes["exact"]) == set(names)
        assert sizes["exact"] == sizes["true edges"]
    nulls = found["Circuits that pass, null cases"]
    assert list(nulls) == list(METHODS)
    for figures in nulls.values():
        passed, many = map(int, figures["all"].split(" of "))
        assert many >= 100
        assert passed <= 0.05 * many


def test_constructed_circuits_are_found() -> None:
    table = tables()["AUROC over edges, constructed models"]
    for method in ("exact", "acdc", "eap-ig", "edge-pruning"):
        figures = [float(figure) for figure in table[method].values()][:-1]
        assert sum(figure == 1.0 for figure in figures) >= 4, method
        assert min(figures) >= 0.95, method


def test_trained_circuits_are_found() -> None:
    table = tables()["AUROC over edges, trained models"]
    assert max(float(figures["mean"]) for figures in table.values()) >= 0.98
    assert float(table["eap-ig"]["mean"]) >= 0.95
