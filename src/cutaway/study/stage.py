"""A stage: one step of the method, from typed inputs to a result that is saved.

A stage names the results it needs and the settings it reads; it is computed again exactly when the
fingerprint of its inputs (model, behaviour, these settings, the files of these results) is not the
one it was saved with. A stage that the inputs do not allow is skipped with a sentence, and so is
what needs it; the report says so in its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from cutaway.behaviours import Behaviour
from cutaway.errors import StudyError
from cutaway.model import Model
from cutaway.study.saving import load_parts, save_parts
from cutaway.study.settings import Settings
from cutaway.views import Section

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
    results: Mapping[str, object]
    """The results of the stages it needs, by name; `Skipped` for one that was skipped, or that the
    plan does not have."""
    origin: Mapping[str, Any]
    """The study's provenance, as its manifest has it."""
    tick: Tick
    """To be called as work advances."""

    def of(self, kind: type[Result], stage: str | None = None) -> Result:
        """The result of the needed stage whose results have this type.

        `stage` names one where several needed ones give that type.
        """
        for name, result in self.results.items():
            if isinstance(result, kind) and stage in (None, name):
                return result
        raise StudyError(f"This stage was not given a {kind.__name__}; list its stage in needs.")

    def skipped(self, stage: str) -> Skipped | None:
        """What stands for a needed stage that was skipped; None when it was not."""
        found = self.results.get(stage)
        return found if isinstance(found, Skipped) else None


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
    section: Callable[[Any], Section] | None = None
    """The report's section about its result; None where the report has one already, or none."""
    version: str = ""
    """To be changed when `compute` is, so that what it gave before is not kept: a study sees that
    its inputs are the same, and cannot see that the function is another one."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z][\w-]*", self.name):
            raise StudyError(
                f"A stage's name is one word, which names its files; found {self.name!r}."
            )

    @classmethod
    def of(
        cls,
        name: str,
        title: str,
        compute: Callable[[Inputs], Result],
        result: type[Result],
        *,
        needs: Sequence[str] = (),
        reads: Sequence[str] = (),
        section: Callable[[Result], Section] | None = None,
        version: str = "",
    ) -> Self:
        """A stage from a function and the type of what it gives.

        The type is a `cutaway.measure.Result`, or a dataclass whose fields are; it is saved as
        `NAME.nc`, or as `NAME.FIELD.nc` for each (see `cutaway.study.saving`). The function finds
        the results of the stages in `needs` with `inputs.of(TYPE)`.
        """
        return cls(
            name=name, title=title, needs=tuple(needs), reads=tuple(reads), compute=compute,
            save=partial(save_parts, name), load=partial(load_parts, name, result),
            section=section, version=version,
        )  # fmt: skip
