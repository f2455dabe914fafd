"""The report's section about roles: what was stated of heads and MLPs, and what came of it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cutaway.study.hypothesis import part_name, part_site
from cutaway.study.published import PUBLISHED, Published
from cutaway.study.role_tests import read_role
from cutaway.study.tested import Condition, Hypotheses, Tested
from cutaway.study.verdict import LEVEL
from cutaway.study.words import listed
from cutaway.views import Section, Table
from cutaway.views.text import number, p_value

HEADING = "Who does what?"
_UNITS = {"logit_diff": "logits", "prob_diff": "probability"}
_INPUTS = {"q": "queries", "k": "keys", "v": "values"}
_ORIGINS = {
    "stated": "stated",
    "observed": "observed by this study",
    "published": "published of another model",
    "wrong": "wrong, as control",
}


def summary(found: Hypotheses) -> str:
    """Who writes the answer and who feeds them, each confirmed; or how the stated ones came out."""
    mine = found.of("supported", "refuted", "undecided", origin="stated")
    if mine:
        parts = [f"{len(some)} {verdict}" for verdict in ("supported", "refuted", "undecided")
                 if (some := [each for each in mine if each.verdict == verdict])]  # fmt: skip
        return f"Of {len(mine)} stated hypotheses {listed(parts)}."
    told = [*_writers(found), *_feeders(found)]
    return " ".join(told) or "No role that was observed is confirmed on other prompts."


def section(found: Hypotheses) -> Section:
    """Every hypothesis with its numbers and its verdict."""
    own = "" if found.of("supported", "refuted", "undecided", origin="stated") else (
        f" The study’s own were chosen on {found.chosen_on} prompts."
    )  # fmt: skip
    told = [
        "A hypothesis gives a head or an MLP a role, and a role stands for a test: what has to be "
        f"written, lost or looked at, and how much of it. All were tested on {found.tested_on} "
        f"held-out prompts.{own} Supported is what holds in every respect (p < {LEVEL}, corrected "
        "for everything that was tested here), refuted what fails in one. Not to stand out among "
        "other parts, or to lose nothing with the attention cut, leaves a role undecided.",
        summary(found),
        *_differs(found),
        *_control(found),
    ]
    return Section(
        heading=HEADING,
        sentences=tuple(told),
        table=Table(
            caption="Every hypothesis, what it asks for, and what was found (mean, 95 % interval)",
            columns=("hypothesis", "who says so", "what has to hold", "corrected p", "verdict"),
            rows=tuple(_row(each) for each in found.tested),
        ),
        reproduce="study.hypotheses.tested",
    )


def _names(tested: Sequence[Tested]) -> str:
    """The parts of some hypotheses, each once."""
    return _called(list(dict.fromkeys(part for each in tested for part in each.hypothesis.parts)))


def _called(parts: Sequence[str]) -> str:
    """Parts as a sentence names them: heads together, then MLPs."""
    heads = [part_name(one).removeprefix("head ") for one in parts if one.startswith("head_out")]
    mlps = [part_name(one) for one in parts if one.startswith("mlp_out")]
    several = "heads" if len(heads) > 1 else "head"
    return listed([*([f"{several} {listed(heads)}"] if heads else []), *mlps])


def _of_role(found: Hypotheses, role: str, origin: str = "observed") -> list[Tested]:
    return [
        each
        for each in found.of("supported")
        if each.origin == origin and read_role(each.hypothesis)[0].name == role
    ]


def _writers(found: Hypotheses) -> list[str]:
    writers = _of_role(found, "writes the answer")
    if not writers:
        return []
    verb = (
        "write"
        if len({part for each in writers for part in each.hypothesis.parts}) > 1
        else "writes"
    )
    confirmed = {each.hypothesis.parts for each in writers}
    looking: dict[str, list[Tested]] = {}
    for each in _of_role(found, "attends from LABEL to LABEL"):
        _, given = read_role(each.hypothesis)
        way = f"from {given['query']} to {given['key']}"
        if given["query"] == given["key"]:
            way = f"at {given['key']} itself"
        if each.hypothesis.parts in confirmed:
            looking.setdefault(way, []).append(each)
    said = [f"{_names(some)} look{'' if len(some) > 1 else 's'} {way}"
            for way, some in looking.items()]  # fmt: skip
    told = _capital(f"{_names(writers)} {verb} the answer")
    return [f"{told}; {listed(said)}." if said else f"{told}."]


def _feeders(found: Hypotheses) -> list[str]:
    """Who feeds whom: senders of the same receivers together, and receivers by their input."""
    into: dict[tuple[str, str | None], list[Tested]] = {}
    for each in _of_role(found, "feeds PART"):
        _, given = read_role(each.hypothesis)
        into.setdefault((part_site(given["part"]), given["input"]), []).append(each)
    senders: dict[str, dict[str | None, list[str]]] = {}
    for (part, kind), some in into.items():
        senders.setdefault(_names(some), {}).setdefault(kind, []).append(part)
    said = [f"{who} feed{_s(who)} {listed([_inputs(*each) for each in what.items()])}"
            for who, what in senders.items()]  # fmt: skip
    return [f"{_capital('; '.join(said))}."] if said else []


def _inputs(kind: str | None, parts: Sequence[str]) -> str:
    """What is fed: `MLP 4`, or `the values of heads 1.3 and 2.2`."""
    who = _called(parts)
    return f"the {_INPUTS[kind]} of {who}" if kind else who


def _s(who: str) -> str:
    return "" if " and " in who or "," in who else "s"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _differs(found: Hypotheses) -> list[str]:
    """Where this model does otherwise than the published one, and where it does the same."""
    tested = found.of("supported", "refuted", "undecided", origin="published")
    known = _paper(found)
    if not tested or known is None:
        return []
    told = [f"Beside what {known.paper} found in {known.model}, this model’s algorithm:"]
    words = {"supported": "agrees", "refuted": "differs", "undecided": "is undecided"}
    for each in tested:
        finding = each.says.partition(": ")[2]
        first = each.conditions[0] if each.conditions else None
        numbers = f" ({_measured(first)})" if first else ""
        told.append(f"it {words[each.verdict]} where {finding}: “{each.hypothesis}” is "
                    f"{each.verdict}{numbers};")  # fmt: skip
    mlps = [each for each in _of_role(found, "writes the answer")
            if all(part.startswith("mlp_out") for part in each.hypothesis.parts)]  # fmt: skip
    if known.heads_write and mlps:
        told.append(f"it differs in that {_names(mlps)} write{_s(_names(mlps))} the answer too, "
                    "and there only heads do;")  # fmt: skip
    text = " ".join(told)
    return [f"{text[:-1]}."]


def _paper(found: Hypotheses) -> Published | None:
    of: object = found.provenance.get("behaviour", {}).get("provenance", {}).get("generator")
    return PUBLISHED.get(str(of))


def _control(found: Hypotheses) -> list[str]:
    wrong = found.of("supported", "refuted", "undecided", origin="wrong")
    return [
        f"A wrong one was tested with them: “{each.hypothesis}” ({each.says}). It is "
        f"{each.verdict}."
        for each in wrong
    ]


def _row(each: Tested) -> tuple[str, ...]:
    told = "; ".join(f"{one.name}: {_measured(one)}" for one in each.conditions) or each.found
    chances = [one.p_corrected for one in each.conditions if one.p_corrected == one.p_corrected]
    who = _ORIGINS[each.origin]
    return (
        _capital(re.sub(r"\s+", " ", str(each.hypothesis))),
        f"{who} ({each.says})" if each.says else who, told,
        p_value(max(chances)) if chances else "–", each.verdict,
    )  # fmt: skip


def _measured(one: Condition) -> str:
    ends = "" if one.low == one.high else f" ({number(one.low)} to {number(one.high)})"
    return (
        f"{number(one.effect)}{ends} {_UNITS.get(one.unit, one.unit)}, asked for "
        f"{number(one.bound)}"
    )
