"""The study's directory: claimed before any work, and never taken from another study or process."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from cutaway.errors import StudyError
from cutaway.measure.lock import DirectoryLock

MANIFEST = "study.json"


def check_output(out: Path) -> None:
    """Refuse a directory that could not be written or holds something else; leave no trace.

    Raises `StudyError` for a path that is a file, cannot be created or written, is a directory with
    other files in it than a study's, or one that another process is at work in.
    """
    made = claim(out)
    with alone(out):
        pass
    for directory in reversed(made):
        directory.rmdir()


def claim(out: Path) -> list[Path]:
    """Make the directory and prove that it can be written; gives the directories that were made."""
    made: list[Path] = []
    try:
        for directory in (*reversed(out.parents), out):
            if not directory.exists():
                directory.mkdir()
                made.append(directory)
        probe = out / f".{os.getpid()}.part"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        for directory in reversed(made):
            directory.rmdir()
        raise StudyError(
            f"The study cannot be written to {out} ({error.strerror or error}); name a directory "
            "that can be written."
        ) from error
    others = [entry.name for entry in out.iterdir() if not entry.name.startswith(".")]
    if others and not (out / MANIFEST).exists():
        raise StudyError(
            f"{out} holds other files ({sorted(others)[0]}, …) and no {MANIFEST}, so it is not a "
            "study's directory; name a new or an empty one."
        )
    return made


@contextmanager
def alone(directory: Path) -> Generator[None]:
    """Keep other processes out of a directory that exists; `StudyError` when one is in it."""
    lock = DirectoryLock(directory)
    if not lock.held:
        raise StudyError(
            f"Another process is at work on the study in {directory}; wait until it has finished, "
            "or name another directory (--out)."
        )
    try:
        yield
    finally:
        lock.release()


def free_beside(directory: Path) -> Path:
    """The first of `name-2`, `name-3`, … that there is not."""
    count = 2
    while (found := directory.with_name(f"{directory.name}-{count}")).exists():
        count += 1
    return found


def put_aside(path: Path) -> Path:
    """Rename a file or directory to the first free `name.old`, `name.old-2`, …; gives that."""
    target, count = path.with_name(f"{path.name}.old"), 1
    while target.exists():
        count += 1
        target = path.with_name(f"{path.name}.old-{count}")
    path.rename(target)
    return target


def clear_parts(directory: Path) -> None:
    """Remove the half-written files that a kill left."""
    for part in directory.glob(".*.part*"):
        part.unlink(missing_ok=True)
