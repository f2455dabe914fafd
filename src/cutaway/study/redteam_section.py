"""The report's section about what was tried against the finding."""

from __future__ import annotations

from cutaway.study.verdict import LEVEL, Attack, Outcome, RedTeam
from cutaway.study.words import listed
from cutaway.views import Section, Table
from cutaway.views.text import number, p_value

HEADING = "What was tried against it?"
_UNITS = {"logit_diff": "logits", "prob_diff": "probability"}


def verdict(found: RedTeam) -> str:
    """The summary's sentence: how many attacks were survived, and which were not."""
    made = len(found.attacks) - len(found.of("not applicable"))
    told = [f"Of {made} attacks the finding survives {len(found.of('survives'))}"]
    words: tuple[tuple[Outcome, str], ...] = (("fails", "fails"), ("undecided", "leaves open"))
    for outcome, word in words:
        names = [f"“{attack.name}”" for attack in found.of(outcome)]
        if names:
            told.append(f"{word} {len(names)} ({listed(names)})")
    return f"{'; it '.join(told)}."


def controls(found: RedTeam) -> str:
    """What the search found where there is nothing to find."""
    made = [one for one in found.of("survives", "fails") if one.kind == "control"]
    empty = [one.name for one in made if one.outcome == "survives"]
    alarms = [one.name for one in made if one.outcome == "fails"]
    told = [f"finds nothing in its controls, {listed(empty)}"] if empty else []
    told += [f"finds a circuit in {listed(alarms)}"] if alarms else []
    return f"The same search {listed(told)}." if told else ""


def section(found: RedTeam) -> Section:
    """The verdict as a table."""
    return Section(
        heading=HEADING,
        sentences=(
            "Each attack asks for something that has to hold if the finding is right. The "
            "p-values are those of sign flips, corrected for all attacks together (Holm); an "
            f"attack is decided where p < {LEVEL}. Controls run the whole search where there is "
            "nothing to find.",
            *filter(None, (verdict(found), controls(found))),
        ),
        table=Table(
            caption="Every attack, with its effect, its 95 % interval and its outcome",
            columns=("attack", "what it showed", "effect", "corrected p", "outcome"),
            rows=tuple(_row(attack) for attack in found.attacks),
        ),
        reproduce="study.redteam.attacks",
    )


def _row(attack: Attack) -> tuple[str, ...]:
    effect = chance = "–"
    if attack.unit:
        ends = f" ({number(attack.low)} to {number(attack.high)})"
        effect = f"{number(attack.effect)}{ends} {_UNITS.get(attack.unit, attack.unit)}"
    if attack.p_corrected == attack.p_corrected:
        chance = p_value(attack.p_corrected)
    return f"{attack.kind}: {attack.name}", attack.found, effect, chance, attack.outcome
