"""Reading contrastive pairs from CSV and JSON files, as text.

A CSV file has a header and the columns `clean`, `corrupt`, `answer` and `wrong_answer` (also
`corrupted`, `answers`, `wrong_answers`). Several answers are separated by `|`; spaces count, so
that " she" is the word after a space. Two kinds of further columns mean something:

- `label:S2` names a position. A whole number is a token index (BOS included; negative counts from
  the end). Anything else is a word or phrase of the clean prompt, whose last token is meant; where
  it occurs several times, `John#2` is the second one. A number that is meant as text is `13#1`.
- `held_out` (true or false) keeps a pair for the final check.

Every other column becomes a variation, by which results can be broken down.

A JSON file holds the same as a list of objects with the keys `clean`, `corrupt`, `answers`,
`wrong_answers` (a string or a list), `labels` (an object), `held_out` and `variation` (an object);
or an object with these under `pairs` and optionally `name`, `description` and `metric`.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from cutaway.behaviours.align import Mark, Pair
from cutaway.behaviours.problems import Problems
from cutaway.behaviours.provenance import file_origin
from cutaway.errors import BehaviourError

_ALIASES = {
    "clean": ("clean",),
    "corrupt": ("corrupt", "corrupted"),
    "answer": ("answer", "answers"),
    "wrong_answer": ("wrong_answer", "wrong_answers"),
}
_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """What a file says."""

    pairs: list[Pair]
    """The rows that could be read."""
    name: str
    """The behaviour's name."""
    description: str
    """One sentence about it."""
    metric: str | None
    """The metric the file asks for, if it does."""
    provenance: Mapping[str, object]
    """What was read: its kind, the file's name and hash."""


def read_csv(path: Path, problems: Problems, columns: Mapping[str, str] | None = None) -> Sheet:
    """The pairs of a CSV file; what is wrong with single rows goes to `problems`.

    `columns` says which column serves as `clean`, `corrupt`, `answer` or `wrong_answer`. Raises
    `BehaviourError` for a file that cannot be read, lacks columns or has no row.
    """
    reader = csv.reader(io.StringIO(_text(path), newline=""))
    try:
        header = [cell.strip() for cell in next(reader, [])]
        rows = [row for row in reader if row]
    except csv.Error as error:
        raise BehaviourError(f"{path} is not a CSV file that can be read: {error}.") from error
    place = _columns(path, header, columns or {})
    if not rows:
        raise BehaviourError(f"{path} has a header and 0 rows; give at least one pair.")
    pairs: list[Pair] = []
    for number, row in enumerate(rows, start=1):
        before = len(problems.found)
        if len(row) != len(header):
            problems.add(
                number,
                "row",
                f"it has {len(row)} cells where the header has {len(header)}; "
                f"put text that contains commas in quotes",
            )
            continue
        cells = dict(zip(header, row, strict=True))
        for field, column in place.items():
            if is_missing(cells[column]):
                problems.add(
                    number, field, f"the cell is empty or NaN ({cells[column]!r}); fill it"
                )
        pair = _csv_pair(number, cells, place, problems)
        if len(problems.found) == before:
            pairs.append(pair)
    return Sheet(
        pairs=pairs,
        name=path.stem,
        description=f"Pairs from {path.name}.",
        metric=None,
        provenance=file_origin("csv", path),
    )


def read_json(path: Path, problems: Problems) -> Sheet:
    """The pairs of a JSON file; what is wrong with single rows goes to `problems`."""
    try:
        document: Any = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise BehaviourError(f"{path} is not valid JSON: {error}.") from error
    top: dict[str, Any] = document if isinstance(document, dict) else {"pairs": document}
    rows = top.get("pairs")
    if not isinstance(rows, list) or not rows:
        raise BehaviourError(
            f"{path} must hold a list of pairs with at least one entry, or an object with such a "
            f"list under 'pairs'; found {type(rows).__name__ if rows != [] else '0 pairs'}."
        )
    pairs: list[Pair] = []
    for number, row in enumerate(cast("list[Any]", rows), start=1):
        before = len(problems.found)
        pair = _json_pair(number, row, problems)
        if pair is not None and len(problems.found) == before:
            pairs.append(pair)
    return Sheet(
        pairs=pairs,
        name=str(top.get("name") or path.stem),
        description=str(top.get("description") or f"Pairs from {path.name}."),
        metric=top.get("metric"),
        provenance=file_origin("json", path),
    )


def is_missing(cell: object) -> bool:
    """Whether a cell holds nothing, or what spreadsheets and pandas write for nothing."""
    if isinstance(cell, str):
        return cell.strip() in ("", "nan", "NaN", "NAN", "#N/A")
    return cell is None or cell != cell


def _text(path: Path) -> str:
    """The file's text without its byte-order mark."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise BehaviourError(
            f"The file {path} cannot be read ({error.strerror}); check the path."
        ) from error
    except UnicodeDecodeError as error:
        raise BehaviourError(
            f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8."
        ) from error


def _columns(path: Path, header: list[str], given: Mapping[str, str]) -> dict[str, str]:
    """The header's column for each of our four fields, or one error about the whole header."""
    unknown = [field for field in given if field not in _ALIASES]
    if unknown:
        raise BehaviourError(
            f"columns= can map {', '.join(_ALIASES)}; found {', '.join(map(repr, unknown))}."
        )
    names = {field: (given[field],) if field in given else _ALIASES[field] for field in _ALIASES}
    place = {
        field: next(name for name in wanted if name in header)
        for field, wanted in names.items()
        if any(name in header for name in wanted)
    }
    missing = [names[field][0] for field in _ALIASES if field not in place]
    if missing:
        raise BehaviourError(
            f"{path} lacks the column{'s' * (len(missing) > 1)} "
            f"{', '.join(map(repr, missing))}; it has {', '.join(map(repr, header)) or 'none'}. "
            f"A CSV file of pairs begins with clean,corrupt,answer,wrong_answer."
        )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice or "" in header:
        what = f"the column {twice[0]!r} twice" if twice else "a column without a name"
        raise BehaviourError(f"{path} has {what}; give every column a name of its own.")
    return place


def _csv_pair(
    number: int, cells: Mapping[str, str], place: Mapping[str, str], problems: Problems
) -> Pair:
    """One row of a CSV file."""
    labels: dict[str, Mark] = {}
    variation: dict[str, str] = {}
    for column, cell in cells.items():
        if column.startswith("label:"):
            labels[column.removeprefix("label:").strip()] = _mark(number, column, cell, problems)
        elif column not in place.values() and column != "held_out":
            variation[column] = cell
    return Pair(
        row=number,
        clean=cells[place["clean"]],
        corrupt=cells[place["corrupt"]],
        answers=_split(number, "answer", cells[place["answer"]], problems),
        wrong_answers=_split(number, "wrong_answer", cells[place["wrong_answer"]], problems),
        labels=labels,
        corrupt_labels=None,
        variation=variation,
        held_out=_truth(number, cells.get("held_out", "false"), problems),
        explicit=False,
    )


def _json_pair(number: int, row: Any, problems: Problems) -> Pair | None:
    """One entry of a JSON file, or None after noting why not."""
    if not isinstance(row, dict):
        problems.add(number, "pair", f"it must be an object; found {type(row).__name__}")
        return None
    entry = cast("dict[str, Any]", row)
    found: dict[str, Any] = {}
    for field, names in _ALIASES.items():
        value = next((entry[name] for name in names if name in entry), None)
        listed = value if isinstance(value, list) and "answer" in field else [value]
        texts = cast("list[Any]", listed)
        if not texts or any(is_missing(text) or not isinstance(text, str) for text in texts):
            problems.add(number, field, f"it must be text and not empty; found {value!r}")
            continue
        found[field] = tuple(texts) if "answer" in field else texts[0]
    marks = cast("dict[str, Any]", entry.get("labels") or {})
    labels = {name: _mark(number, f"label:{name}", mark, problems) for name, mark in marks.items()}
    variation = cast("dict[str, Any]", entry.get("variation") or {})
    held_out = _truth(number, entry.get("held_out", False), problems)
    if len(found) < len(_ALIASES):
        return None
    return Pair(
        row=number,
        clean=found["clean"],
        corrupt=found["corrupt"],
        answers=found["answer"],
        wrong_answers=found["wrong_answer"],
        labels=labels,
        corrupt_labels=None,
        variation={name: str(value) for name, value in variation.items()},
        held_out=held_out,
        explicit=False,
    )


def _split(number: int, field: str, cell: str, problems: Problems) -> tuple[str, ...]:
    """The answers of a cell."""
    parts = tuple(cell.split("|"))
    if len(parts) > 1 and any(is_missing(part) for part in parts):
        problems.add(number, field, f"{cell!r} has an empty answer beside a '|'; remove the '|'")
    return parts


def _mark(number: int, column: str, cell: Any, problems: Problems) -> Mark:
    """A label's cell as a token index or a piece of text."""
    if isinstance(cell, bool) or not isinstance(cell, str | int) or is_missing(cell):
        problems.add(number, column, f"it must be a word or a token index; found {cell!r}")
        return 0
    if isinstance(cell, int):
        return cell
    stripped = cell.strip()
    return int(stripped) if stripped.lstrip("-").isdecimal() else stripped


def _truth(number: int, cell: Any, problems: Problems) -> bool:
    """A held_out cell."""
    value = _TRUTH.get(str(cell).strip().lower())
    if value is None:
        problems.add(number, "held_out", f"it must be true or false; found {cell!r}")
    return bool(value)
