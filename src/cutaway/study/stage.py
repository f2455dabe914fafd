"""A stage: one step of the method, from typed inputs to a result that is saved.

A stage names the results it needs and the settings it reads; it is computed again exactly when the
fingerprint of its inputs (model, behaviour, these settings, the files of these results) is not the
one it was saved with. A stage that the inputs do not allow is skipped with a sentence, and so is
what needs it; the report says so in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from cutaway.behaviours import Behaviour
from cutaway.errors import StudyError
from cutaway.model import Model
from cutaway.study.settings import Settings

Result = TypeVar("Result")


class SkippedError(StudyError):
    """Raised by a stage that these inputs do not allow; its sentence is what the report says."""


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """What stands in the place of a stage's result when the stage was skipped."""

    stage: str
    """The stage's name."""
    reason: str
    """Why, in one sentence."""


Tick = Callable[[int, int], None]
"""Called as work advances, with how much is done and how much there is."""


_FINE = 1000


def within(tick: Tick, part: int, parts: int) -> Tick:
    """Progress of one of several parts of a stage, each counted as the same share of it."""
    return lambda done, total: tick(part * _FINE + done * _FINE // total, parts * _FINE)


class Progress(Protocol):
    """What follows a study as it runs; the command line draws bars."""

    def started(self, name: str, title: str) -> None:
        """A stage begins to be computed."""
        ...

    def advanced(self, done: int, total: int) -> None:
        """The running stage has done `done` of `total` steps."""
        ...

    def finished(self, name: str, title: str, *, kept: bool, seconds: float) -> None:
        """A stage is there: computed just now, or `kept` from an earlier run."""
        ...

    def noted(self, sentence: str) -> None:
        """Something worth telling, such as a damaged file that was put aside."""
        ...


class Silent:
    """Progress that nobody watches."""

    def started(self, name: str, title: str) -> None:
        """Say nothing."""

    def advanced(self, done: int, total: int) -> None:
        """Say nothing."""

    def finished(self, name: str, title: str, *, kept: bool, seconds: float) -> None:
        """Say nothing."""

    def noted(self, sentence: str) -> None:
        """Say nothing."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a stage computes from."""

    model: Model
    """The opened model."""
    behaviour: Behaviour
    """Its examples."""
    settings: Settings
    """How much to measure."""
    results: tuple[object, ...]
    """The results of the stages it needs."""
    origin: Mapping[str, Any]
    """The study's provenance, as its manifest has it."""
    tick: Tick
    """To be called as work advances."""

    def of(self, kind: type[Result]) -> Result:
        """The result of the needed stage whose results have this type."""
        for result in self.results:
            if isinstance(result, kind):
                return result
        raise StudyError(f"This stage was not given a {kind.__name__}; list its stage in needs.")

    def skipped(self, stage: str) -> Skipped | None:
        """What stands for a needed stage that was skipped; None when it was not."""
        found = (one for one in self.results if isinstance(one, Skipped) and one.stage == stage)
        return next(found, None)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One entry of the plan."""

    name: str
    """What `stages=` and the manifest call it."""
    title: str
    """What a person reads while it runs."""
    needs: tuple[str, ...]
    """The stages whose results it reads."""
    reads: tuple[str, ...]
    """The settings it reads, besides the seed."""
    alone: bool = False
    """Whether it also runs when a stage that it needs was skipped."""
    compute: Callable[[Inputs], Any]
    """From inputs to result."""
    save: Callable[[Any, Path], Mapping[str, str]]
    """Write a result into the study's directory; gives each file's hash by its name."""
    load: Callable[[Path], Any]
    """Read it back from there."""
