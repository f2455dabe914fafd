"""How much a study measures: the numbers that trade time for precision."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import cast

from cutaway.errors import StudyError
from cutaway.study.hypothesis import RoleHypothesis


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything besides model and behaviour that decides a study's results."""

    seed: int = 0
    """For bootstrap resamples and for choosing the examples that are patched and shown."""
    distractor_examples: int = 32
    """At most so many examples are measured with other text around them."""
    flip_examples: int = 12
    """For at most so many examples the smallest change that flips the answer is searched."""
    flip_passes: int = 3000
    """At most so many prompts are run for that, all examples together."""
    lens_examples: int = 100
    """At most so many examples are read by the lens and the attribution."""
    patch_examples: int = 32
    """At most so many examples are patched."""
    path_examples: int = 16
    """At most so many examples are followed along paths."""
    heads_followed: int = 3
    """The paths into so many heads are followed, the strongest writers to the logits first."""
    heads_shown: int = 4
    """The attention of so many heads is shown, the strongest by patching first."""
    attention_examples: int = 3
    """On so many real examples each."""

    hypotheses: tuple[RoleHypothesis, ...] = ()
    """What is claimed of heads and MLPs, to be tested; none: the study states roles itself."""
    discovery_examples: int = 64
    """At most so many training prompts are used to find a circuit."""
    evaluation_examples: int = 32
    """At most so many held-out prompts are used to evaluate it."""
    kept: float = 0.9
    """How much of the behaviour a circuit has to keep: above 0, below 1."""
    controls: int = 30
    """The circuit is compared with so many random ones."""
    scrub_examples: int = 32
    """Hypotheses are tested on so many prompts."""
    attack_examples: int = 24
    """Each attack of the red team draws at most so many prompts."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value, least = getattr(self, field.name), 0 if field.name == "seed" else 1
            if field.name not in ("kept", "hypotheses") and value < least:
                raise StudyError(f"{field.name} must be at least {least}; found {value}.")
        if not 0 < self.kept < 1:
            raise StudyError(f"kept must be above 0 and below 1; found {self.kept}.")
        given = tuple(cast("Iterable[object]", self.hypotheses))
        for each in given:
            if not isinstance(each, RoleHypothesis):
                raise StudyError(f"hypotheses are RoleHypothesis(PARTS, ROLE); found {each!r}.")
        object.__setattr__(self, "hypotheses", given)

    @classmethod
    def read(cls, name: str, text: str) -> int | float:
        """The value of a setting that is a number, from text. Raises `StudyError`."""
        numbers = {field.name: field.default for field in fields(cls) if field.name != "hypotheses"}
        if name not in numbers:
            raise StudyError(f"There is no setting {name!r}; there are {', '.join(numbers)}.")
        try:
            return float(text) if isinstance(numbers[name], float) else int(text)
        except ValueError:
            raise StudyError(f"The setting {name!r} is a number; found {text!r}.") from None
