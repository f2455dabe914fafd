"""Files that a command will write: refused before the work when they cannot be."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def check_writable(target: Path, option: str) -> None:
    """Refuse a file that cannot be written, naming the option that chose it."""
    from cutaway.errors import CutawayError

    if target.is_dir():
        raise CutawayError(f"{target} is a directory; {option} takes the file to write.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        probe = target.with_name(f".{target.name}.part")
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise CutawayError(
            f"{target} cannot be written ({error.strerror or error}); name another file with "
            f"{option}."
        ) from error


def check_picture(plot: str | None) -> None:
    """Refuse a picture that is no SVG file or cannot be written."""
    from pathlib import Path

    from cutaway.errors import CutawayError

    if plot is None:
        return
    if Path(plot).suffix.lower() != ".svg":
        raise CutawayError(f"--plot takes a file that ends in .svg; found {plot!r}.")
    check_writable(Path(plot), "--plot")
