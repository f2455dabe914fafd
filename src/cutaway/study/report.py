"""The report stage: a study's results as a page that a person reads.

The page is a list of chapters. Each is a function from a stage's inputs to a `Section`, and names
the stages that it tells of: where one of these was skipped, the reason stands in its place. Every
sentence and figure is computed from the numbers it stands beside.

A chapter is added by one line in `CHAPTERS`.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from cutaway.behaviours import Behaviour
from cutaway.study import behaviour_sections as outside
from cutaway.study import (
    blackbox_section,
    hypotheses_section,
    redteam_section,
    scrubbing_section,
    summary,
)
from cutaway.study import circuit_sections as circuit
from cutaway.study import observed_sections as observed
from cutaway.study import patching_sections as patched
from cutaway.study.known import known
from cutaway.study.places import place_name, places
from cutaway.study.scrubbing import Scrubbing
from cutaway.study.settings import Settings
from cutaway.study.stage import Inputs, Stage
from cutaway.study.tested import Hypotheses
from cutaway.study.verdict import RedTeam
from cutaway.views import Report, Section

Found = TypeVar("Found")


class Chapter(NamedTuple):
    """One section of the report, and what it needs."""

    heading: str
    """What it is called, also where its stage was skipped."""
    stages: tuple[str, ...]
    """The stages whose results it tells; one that was skipped takes its place."""
    draw: Callable[[Inputs], Section]
    """The section."""


def _of(kind: type[Found], section: Callable[[Found], Section]) -> Callable[[Inputs], Section]:
    """A section that a single stage's result is enough for."""
    return lambda inputs: section(inputs.of(kind))


CHAPTERS: tuple[Chapter, ...] = (
    Chapter(outside.STUDIED, ("blackbox",), outside.behaviour),
    Chapter(outside.OUTSIDE, ("blackbox",), outside.black_box),
    *(Chapter(*chapter) for chapter in blackbox_section.CHAPTERS),
    Chapter(observed.LENS, ("lens",), observed.logit_lens),
    Chapter(observed.WRITES, ("attribution",), observed.direct_attribution),
    Chapter(patched.CARRIES, ("patching",), patched.activation_patching),
    Chapter(patched.PLACES, ("estimates", "patching"), patched.attribution_patching),
    Chapter(patched.PATHS, ("paths",), patched.path_patching),
    Chapter(observed.LOOKS, ("attention",), observed.attention),
    Chapter(
        hypotheses_section.HEADING, ("hypotheses",), _of(Hypotheses, hypotheses_section.section)
    ),
    Chapter(circuit.FOUND, ("discovery", "roles"), circuit.discovery),
    Chapter(circuit.CHECKED, ("evaluation",), circuit.evaluation),
    Chapter(scrubbing_section.HEADING, ("scrubbing",), _of(Scrubbing, scrubbing_section.section)),
    Chapter(redteam_section.HEADING, ("redteam",), _of(RedTeam, redteam_section.section)),
)
"""Every section of the report, in order."""


def assemble(inputs: Inputs, *, more: Sequence[Stage] = ()) -> Report:
    """The whole report; `more` are stages that bring their own sections."""
    behaviour, origin = inputs.behaviour, inputs.origin
    name, missing = str(origin["model"]["name"]), dict[str, str]()
    return Report(
        title=_title(behaviour),
        subtitle=f"{behaviour.name} in {name}, {len(behaviour)} prompt pairs",
        summary=tuple(summary.verdict(summary.Results.of_all(inputs.results.values()))),
        points=summary.points(inputs),
        sections=tuple(
            _section(inputs, chapter, missing) for chapter in (*CHAPTERS, *map(_chapter, more))
        ),
        parts=known(inputs.results.values()),
        reproduce=_commands(origin),
        given="“study” is what the script at the end of this page makes.",
        provenance=_provenance(origin, behaviour, inputs.settings),
    )


def _section(inputs: Inputs, chapter: Chapter, missing: dict[str, str]) -> Section:
    """One chapter, with the command that makes it; or why there is nothing to tell.

    `missing` holds the reasons told so far, each with the heading it stands under.
    """
    for stage in chapter.stages:
        if (skipped := inputs.skipped(stage)) is not None:
            above = missing.setdefault(skipped.reason, chapter.heading)
            told = f"Not done: {skipped.reason}"
            if above != chapter.heading:
                told = f"Not done, for the reason that stands under “{above}”."
            return Section(heading=chapter.heading, sentences=(told,))
    section = chapter.draw(inputs)
    command = _of_stage(str(inputs.origin["command"]), chapter.stages[0])
    return replace(section, reproduce="\n".join(filter(None, (command, section.reproduce))))


def _of_stage(command: str, stage: str) -> str:
    """The study's command for one stage and what it needs."""
    if not command:
        return ""
    words, kept = iter(shlex.split(command)), list[str]()
    for word in words:
        if word == "--stage":
            next(words, None)
        elif not word.startswith("--stage="):
            kept.append(word)
    return shlex.join([*kept, "--stage", stage])


def _title(behaviour: Behaviour) -> str:
    """The behaviour's full name, where its description begins with one."""
    name, colon, _ = behaviour.description.partition(":")
    return name if colon and len(name) <= 60 else behaviour.name


def _chapter(stage: Stage) -> Chapter:
    """The section that a stage brings itself."""

    def draw(inputs: Inputs) -> Section:
        assert stage.section is not None
        return stage.section(inputs.results[stage.name])

    return Chapter(stage.title, (stage.name,), draw)


def _commands(origin: Mapping[str, Any]) -> str:
    """The command line, where there was one, and the Python."""
    parts = [str(origin["command"]), *(["# or in Python"] if origin["command"] else [])]
    return "\n".join([*(part for part in parts if part), str(origin["python"])])


def _provenance(
    origin: Mapping[str, Any], behaviour: Behaviour, settings: Settings
) -> dict[str, object]:
    """Model, data, settings and versions, one line each."""
    model, data = origin["model"], origin["behaviour"]
    sizes = f"{model['n_layers']} layers, {model['n_heads']} heads, width {model['d_model']}"
    return {
        "model": f"{model['name']} ({model['family']}, {sizes}, {model['dtype']})",
        "model fingerprint": model["fingerprint"],
        "device": model["device"],
        "behaviour": f"{data['name']}, {data['n']} pairs, {data['held_out']} held out",
        "behaviour fingerprint": data["fingerprint"],
        **{f"behaviour {key}": value for key, value in data["provenance"].items() if value},
        "places": ", ".join(place_name(place) for place in places(behaviour)),
        **{
            name.replace("_", " "): value
            for name, value in origin["settings"].items()
            if name != "hypotheses"
        },
        "hypotheses": "; ".join(map(str, settings.hypotheses)) or "the study’s own",
        **dict(origin["versions"]),
    }
