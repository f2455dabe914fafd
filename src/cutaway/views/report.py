"""The report: one HTML file that opens anywhere and asks the network for nothing.

`render` turns a `Report` (plain values and figures, `cutaway.views.page`) into the page through the
templates beside this file: everything from data passes `inert` and is escaped once, styles and
script are inline, and the page's content security policy names them by hash and forbids all else.
The script is the bundle that is built from `web/`; what its views draw from stands in the page as
JSON, which is never run. Text that names a part of the model (`head 2.1`, `a2.h1`) is marked, so
that the client can choose the part there. The same report gives the same bytes. `write` puts the
page in place whole or not at all.
"""

import base64
import hashlib
import os
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from cutaway.views.figure import ViewError, asset, figure_css
from cutaway.views.mentions import linked
from cutaway.views.page import Part, Report
from cutaway.views.text import MOST, inert, shortened, word, wordy

_EXAMPLES_SHOWN = 4
_LONGEST_COMMAND = 10_000


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
    parts = {one.name for one in report.parts}
    ours: dict[str, Any] = {
        "word": word, "wordy": wordy, "whole": _whole, "linked": partial(linked, parts=parts),
    }  # fmt: skip
    environment.filters.update(ours)
    style = f"{figure_css()}\n{asset('templates/report.css')}\n{asset('templates/live.css')}"
    script = asset("bundle/cutaway.js")
    anchors = {one.heading: f"section-{at}" for at, one in enumerate(report.sections, start=1)}
    return environment.get_template("report.html.j2").render(
        report=report,
        style=Markup(style),
        script=Markup(script),
        policy=_policy(style, script),
        anchors=[f"section-{index}" for index in range(1, len(report.sections) + 1)],
        places=anchors,
        known={part.name: _known(part) for part in report.parts},
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


def _known(part: Part) -> dict[str, object]:
    """What the client shows of a part."""
    return {
        "called": inert(shortened(part.called, MOST)), "role": inert(shortened(part.role, MOST)),
        "facts": [[inert(shortened(each, MOST)) for each in fact] for fact in part.facts],
    }  # fmt: skip


def _finalize(value: object) -> object:
    """What every template expression passes before it is escaped."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return inert(shortened(value, MOST))
    return value


def _whole(text: str) -> Markup:
    """A command, which is of little use when it is cut."""
    return escape(inert(shortened(text, _LONGEST_COMMAND)))


def _policy(style: str, script: str) -> str:
    """A content security policy that allows this style and this script and nothing else."""

    def source(text: str) -> str:
        digest = hashlib.sha256(text.encode("utf-8")).digest()
        return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"

    return (
        f"default-src 'none'; style-src {source(style)}; script-src {source(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
