"""Files that are whole or not there: how a study writes.

Whatever is written goes beside its final name first (`.name.part`), is flushed to the disk and then
moved into place, so that a kill at any moment leaves the old file or the new one.

A stage's result is a `cutaway.measure.Result` and becomes `STAGE.nc`, or a dataclass of several and
becomes `STAGE.FIELD.nc` for each; every file can be read by itself (`Effects.load(path)`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

from cutaway.errors import CutawayError, StudyError
from cutaway.measure import Result


class DamagedFileError(StudyError):
    """A file of the study that cannot be read back, or is not what was saved."""

    def __init__(self, sentence: str, path: Path) -> None:
        super().__init__(sentence)
        self.path = path


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then move it there; nothing is left when it fails."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.unlink(missing_ok=True)
        write(part)
        with part.open("rb") as handle:
            os.fsync(handle.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: object) -> None:
    """A JSON file, whole or not at all."""
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    replace_file(path, lambda part: part.write_text(text, encoding="utf-8"))


def sha256(path: Path) -> str:
    """The hash of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def save_parts(stage: str, result: Any, directory: Path) -> dict[str, str]:
    """Write a stage's result, one file per `Result` in it; gives each file's hash by its name."""
    hashes: dict[str, str] = {}
    for name, part in _parts(stage, result).items():
        path = directory / name
        replace_file(path, part.save)
        hashes[name] = sha256(path)
    return hashes


def load_parts(stage: str, kind: type[Any], directory: Path) -> Any:
    """Read what `save_parts` wrote; raises `DamagedFileError` when a file cannot be read."""
    if issubclass(kind, Result):
        return _load(kind, directory / f"{stage}.nc")
    hints = get_type_hints(kind)
    return kind(
        **{
            field.name: _load(hints[field.name], directory / f"{stage}.{field.name}.nc")
            for field in fields(kind)
        }
    )


def _parts(stage: str, result: Any) -> dict[str, Result]:
    if isinstance(result, Result):
        return {f"{stage}.nc": result}
    return {f"{stage}.{field.name}.nc": getattr(result, field.name) for field in fields(result)}


def _load(kind: type[Result], path: Path) -> Result:
    try:
        return kind.load(path)
    except (CutawayError, OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedFileError(f"{path} cannot be read: {error}", path) from error
