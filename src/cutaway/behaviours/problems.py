"""Everything that is wrong with one input, reported together.

Reading a file or aligning it with a tokenizer collects `Problem`s instead of stopping at the
first, and raises one `ProblemsError` at the end. Its message shows the first few and counts the
rest; its `problems` holds all of them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from cutaway.errors import BehaviourError

_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong with one field of one row."""

    row: int | None
    """The row it is in, the first pair being row 1; None for the input as a whole."""
    field: str
    """The column or field it is in."""
    message: str
    """What was found, what was expected and what to do, without the row and the field."""

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.row is None else self._in_row()

    def _in_row(self) -> str:
        return f"row {self.row}, {self.field}: {self.message}"


class ProblemsError(BehaviourError):
    """An input with one problem or several; `problems` holds them all."""

    def __init__(self, source: str, problems: tuple[Problem, ...]) -> None:
        self.problems = problems
        super().__init__(_message(source, problems))


@dataclass(kw_only=True)
class Problems:
    """A list of problems that grows while an input is read."""

    source: str
    """What is being read, as it appears in the message."""
    found: list[Problem] = field(default_factory=list[Problem])
    """The problems so far."""

    def add(self, row: int | None, name: str, message: str) -> None:
        """Note one problem."""
        self.found.append(Problem(row=row, field=name, message=message))

    @property
    def rows(self) -> set[int]:
        """The rows that have a problem."""
        return {problem.row for problem in self.found if problem.row is not None}

    def raise_if_any(self) -> None:
        """Raise one `ProblemsError` with all of them, sorted by row."""
        if self.found:
            ordered = sorted(self.found, key=lambda problem: problem.row or 0)
            raise ProblemsError(self.source, tuple(ordered))


def _message(source: str, problems: tuple[Problem, ...]) -> str:
    """One line for a single problem; a heading and a list for several."""
    if len(problems) == 1:
        return f"{source} cannot be used: {problems[0]}."
    rows = len({problem.row for problem in problems})
    where = f" in {rows} rows" if rows > 1 else ""
    lines = [f"{source} cannot be used; it has {len(problems)} problems{where}:"]
    lines += [f"  {problem}" for problem in problems[:_SHOWN]]
    rest = Counter(problem.field for problem in problems[_SHOWN:])
    if rest:
        counts = ", ".join(f"{count} in {name}" for name, count in rest.items())
        lines.append(f"  … and {rest.total()} more ({counts})")
    return "\n".join(lines)
