"""What a study leaves: its results as values, and the directory that holds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cutaway.errors import StudyError
from cutaway.observe import Attribution
from cutaway.study.attention import Attention
from cutaway.study.blackbox import BlackBox
from cutaway.study.blackbox_flipped import Flips
from cutaway.study.blackbox_frequency import Frequency
from cutaway.study.blackbox_insertions import Insertions
from cutaway.study.discovery import Discovered
from cutaway.study.estimates import Estimated
from cutaway.study.evaluation import Evaluated
from cutaway.study.lens import Lenses
from cutaway.study.manifest import Manifest
from cutaway.study.patching import Patching
from cutaway.study.paths import Paths
from cutaway.study.roles import Roles
from cutaway.study.scrubbing import Scrubbing
from cutaway.study.stage import Skipped
from cutaway.study.tested import Hypotheses
from cutaway.study.verdict import RedTeam

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study, as far as it was run."""

    directory: Path
    """Where everything is saved."""
    manifest: Manifest
    """What `study.json` says."""
    results: Mapping[str, object]
    """Each stage's result by the stage's name; `Skipped` for one that was skipped."""
    computed: tuple[str, ...]
    """The stages that were computed in this run; the others were kept from an earlier one."""

    @property
    def blackbox(self) -> BlackBox:
        """The behaviour as measured from outside."""
        return self.of(BlackBox, "blackbox")

    @property
    def distractors(self) -> Insertions:
        """The same prompts with other text around them."""
        return self.of(Insertions, "distractors")

    @property
    def flips(self) -> Flips:
        """The smallest changes that flip the answer."""
        return self.of(Flips, "flips")

    @property
    def frequency(self) -> Frequency:
        """Whether the behaviour is stronger for common words."""
        return self.of(Frequency, "frequency")

    @property
    def lens(self) -> Lenses:
        """What each layer would answer."""
        return self.of(Lenses, "lens")

    @property
    def attribution(self) -> Attribution:
        """What each part adds to the logit difference."""
        return self.of(Attribution, "attribution")

    @property
    def patching(self) -> Patching:
        """What moving one activation between runs does."""
        return self.of(Patching, "patching")

    @property
    def estimates(self) -> Estimated:
        """What gradients say of every head and MLP, and how well they agree."""
        return self.of(Estimated, "estimates")

    @property
    def paths(self) -> Paths:
        """Along which paths the strongest heads work."""
        return self.of(Paths, "paths")

    @property
    def attention(self) -> Attention:
        """Where the strongest heads look."""
        return self.of(Attention, "attention")

    @property
    def roles(self) -> Roles:
        """What each head reads and writes."""
        return self.of(Roles, "roles")

    @property
    def hypotheses(self) -> Hypotheses:
        """What was claimed of heads and MLPs, tested."""
        return self.of(Hypotheses, "hypotheses")

    @property
    def discovery(self) -> Discovered:
        """The smallest circuit that keeps the behaviour."""
        return self.of(Discovered, "discovery")

    @property
    def evaluation(self) -> Evaluated:
        """What the circuit is worth on held-out prompts."""
        return self.of(Evaluated, "evaluation")

    @property
    def scrubbing(self) -> Scrubbing:
        """A hypothesis about the behaviour, tested."""
        return self.of(Scrubbing, "scrubbing")

    @property
    def redteam(self) -> RedTeam:
        """What was tried against the finding."""
        return self.of(RedTeam, "redteam")

    @property
    def report(self) -> Path:
        """The report's file."""
        return self.of(Path, "report")

    def of(self, kind: type[Result], stage: str) -> Result:
        """The result of a stage, one's own too, checked to have this type.

        Raises `StudyError` for a stage that was skipped or not run.
        """
        found = self.results.get(stage)
        if isinstance(found, Skipped):
            raise StudyError(f"The stage {stage!r} was skipped: {found.reason}")
        if not isinstance(found, kind):
            raise StudyError(
                f"This study was run without the stage {stage!r}; run it with stages=[{stage!r}]."
            )
        return found
