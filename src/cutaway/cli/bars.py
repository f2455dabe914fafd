"""A study's progress as bars on standard error."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)


class Bars:
    """One bar per stage; satisfies `cutaway.study.Progress`."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self._bars = Progress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=32),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=self.console,
        )
        self._running: TaskID | None = None

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        self._bars.stop()

    def started(self, name: str, title: str) -> None:
        """Begin a bar."""
        self._running = self._bars.add_task(f"{title:<20}", total=None)

    def advanced(self, done: int, total: int) -> None:
        """Move it."""
        if self._running is not None:
            self._bars.update(self._running, completed=done, total=total)

    def finished(self, name: str, title: str, *, kept: bool, seconds: float) -> None:
        """Fill it, or say that the stage was kept."""
        if kept:
            self._running = self._bars.add_task(f"{title:<20} [dim]kept[/dim]", total=1)
        if self._running is not None:
            total = next(t.total for t in self._bars.tasks if t.id == self._running) or 1
            self._bars.update(self._running, completed=total, total=total)
        self._running = None

    def noted(self, sentence: str) -> None:
        """Print a sentence above the bars."""
        self.console.print(sentence, highlight=False, markup=False)
