"""What stands on a report's page, as plain values: points of the summary, sections, what is known.

`render` and `write` (`cutaway.views.report`) make the page of a `Report`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from cutaway.views.figure import Figure, Table, ViewError
from cutaway.views.text import Estimate, number


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One number worth writing large."""

    label: str
    """What it is."""
    value: Estimate
    """The number and its interval (NaN ends where it has none)."""
    percent: bool = False
    """A fraction to be written as a percentage."""
    digits: int = 2
    """Decimals, where it is not a percentage."""
    note: str = ""
    """A few words below: how many examples, which kind."""

    @property
    def written(self) -> str:
        """The number alone."""
        return number(self.value.mean, self.digits, percent=self.percent)

    @property
    def interval(self) -> str:
        """The interval in words, or nothing."""
        if not self.value.has_interval:
            return ""
        low = number(self.value.low, self.digits, percent=self.percent)
        high = number(self.value.high, self.digits, percent=self.percent)
        return f"95\u00a0% CI {low} to {high}"


@dataclass(frozen=True, kw_only=True)
class ExamplePrompt:
    """One prompt as its tokens, with what should come next and what should not."""

    tokens: tuple[str, ...]
    """The clean prompt's tokens."""
    answers: tuple[str, ...]
    """Correct next tokens."""
    wrong_answers: tuple[str, ...] = ()
    """Wrong next tokens it is compared with."""
    labels: Mapping[str, int] = field(default_factory=dict[str, int])
    """Position labels: name to index in `tokens`."""
    corrupt_tokens: tuple[str, ...] = ()
    """The corrupt prompt's tokens; where they differ from the clean ones they are marked."""
    note: str = ""
    """A line below: what the model answered, its logit difference, …"""

    def __post_init__(self) -> None:
        outside = {name: at for name, at in self.labels.items() if not 0 <= at < len(self.tokens)}
        if outside:
            raise ViewError(
                f"Position labels {outside} lie outside a prompt of {len(self.tokens)} tokens: "
                "give indices into its tokens, padding not counted."
            )


@dataclass(frozen=True, kw_only=True)
class Section:
    """One step of the argument."""

    heading: str
    """What it is about."""
    sentences: tuple[str, ...] = ()
    """Paragraphs before the figures."""
    examples: tuple[ExamplePrompt, ...] = ()
    """Prompts; the first four are open, the others behind a button."""
    figures: tuple[Figure, ...] = ()
    """Figures in order; narrow neighbours share a row."""
    table: Table | None = None
    """A table shown in full."""
    reproduce: str = ""
    """A command or snippet that makes this section again."""
    provenance: Mapping[str, object] = field(default_factory=dict[str, object])
    """Where its numbers come from: versions, configuration, model, data, seed."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One answer of the summary, to be read in a few seconds."""

    heading: str
    """What is asked, in a few words."""
    sentences: tuple[str, ...] = ()
    """The answer."""
    examples: tuple[ExamplePrompt, ...] = ()
    """Prompts that show it."""
    figure: Figure | None = None
    """A picture of it."""
    facts: tuple[Fact, ...] = ()
    """The numbers that carry it."""
    more: str = ""
    """The heading of the section that tells it in full."""
    reproduce: str = ""
    """A command or snippet that makes these numbers again."""

    @property
    def unpictured(self) -> bool:
        """Whether there is text alone."""
        return not (self.figure or self.examples or self.facts)


@dataclass(frozen=True, kw_only=True)
class Part:
    """What is known of one part of the model; shown wherever on the page the part is chosen."""

    name: str
    """Its name in circuits: `a2.h1`, `m0`."""
    called: str
    """Its name for a person: `head 2.1`, `MLP 0`."""
    role: str = ""
    """What it is found or claimed to do, in a few words."""
    facts: tuple[tuple[str, str], ...] = ()
    """What was measured of it, each with its number as written."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """A study as a person reads it."""

    title: str
    """The behaviour, in words."""
    subtitle: str = ""
    """The model, the number of prompts."""
    summary: tuple[str, ...] = ()
    """The finding, in one to three sentences."""
    points: tuple[Point, ...] = ()
    """The summary's answers, in order."""
    sections: tuple[Section, ...] = ()
    """The argument, step by step."""
    parts: tuple[Part, ...] = ()
    """The model's parts that can be chosen; text that names one is linked to its figures."""
    reproduce: str = ""
    """The command that makes the whole report again."""
    given: str = ""
    """What the commands beside figures take for granted, in one sentence."""
    provenance: Mapping[str, object] = field(default_factory=dict[str, object])
    """Where everything comes from."""
