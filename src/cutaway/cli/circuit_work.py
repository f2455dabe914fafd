"""The directory of `cutaway circuit`: stages that are kept, and computed again when they must be.

`circuits.json` says whose work the directory holds (model, behaviour) and, for each finished stage,
the hash of all that decides it (its settings, and the files of earlier stages that it reads) and
the hashes of the files it wrote. A stage whose hashes still hold is read back; any other is
computed. It is written, whole, whenever a stage is finished, so that a kill loses no more than the
stage at work; and of that, discovery keeps what it has done in a journal of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from cutaway.cli.bars import Bars
from cutaway.errors import CutawayError
from cutaway.measure.lock import DirectoryLock
from cutaway.study.saving import sha256, write_json

RECORD = "circuits.json"
_FORMAT = 1

T = TypeVar("T")


class WorkError(CutawayError):
    """A directory that cannot be used for circuits."""


class Work:
    """A directory, held by this process until `close`; see the module."""

    def __init__(self, directory: Path, whose: Mapping[str, str], bars: Bars) -> None:
        """Claim a directory that `check_directory` let pass."""
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        """Where everything is."""
        self._lock = DirectoryLock(directory)
        if not self._lock.held:
            raise WorkError(
                f"Another process is at work in {directory}; wait until it has finished, or name "
                "another directory (--out)."
            )
        self._whose, self._bars = dict(whose), bars
        self._stages: dict[str, Any] = _read(directory).get("stages", {})

    def close(self) -> None:
        """Let others in; a directory in which nothing was finished is taken away."""
        if not any(self.directory.iterdir()):
            self.directory.rmdir()
        self._lock.release()

    def stage(
        self,
        name: str,
        title: str,
        *,
        settings: Mapping[str, object],
        files: Mapping[str, Callable[[Path, T], object]],
        load: Callable[[Path], T],
        compute: Callable[[], T],
    ) -> T:
        """A stage's result: read back when it is there and still the same, else computed.

        `files` says, by name, how each of its files is written; `load` reads the first.
        """
        inputs = hashlib.sha256(
            json.dumps(settings, sort_keys=True, default=str).encode()
        ).hexdigest()
        paths = {file: self.directory / file for file in files}
        if self._is_done(name, inputs, paths):
            self._bars.finished(name, title, kept=True, seconds=0)
            return load(next(iter(paths.values())))
        self._bars.started(name, title)
        began = time.perf_counter()
        result = compute()
        for file, write in files.items():
            write(paths[file], result)
        hashes = {file: sha256(path) for file, path in paths.items()}
        self._stages[name] = {"inputs": inputs, "files": hashes}
        self._write()
        self._bars.finished(name, title, kept=False, seconds=time.perf_counter() - began)
        return result

    def remove(self, name: str) -> None:
        """Take away a stage that this run does not have, with its files."""
        stage = self._stages.pop(name, None)
        if stage is not None:
            self._write()
            for file in stage["files"]:
                (self.directory / file).unlink(missing_ok=True)

    def others(self, methods: Collection[str]) -> list[str]:
        """Methods besides these whose files an earlier run has left: kept, as they took time."""
        found = dict.fromkeys(name.split("/")[0] for name in self._stages if "/" in name)
        return [method for method in found if method not in methods]

    def _write(self) -> None:
        record = {"format": _FORMAT, **self._whose, "stages": self._stages}
        write_json(self.directory / RECORD, record)

    def hash_of(self, name: str) -> str:
        """What stands for a finished stage among the settings of one that reads it."""
        return json.dumps(self._stages[name]["files"], sort_keys=True)

    def _is_done(self, name: str, inputs: str, paths: Mapping[str, Path]) -> bool:
        record = self._stages.get(name, {"inputs": "", "files": {}})
        return record["inputs"] == inputs and all(
            path.is_file() and sha256(path) == record["files"].get(file)
            for file, path in paths.items()
        )


def check_directory(directory: Path) -> None:
    """Refuse a directory that cannot be written, or holds something else; leaves no trace."""
    made = [each for each in (*reversed(directory.parents), directory) if not each.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / f".{os.getpid()}.part"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise WorkError(
            f"{directory} cannot be written ({error.strerror or error}); name another directory "
            "with --out."
        ) from error
    finally:
        for each in reversed(made):
            if each.is_dir():
                each.rmdir()
    if directory.is_dir():
        _read(directory)


def check_whose(directory: Path, whose: Mapping[str, str]) -> None:
    """Refuse the directory of another model's or behaviour's circuits."""
    found = _read(directory)
    for what, mine in whose.items():
        if found and found[what] != mine:
            raise WorkError(
                f"{directory} holds the circuits of another {what} ({found[what]}, and this is "
                f"{mine}); name another directory with --out."
            )


def _read(directory: Path) -> dict[str, Any]:
    """What the record says; nothing where there is no directory, or an empty one."""
    path = directory / RECORD
    if not path.is_file():
        others = sorted(
            entry.name for entry in directory.glob("*")
            if not entry.name.startswith(".") and ".unfinished-" not in entry.name
        )  # fmt: skip
        if others:
            raise WorkError(
                f"{directory} holds other files ({others[0]}, …) and no {RECORD}; name a new or an "
                "empty directory with --out."
            )
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        assert found["format"] == _FORMAT
        assert all(set(one) == {"inputs", "files"} for one in found["stages"].values())
        return {"model": str(found["model"]), "behaviour": str(found["behaviour"]), **found}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise WorkError(
            f"{path} is damaged or of another version of Cutaway; name another directory with "
            "--out."
        ) from error
