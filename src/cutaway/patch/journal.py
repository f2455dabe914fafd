"""A journal of one long sweep's finished work: what a kill leaves, and the next run goes on from.

The file is `_MAGIC` and then records, only ever appended:

    length (8 bytes) · crc32 of the body (4 bytes) · body

A body is a line of JSON, and behind it the arrays that the line names, as they lie in memory. The
first record says whose work this is (`identity`: model, behaviour, settings, versions); a setting
that the first run chose and a later run must work under too is a record (`settle`), and so is
every finished piece of work (`keep`).

1. Each record is given to the operating system before `keep` returns, so that a killed process
   loses nothing; it is forced to the disk twice a second, so that a power cut loses no more.
2. On opening, records are read until one is incomplete or does not fit its checksum. The file is
   cut off there: what comes behind is not known to be whole, and is computed again.
3. When the disk is full, the half record is taken back and one sentence says so.

Where rounding depends on how work is grouped, the keys name the groups, so that a finished piece
stands for exactly what would be computed now. What the identity does not hold (the number of
threads, the machine) may differ between runs by rounding.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Self

import numpy as np

from cutaway.errors import CutawayError
from cutaway.measure.lock import locked

_MAGIC = b"cutaway journal 1\n"
_FRAME = struct.Struct("<QI")
_FORCE_EVERY = 0.5
_PLAIN = "biufc"
"""Kinds of numpy arrays that are their bytes: numbers and truth values."""


class JournalError(CutawayError):
    """A journal that cannot be used: another process has it, it is not ours, the disk is full."""


class _Place(NamedTuple):
    """Where a record's arrays lie in the file."""

    offset: int
    named: Mapping[str, Any]


class Journal:
    """Finished work of one sweep, on disk. Close it, or use it in a `with`."""

    def __init__(
        self, path: str | Path, identity: Mapping[str, object], *,
        first: Mapping[str, object] | None = None,
    ) -> None:  # fmt: skip
        """Open the journal at `path`, or begin it there.

        `identity` (JSON values) says whose work it holds; `first` are settings of the first run,
        see `settle`. Raises `JournalError` when another process works on it, when it holds other
        work or is no journal, and when it cannot be written.
        """
        self.path = Path(path)
        """The file."""
        self.identity = _as_read(identity)
        """Whose work it holds, as JSON gives it back."""
        self.settings: dict[str, Any] = {}
        """What `settle` settled, in this run or an earlier one."""
        self._places: dict[str, _Place] = {}
        self._forced = time.monotonic()
        self._file = self._open()
        try:
            self._read()
            for name, value in (first or {}).items():
                self.settle(name, value)
        except BaseException:
            self._file.close()
            raise
        self.resumed = len(self._places)
        """How many pieces of work were finished by earlier runs."""

    @classmethod
    def beside(cls, target: str | Path, identity: Mapping[str, object]) -> Self:
        """The journal of the work that will be saved as `target`.

        Its name holds a hash of the identity, so that different sweeps never meet.
        """
        whole = Path(target)
        return cls(whole.with_name(f"{whole.name}.unfinished-{_hash(identity)}"), identity)

    @property
    def count(self) -> int:
        """How many pieces of work are finished."""
        return len(self._places)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def check(self, identity: Mapping[str, object]) -> None:
        """Refuse to serve other work than this journal's."""
        if _as_read(identity) != self.identity:
            raise JournalError(
                f"The journal {self.path} is of other work than this; open one for this work "
                "(Journal.beside)."
            )

    def settle(self, name: str, value: object) -> Any:
        """The value under which the work was begun: `value`, or what the first run settled.

        It has to be a JSON value, and comes back as JSON reads it.
        """
        if name not in self.settings:
            self._append({"setting": name, "value": value})
            self.settings[name] = _as_read(value)
        return self.settings[name]

    def finished(self, key: str) -> dict[str, np.ndarray] | None:
        """The arrays that were kept under `key`; None when that work is not finished."""
        place = self._places.get(key)
        if place is None:
            return None
        offset, found = place.offset, dict[str, np.ndarray]()
        for name, (kind, shape) in place.named.items():
            dtype = np.dtype(kind)
            size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
            found[name] = np.frombuffer(self._at(offset, size), dtype).reshape(shape).copy()
            offset += size
        return found

    def keep(self, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep a finished piece of work: arrays of numbers by name. A key is kept once."""
        assert key not in self._places, f"{key} is kept already"
        assert all(array.dtype.kind in _PLAIN for array in arrays.values())
        named = {name: (array.dtype.str, array.shape) for name, array in arrays.items()}
        data = [np.ascontiguousarray(array).tobytes() for array in arrays.values()]
        offset = self._append({"key": key, "arrays": named}, data)
        self._places[key] = _Place(offset, named)

    def close(self) -> None:
        """Force what was kept to the disk, and let other processes in."""
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()

    def remove(self) -> None:
        """Close the journal and delete it: the result is saved elsewhere."""
        self.close()
        self.path.unlink(missing_ok=True)

    # ── the file ─────────────────────────────────────────────────────────────────────────────

    def _open(self) -> BinaryIO:
        """The file, locked; begun when there is none."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            while True:
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0))
                file = os.fdopen(descriptor, "r+b", buffering=0)
                if not locked(descriptor):
                    file.close()
                    raise JournalError(
                        f"Another process is at work on {self.path}; wait until it has finished, "
                        "or save under another name."
                    )
                # the process that had it may have removed it just now
                if self.path.exists() and os.path.samestat(os.fstat(descriptor), self.path.stat()):
                    return file
                file.close()
        except OSError as error:
            raise self._unwritable(error) from error

    def _read(self) -> None:
        """Read every whole record, and cut off what follows the last."""
        head = self._file.read(len(_MAGIC))
        if head != _MAGIC:
            if not _MAGIC.startswith(head):
                raise JournalError(
                    f"{self.path} is not a journal of Cutaway; move it away, or save under another "
                    "name."
                )
            self._cut(0)
            self._write(_MAGIC)
        end = len(_MAGIC)
        for offset, stop, line in self._records():
            self._take(line, offset)
            end = stop
        self._cut(end)
        if end == len(_MAGIC):
            self._append({"identity": self.identity})

    def _records(self) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """Each whole record's line, where its arrays begin and where it ends."""
        size, at = os.fstat(self._file.fileno()).st_size, len(_MAGIC)
        while at + _FRAME.size <= size:
            length, checksum = _FRAME.unpack(self._at(at, _FRAME.size))
            at += _FRAME.size
            if at + length > size:
                return
            body = self._at(at, length)
            if zlib.crc32(body) != checksum:
                return
            line = body[: body.index(b"\n") + 1]
            yield at + len(line), at + length, json.loads(line)
            at += length

    def _take(self, line: dict[str, Any], offset: int) -> None:
        """Know what a record says."""
        if "identity" in line and line["identity"] != self.identity:
            raise JournalError(
                f"{self.path} holds other unfinished work (another model, behaviour, setting or "
                "version); save under another name, or delete it."
            )
        if "setting" in line:
            self.settings[line["setting"]] = line["value"]
        if "key" in line:
            self._places[line["key"]] = _Place(offset, line["arrays"])

    def _append(self, line: Mapping[str, object], data: Sequence[bytes] = ()) -> int:
        """Write a record; gives where its arrays begin."""
        text = json.dumps(line).encode() + b"\n"
        body = b"".join([text, *data])
        start = self._file.seek(0, os.SEEK_END)
        try:
            self._write(_FRAME.pack(len(body), zlib.crc32(body)) + body)
            if time.monotonic() - self._forced > _FORCE_EVERY:
                os.fsync(self._file.fileno())
                self._forced = time.monotonic()
        except OSError as error:
            self._cut(start)
            raise self._unwritable(error) from error
        return start + _FRAME.size + len(text)

    def _write(self, data: bytes) -> None:
        """Write all of it: one call to the operating system may take only a part."""
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]

    def _at(self, offset: int, length: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(length)

    def _cut(self, end: int) -> None:
        """End the file here."""
        self._file.truncate(end)
        self._file.seek(end)

    def _unwritable(self, error: OSError) -> JournalError:
        kept = (
            " What was kept before is not lost: the same command goes on from there."
            if self._places
            else ""
        )
        return JournalError(
            f"Finished work cannot be kept in {self.path} ({error.strerror or error}); make room "
            f"or name another place.{kept}"
        )


def _as_read(value: Any) -> Any:
    """A JSON value as it will be read back: tuples are lists, keys are text."""
    return json.loads(json.dumps(value))


def _hash(identity: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
