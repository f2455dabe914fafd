"""Files that are whole or not there: how a study writes.

Whatever is written goes beside its final name first (`.name.part.nc`), is flushed to the disk and
then moved into place, so that a kill at any moment leaves the old file or the new one.

A stage's result is a `cutaway.measure.Result` and becomes `STAGE.nc`, or a dataclass of several and
becomes `STAGE.FIELD.nc` for each; every file can be read by itself (`Effects.load(path)`). Fields
that are not arrays but can save themselves too, such as a circuit, become `STAGE.FIELD.json`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol, Self, get_type_hints

from cutaway.errors import CutawayError, StudyError
from cutaway.measure import Result


class Saved(Protocol):
    """What writes itself into one file and reads itself back."""

    def save(self, path: Path, /) -> Path:
        """Write one file."""
        ...

    @classmethod
    def load(cls, path: Path, /) -> Self:
        """Read what `save` wrote."""
        ...


class DamagedFileError(StudyError):
    """A file of the study that cannot be read back, or is not what was saved."""

    def __init__(self, sentence: str, path: Path) -> None:
        super().__init__(sentence)
        self.path = path


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then move it there; nothing is left when it fails."""
    # formats are told by how a name ends
    part = path.with_name(f".{path.stem}.part{path.suffix}")
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


def check_files(directory: Path, files: Mapping[str, str]) -> None:
    """Raise `DamagedFileError` for a file that is gone or no longer what was saved.

    `files` holds each one's hash by its name.
    """
    for name, expected in files.items():
        path = directory / name
        if not path.exists():
            raise DamagedFileError(f"{path} is gone", path)
        if sha256(path) != expected:
            raise DamagedFileError(f"{path} is not what was saved", path)


def save_parts(stage: str, result: Any, directory: Path) -> dict[str, str]:
    """Write a stage's result, one file per part of it; gives each file's hash by its name."""
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
            field.name: _load(
                hints[field.name], directory / _name(stage, field.name, hints[field.name])
            )
            for field in fields(kind)
        }
    )


def _parts(stage: str, result: Any) -> dict[str, Saved]:
    if isinstance(result, Result):
        return {f"{stage}.nc": result}
    values = {field.name: getattr(result, field.name) for field in fields(result)}
    return {_name(stage, name, type(value)): value for name, value in values.items()}


def _name(stage: str, field: str, kind: type[Any]) -> str:
    return f"{stage}.{field}.{'nc' if issubclass(kind, Result) else 'json'}"


def _load(kind: type[Saved], path: Path) -> Saved:
    try:
        return kind.load(path)
    except (CutawayError, OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedFileError(f"{path} cannot be read: {error}", path) from error
