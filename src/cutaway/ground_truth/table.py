"""A comparison with the truth as tables: printed, in a page of the documents, and as a file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from cutaway.ground_truth.cases import KINDS, GroundTruthError, kind_of
from cutaway.ground_truth.measured import Row
from cutaway.ground_truth.reported import Report

_SHOWN = {
    "edges": "AUROC over edges",
    "nodes": "AUROC over heads and MLPs",
    "precision": "Precision at the true size",
}
_TITLE = "{what}, {kind} models"
_COST = "Time and memory, mean over the models"
_SIZES = "Edges of the reported circuit ({what}), {kind} models"
_FAILS = "✗ where it does not pass"
_NULLS = "Circuits that pass, null cases"
_SEARCHED = "Circuits that were looked for, null cases"
_SUFFIXES = (".csv", ".json")


@dataclass(frozen=True, kw_only=True)
class GroundTruth:
    """Every method on every model, as far as it was measured."""

    rows: Sequence[Row]
    """One for each model and method."""
    reports: Sequence[Report] = ()
    """One for each case and method, when reported circuits were evaluated too."""
    provenance: Mapping[str, object] = field(repr=False)
    """Versions and settings."""

    @property
    def frame(self) -> pd.DataFrame:
        """The rows, with the model's `kind`."""
        found = pd.DataFrame([asdict(row) for row in self.rows])
        if len(found):
            found.insert(0, "kind", found["model"].map(kind_of))
        return found

    def tables(self) -> dict[str, pd.DataFrame]:
        """Every table by its title: methods down, models across, means last."""
        frame, found = self.frame, dict[str, pd.DataFrame]()
        for kind in KINDS:
            rows = frame[frame["kind"] == kind] if len(frame) else frame
            for figure, what in _SHOWN.items() if len(rows) else ():
                table = _across(rows, "model", figure)
                table["mean"] = table.mean(axis=1)
                found[_TITLE.format(what=what, kind=kind)] = table.map(_three)
        if len(frame):
            costs = frame.groupby("method", sort=False)[["seconds", "megabytes"]].mean()
            found[_COST] = costs.set_axis(["seconds", "MB above the model"], axis=1).map(_short)
        for kind in KINDS:
            of_kind = [report for report in self.reports if report.kind == kind]
            if of_kind:
                found[_SIZES.format(what=_FAILS, kind=kind)] = _sizes(of_kind)
        none = [report for report in self.reports if report.kind not in KINDS]
        if none:
            found[_NULLS] = _passed(none)
        if any(report.edges for report in none):
            found[_SEARCHED] = _searched(none)
        return found

    def text(self) -> str:
        """The tables as plain text."""
        blocks = [f"{title}\n{table.to_string()}" for title, table in self.tables().items()]
        return "\n\n".join(blocks)

    def markdown(self) -> str:
        """The tables as Markdown."""
        return "\n\n".join(
            f"**{title}**\n\n{_markdown(table)}" for title, table in self.tables().items()
        )

    def save(self, path: str | Path) -> Path:
        """Write every row: as CSV, or as JSON with the reports and where they came from.

        Raises:
            GroundTruthError: the file's name ends otherwise.
        """
        target = checked_file(path)
        if target.suffix.lower() == ".csv":
            text = self.frame.to_csv(index=False)
        else:
            reports = [asdict(report) | {"passed": report.passed} for report in self.reports]
            record = {
                "provenance": dict(self.provenance),
                "rows": json.loads(self.frame.to_json(orient="records", double_precision=10)),
                "reports": reports,
            }
            text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
        _written(target, text)
        return target


def checked_file(path: str | Path) -> Path:
    """A file's name, when it is one that `save` writes.

    Raises:
        GroundTruthError: it is not.
    """
    target = Path(path)
    if target.suffix.lower() not in _SUFFIXES or target.is_dir():
        raise GroundTruthError(
            f"The rows are written to a file that ends in {' or '.join(_SUFFIXES)}; found "
            f"{str(path)!r}."
        )
    return target


def into_page(page: Path, name: str, text: str) -> None:
    """Put text between the page's marks `<!-- begin NAME -->` and `<!-- end NAME -->`.

    Raises:
        GroundTruthError: the page lacks the marks.
    """
    before, after = _around(page, name)
    _written(page, f"{before}\n\n{text}\n\n{after}")


def check_page(page: Path, name: str) -> None:
    """Refuse a page without the marks, before the work. Raises as `into_page` does."""
    _around(page, name)


def _around(page: Path, name: str) -> tuple[str, str]:
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    if not page.is_file():
        raise GroundTruthError(
            f"There is no page {str(page)!r}; make a file with the lines {begin} and {end}."
        )
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, also, after = rest.partition(end)
    if not found or not also:
        raise GroundTruthError(
            f"The page {str(page)!r} does not say where the tables go; give it the lines {begin} "
            f"and {end}."
        )
    return before + begin, end + after


def _written(target: Path, text: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.part")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, target)


def _across(rows: pd.DataFrame, columns: str, values: str) -> pd.DataFrame:
    """Methods down and something across, each in the order of its first appearance."""
    table = rows.pivot_table(index="method", columns=columns, values=values, sort=False)
    return table.rename_axis(index=None, columns=None)


def _sizes(reports: Sequence[Report]) -> pd.DataFrame:
    """The size of each reported circuit; the first line is the true one's."""
    true = {report.case: str(report.true) for report in reports}
    lines: dict[str, dict[str, str]] = {"true edges": true}
    for report in reports:
        mark = "" if report.passed else " ✗"
        lines.setdefault(report.method, {})[report.case] = f"{report.edges or '–'}{mark}"
    return pd.DataFrame.from_dict(lines, orient="index").fillna("–")


def _passed(reports: Sequence[Report]) -> pd.DataFrame:
    """For each method, how many of each kind of null cases it passed in."""
    passed: dict[str, dict[str, list[bool]]] = {}
    for report in reports:
        of_method = passed.setdefault(report.method, {})
        for kind in (report.kind, "all"):
            of_method.setdefault(kind, []).append(report.passed)
    counts = {
        method: {kind: f"{sum(found)} of {len(found)}" for kind, found in of_method.items()}
        for method, of_method in passed.items()
    }
    kinds = [*dict.fromkeys(report.kind for report in reports), "all"]
    return pd.DataFrame.from_dict(counts, orient="index")[kinds].fillna("–")


def _searched(reports: Sequence[Report]) -> pd.DataFrame:
    """For each method, the circuits that it found in null cases, and how many pass which check."""
    lines: dict[str, dict[str, int]] = {}
    for method in dict.fromkeys(report.method for report in reports):
        found = [one for one in reports if one.method == method and one.edges]
        held = [{name for name, passed in one.checks.items() if passed} for one in found]
        lines[method] = {
            "found": len(found),
            "faithful": sum("faithful" in names for names in held),
            "and beyond random ones": sum(names >= {"faithful", "random"} for names in held),
            "and of a behaviour": sum(one.passed for one in found),
        }
    return pd.DataFrame.from_dict(lines, orient="index")


def _markdown(table: pd.DataFrame) -> str:
    head = ["method", *map(str, table.columns)]
    lines = [head, ["---"] * len(head)]
    lines += [[f"`{row[0]}`", *map(str, row[1:])] for row in table.itertuples()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _three(figure: float) -> str:
    return "–" if np.isnan(figure) else f"{figure:.3f}"


def _short(figure: float) -> str:
    return "–" if np.isnan(figure) else f"{figure:.2g}" if figure < 10 else f"{figure:.0f}"
