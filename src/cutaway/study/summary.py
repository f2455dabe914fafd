"""What a study found, for a person with a minute: the verdict, and four answers.

The verdict says what the evaluation and the red team say together:

| verdict | when |
|---|---|
| it holds | the circuit passes its evaluation on held-out prompts and survives every attack |
| it holds, with limits | it passes, and fails an attack or is left undecided by one |
| it is not confirmed | it fails its evaluation |
| it cannot be trusted | the same search finds a circuit where there is nothing to find |

Every answer names the section that tells it in full, and works for what was run: where a stage was
skipped, its reason stands in place of its numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self, TypeVar

import numpy as np

from cutaway.behaviours import Behaviour
from cutaway.circuits.stability import STABLE
from cutaway.observe import Attribution
from cutaway.study import circuit_sections as circuit
from cutaway.study import circuit_sentences as say_circuit
from cutaway.study import hypotheses_section, redteam_section, scrubbing_section
from cutaway.study import sentences as say
from cutaway.study.behaviour_sections import OUTSIDE, example
from cutaway.study.blackbox import BlackBox
from cutaway.study.discovery import Discovered
from cutaway.study.evaluation import Evaluated
from cutaway.study.figures import estimate
from cutaway.study.patching import Patching
from cutaway.study.patching_sentences import main_heads
from cutaway.study.roles import Roles
from cutaway.study.scrubbing import Scrubbing
from cutaway.study.stage import Inputs, Skipped
from cutaway.study.tested import Hypotheses
from cutaway.study.verdict import RedTeam
from cutaway.study.words import listed
from cutaway.views import Estimate, ExamplePrompt, Fact, Point
from cutaway.views.text import number

Found = TypeVar("Found")

_CONTROL = "control"


@dataclass(frozen=True)
class Results:
    """What was run of a study, by type."""

    all: tuple[object, ...]
    """Each stage's result, or `Skipped`."""

    @classmethod
    def of_all(cls, results: Iterable[object]) -> Self:
        """All of them."""
        return cls(tuple(results))

    def of(self, kind: type[Found]) -> Found | None:
        """The result of this type; None where its stage was skipped or not run."""
        return next((one for one in self.all if isinstance(one, kind)), None)

    def why_not(self, *stages: str) -> str:
        """Why the first of these stages that was skipped was skipped; empty where none was."""
        skipped = (one for one in self.all if isinstance(one, Skipped) and one.stage in stages)
        return next((f"Not done: {one.reason}" for one in skipped), "")


def summary(results: Iterable[object]) -> list[str]:
    """The study in a few sentences."""
    found = Results.of_all(results)
    told: list[str] = []
    for each in (*verdict(found), *does(found), *how(found), *sure(found), *tried(found)):
        if not any(each in earlier for earlier in told):
            told.append(each)
    return told


def points(inputs: Inputs) -> tuple[Point, ...]:
    """The same as the report's summary shows it, with an example, a picture and numbers."""
    found = Results.of_all(inputs.results.values())
    box, discovered, roles = found.of(BlackBox), found.of(Discovered), found.of(Roles)
    pictured = None
    if discovered is not None and roles is not None:
        pictured = circuit.in_short(
            discovered, found.of(Evaluated), roles, circuit.named_roles(found.all)
        )
    return (
        Point(
            heading="What does the model do?",
            sentences=(_told(inputs.behaviour), *does(found)),
            examples=() if box is None else (_plainly(example(inputs, _typical(box))),),
            more=OUTSIDE,
            reproduce='study.blackbox.interval("accuracy"), study.blackbox.interval("logit_diff")',
        ),
        Point(
            heading="How does it do it?", sentences=how(found), figure=pictured,
            more=circuit.FOUND, reproduce="study.discovery.circuit",
        ),
        Point(
            heading="How sure are we?", sentences=sure(found), facts=_certain(found),
            more=circuit.CHECKED,
            reproduce="study.evaluation.circuit.faithfulness, study.evaluation.circuit.controls, "
            "study.discovery.stability",
        ),
        Point(
            heading=redteam_section.HEADING, sentences=tried(found), facts=_attacks(found),
            more=redteam_section.HEADING,
            reproduce="[(one.name, one.outcome) for one in study.redteam.attacks]",
        ),
    )  # fmt: skip


# ── the verdict ──────────────────────────────────────────────────────────────────────────────


def verdict(found: Results) -> list[str]:
    """Whether there is a circuit, and whether it can be believed."""
    discovered, checked, tried = found.of(Discovered), found.of(Evaluated), found.of(RedTeam)
    if discovered is None:
        why = found.why_not("discovery")
        return [f"No circuit is claimed. {why}" if why else "No circuit was looked for."]
    what = f"{say_circuit.counted(discovered.circuit)}, do this"
    if checked is None:
        return [f"A circuit is found but not checked. {found.why_not('evaluation')}".strip()]
    where = f"on {checked.n} prompts that they were not found on"
    failed = [name for name, check in checked.circuit.checks.items() if not check.passed]
    if failed:
        missed = listed([f"“{circuit.CHECKS.get(name, name)}”" for name in failed])
        return [f"The circuit is not confirmed: on {checked.n} held-out prompts, {missed} fails."]
    if tried is None:
        why = found.why_not("redteam") or "Nothing was tried against it."
        return [f"The circuit is confirmed: {what} {where}. {why}"]
    return [_attacked(tried, f"{what} {where}")]


def _attacked(tried: RedTeam, what: str) -> str:
    alarms = [one.name for one in tried.of("fails") if one.kind == _CONTROL]
    if alarms:
        return (
            "The circuit cannot be trusted: the same search finds one where there is nothing to "
            f"find ({listed(alarms)})."
        )
    failed, open_ones = tried.of("fails"), tried.of("undecided")
    if not failed and not open_ones:
        return f"The finding holds: {what}, and survive every attack."
    limits = [f"{len(some)} {word}" for some, word in
              ((failed, "failed"), (open_ones, "undecided")) if some]  # fmt: skip
    survived = len(tried.of("survives"))
    return (
        f"The finding holds, with limits: {what}; of {survived + len(failed) + len(open_ones)} "
        f"attacks, {listed([f'{survived} are survived', *limits])}."
    )


# ── the four answers ─────────────────────────────────────────────────────────────────────────


def does(found: Results) -> tuple[str, ...]:
    """How often the model is right."""
    box = found.of(BlackBox)
    return () if box is None else (say.accuracy(box),)


def how(found: Results) -> tuple[str, ...]:
    """Which parts do it, and what they are said to do."""
    told: list[str] = []
    discovered, story = found.of(Discovered), found.of(Scrubbing)
    if discovered is not None:
        told.append(say_circuit.runs_through(discovered.circuit))
    else:
        patching, written = found.of(Patching), found.of(Attribution)
        told += [found.why_not("discovery")]
        told += [main_heads(patching)] if patching is not None else []
        told += [say.attribution(written)] if written is not None else []
    if (stated := found.of(Hypotheses)) is not None:
        told.append(hypotheses_section.summary(stated))
    if story is not None:
        told.append(scrubbing_section.summary(story))
    return tuple(sentence for sentence in told if sentence)


def sure(found: Results) -> tuple[str, ...]:
    """What the circuit keeps on prompts that it was not found on, and what chance does."""
    discovered, checked = found.of(Discovered), found.of(Evaluated)
    told = [found.why_not("evaluation") if checked is None else say_circuit.held_out(checked)]
    if discovered is not None:
        told.append(say_circuit.stable(discovered))
    return tuple(sentence for sentence in told if sentence)


def tried(found: Results) -> tuple[str, ...]:
    """The attacks, and the search where there is nothing to find."""
    made = found.of(RedTeam)
    if made is None:
        return tuple(filter(None, [found.why_not("redteam")]))
    return tuple(filter(None, (redteam_section.verdict(made), redteam_section.controls(made))))


# ── what goes with them ──────────────────────────────────────────────────────────────────────


def _told(behaviour: Behaviour) -> str:
    """The behaviour's description, without the name that is the report's title."""
    name, colon, rest = behaviour.description.partition(":")
    told = rest.strip() if colon and len(name) <= 60 and rest.strip() else behaviour.description
    return told[:1].upper() + told[1:]


def _typical(box: BlackBox) -> int:
    """The prompt in the middle of all by logit difference."""
    order = np.argsort(box.each("logit_diff"), kind="stable")
    return int(order[len(order) // 2])


def _plainly(prompt: ExamplePrompt) -> ExamplePrompt:
    """A prompt alone, without its twin and its positions."""
    return replace(prompt, labels={}, corrupt_tokens=())


def _certain(found: Results) -> tuple[Fact, ...]:
    box, discovered, checked = found.of(BlackBox), found.of(Discovered), found.of(Evaluated)
    facts: list[Fact] = []
    if checked is not None:
        one = checked.circuit.faithfulness
        facts.append(
            Fact(
                label="faithfulness, held out", value=Estimate(one.mean, one.low, one.high),
                note=f"1 is the whole model; {checked.n} prompts",
            )
        )  # fmt: skip
        means = [each.mean for each in checked.circuit.controls]
        if means:
            facts.append(
                Fact(
                    label="the best random circuit", value=Estimate(max(means), np.nan, np.nan),
                    note=f"of {len(means)} alike; {number(float(np.mean(means)))} on average",
                )
            )  # fmt: skip
    if discovered is not None:
        facts.append(
            Fact(
                label="stable edges", percent=True,
                value=Estimate(discovered.stability.share(), np.nan, np.nan),
                note=f"found again in {STABLE:.0%} of resamplings".replace("%", "\u00a0%"),
            )
        )  # fmt: skip
    if box is not None and 0 < box.n_held_out < box.n:
        value = estimate(box.interval("accuracy", held_out=True))
        note = f"{box.n_held_out} prompts kept aside"
        facts.append(Fact(label="accuracy, held out", value=value, percent=True, note=note))
    return tuple(facts)


def _attacks(found: Results) -> tuple[Fact, ...]:
    made = found.of(RedTeam)
    if made is None:
        return ()
    counts: Sequence[tuple[str, int]] = (
        ("survived", len(made.of("survives"))), ("failed", len(made.of("fails"))),
        ("undecided", len(made.of("undecided"))),
        ("not applicable", len(made.of("not applicable"))),
    )  # fmt: skip
    return tuple(
        Fact(label=name, value=Estimate(count, np.nan, np.nan), digits=0, note="attacks")
        for name, count in counts
        if count or name != "not applicable"
    )
