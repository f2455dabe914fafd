"""The report: one HTML file that opens anywhere and asks the network for nothing.

A `Report` holds plain values and figures. `render` turns it into the page through the templates
beside this file: everything from data passes `inert` and is escaped once, styles and script are
inline, and the page's content security policy names them by hash and forbids all else. The script
is the bundle that is built from `web/`; what its views draw from stands in the page as JSON, which
is never run. The same report gives the same bytes. `write` puts the page in place whole or not at
all.
"""

import base64
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
from markupsafe import Markup

from cutaway.views.figure import Figure, Table, ViewError, asset, figure_css
from cutaway.views.text import Estimate, inert, number, word

_EXAMPLES_SHOWN = 4


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
class Report:
    """A study as a person reads it."""

    title: str
    """The behaviour, in words."""
    subtitle: str = ""
    """The model, the number of prompts."""
    summary: tuple[str, ...] = ()
    """The finding, in one to three sentences."""
    facts: tuple[Fact, ...] = ()
    """The numbers that carry it."""
    sections: tuple[Section, ...] = ()
    """The argument, step by step."""
    reproduce: str = ""
    """The command that makes the whole report again."""
    provenance: Mapping[str, object] = field(default_factory=dict[str, object])
    """Where everything comes from."""


def render(report: Report) -> str:
    """The report as one HTML page."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cutaway.views"),
        autoescape=True,
        finalize=_finalize,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["word"] = word
    style = f"{figure_css()}\n{asset('templates/report.css')}\n{asset('templates/live.css')}"
    script = asset("bundle/cutaway.js")
    return environment.get_template("report.html.j2").render(
        report=report,
        style=Markup(style),
        script=Markup(script),
        policy=_policy(style, script),
        anchors=[f"section-{index}" for index in range(1, len(report.sections) + 1)],
        shown=_EXAMPLES_SHOWN,
    )


def write(report: Report, path: str | os.PathLike[str]) -> Path:
    """Render the report into the file `path`, replacing it whole; gives the path back.

    Raises `ViewError` when the folder is missing or cannot be written; what stood there stays.
    """
    target = Path(path)
    page = render(report)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.write_text(page, encoding="utf-8", newline="\n")
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ViewError(
            f"The report cannot be written to {target} ({error.strerror or error}): "
            "name a file in a folder that exists and can be written."
        ) from error
    return target


def _finalize(value: object) -> object:
    """What every template expression passes before it is escaped."""
    return inert(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _policy(style: str, script: str) -> str:
    """A content security policy that allows this style and this script and nothing else."""

    def source(text: str) -> str:
        digest = hashlib.sha256(text.encode("utf-8")).digest()
        return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"

    return (
        f"default-src 'none'; style-src {source(style)}; script-src {source(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
