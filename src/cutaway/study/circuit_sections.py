"""The report's sections about the circuit: found, evaluated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cutaway.behaviours.metrics import METRICS
from cutaway.circuits import Curve, Evaluation
from cutaway.circuits.picture import view
from cutaway.study import circuit_sentences as say
from cutaway.study.discovery import Discovered
from cutaway.study.evaluation import Evaluated
from cutaway.study.roles import Roles
from cutaway.study.scrubbing import Scrubbing, verdict
from cutaway.study.stage import Inputs
from cutaway.study.tested import Hypotheses
from cutaway.study.words import listed, percent
from cutaway.views import (
    CircuitView,
    Estimate,
    Figure,
    Reading,
    Section,
    Series,
    Table,
    bars,
    circuit,
    lens_curve,
    story,
)
from cutaway.views.text import number, p_value

FOUND, CHECKED = "Which circuit does it?", "How good is the circuit?"
"""The sections' headings."""
_MOST_PLACES = 3
CHECKS = {
    "prefers": "there is a behaviour: right answers are preferred",
    "answers": "because of the prompt: not with the answers of other prompts",
    "effect": "the corruption takes it away",
    "faithful": "the circuit keeps it",
    "random": "random circuits like it do not",
}


def discovery(inputs: Inputs) -> Section:
    """The circuit and how it was found."""
    found = inputs.of(Discovered)
    checked = None if inputs.skipped("evaluation") else inputs.of(Evaluated)
    named = named_roles(list(inputs.results.values()))
    return Section(
        heading=FOUND,
        sentences=(
            "An edge leads from what one part writes to an input of a later part. EAP-IG scores "
            f"every edge at once, from gradients on the way from corrupt to clean prompts "
            f"({found.sizes.clean.sizes['example']} training prompts). A circuit keeps its edges; "
            "all others carry what they carry on the corrupt prompt.",
            say.discovered(found, inputs.settings.kept),
            f"It runs through {listed(say.parts(found.circuit)) or 'no head and no MLP'}.",
            say.stable(found),
        ),
        figures=(picture(found, checked, inputs.of(Roles), named),),
        reproduce="study.discovery.circuit, study.discovery.stability",
    )


def named_roles(results: Sequence[object]) -> dict[str, str]:
    """What each part is said to do, as far as it was tested and not refuted.

    The names are those of the hypothesis that was scrubbed; a part that it leaves out, or a study
    without one, has the roles that were supported on held-out prompts, the first of each part.
    """
    named: dict[str, str] = {}
    for result in results:
        if isinstance(result, Scrubbing) and verdict(result.claimed) != "refuted":
            for node in result.claimed.hypothesis["nodes"]:
                named |= dict.fromkeys(node["parts"], node["name"])
    for result in results:
        if isinstance(result, Hypotheses):
            for each in result.of("supported"):
                for part in each.hypothesis.parts:
                    named.setdefault(part_in_circuits(part), each.hypothesis.role)
    return named


def part_in_circuits(site: str) -> str:
    """A head's or MLP's site by its name in circuits: `a2.h1` for `head_out.2.1`."""
    kind, _, at = site.partition(".")
    return f"m{at}" if kind == "mlp_out" else f"a{at.replace('.', '.h')}"


def picture(
    found: Discovered, checked: Evaluated | None, roles: Roles, named: Mapping[str, str]
) -> Figure:
    """The circuit in its place, with what each size keeps, and what its parts are said to do.

    Faithfulness is that on held-out prompts, where they were checked.
    """
    return circuit(_view(found, checked, roles, named))


def in_short(
    found: Discovered, checked: Evaluated | None, roles: Roles, named: Mapping[str, str]
) -> Figure:
    """The few parts of the circuit that matter, with what they are said to do."""
    return story(_view(found, checked, roles, named))


def _view(
    found: Discovered, checked: Evaluated | None, roles: Roles, named: Mapping[str, str]
) -> CircuitView:
    size = len(found.circuit)
    inclusion = found.stability.inclusion
    held = zip(inclusion["edge"].to_numpy().tolist(), inclusion.to_numpy().tolist(), strict=True)
    attends, writes = _read_and_written(roles)
    return view(
        found.scores, found.sizes if checked is None else checked.sizes,
        shows=say.strongest_edges(found), size=size,
        controls=None if checked is None else {size: checked.circuit.controls},
        inclusion=dict(held), roles=named,
        attends=attends, writes=writes,
        attends_name="attention from its place", writes_name="logits it raises most",
        reproduce="study.discovery.scores.top(10)",
    )  # fmt: skip


def _read_and_written(roles: Roles) -> tuple[dict[str, list[Reading]], dict[str, list[Reading]]]:
    """By part: the places that a head looks at from its own, and the tokens that it raises."""
    attends: dict[str, list[Reading]] = {}
    writes: dict[str, list[Reading]] = {}
    places = [str(place) for place in roles.attends["position"].to_numpy()]
    for layer, head in np.ndindex(roles.query.shape):
        name, query = f"a{layer}.h{head}", str(roles.query.to_numpy()[layer, head])
        weights = roles.attends.to_numpy()[layer, head]
        order = np.argsort(-weights, kind="stable")[:_MOST_PLACES]
        attends[name] = [
            Reading(text=f"{query} → {places[at]}", value=float(weights[at])) for at in order
        ]
        pairs = zip(
            roles.token.to_numpy()[layer, head], roles.writes.to_numpy()[layer, head], strict=True
        )
        writes[name] = [
            Reading(text=str(text), value=float(value))
            for text, value in pairs if not np.isnan(value)
        ]  # fmt: skip
    return attends, writes


def evaluation(inputs: Inputs) -> Section:
    """What the circuit is worth on prompts it was not found on."""
    found, trained = inputs.of(Evaluated), inputs.of(Discovered)
    told = (
        say.held_out(found), say.other_measures(found), say.mean_ablation(found),
        say.completeness(found),
    )  # fmt: skip
    return Section(
        heading=CHECKED,
        sentences=(
            f"All of this is on {found.n} prompts that had no part in finding the circuit. "
            "Faithfulness is the share of the difference between whole model and no edge at all: "
            "1 is the model’s own behaviour.",
            *(sentence for sentence in told if sentence),
        ),
        figures=(sizes(found, trained), *_needed(found)),
        table=_measures(found),
        reproduce="print(study.evaluation.circuit)",
    )


def sizes(found: Evaluated, trained: Discovered) -> Figure:
    """Faithfulness against size, on training and on held-out prompts."""
    shares = found.sizes.faithfulness["share"].to_numpy().tolist()
    area = found.sizes.cmd
    return lens_curve(
        [
            Series(name="held out", estimates=_estimates(found.sizes)),
            Series(name="training", estimates=_estimates(trained.sizes)),
        ],
        [f"{number(100 * share, int(share < 0.01))} %" for share in shares],
        title="Faithfulness of circuits by size",
        shows=f"On held-out prompts the area between the curve and 1 (CMD) is {say.ratio(area)}; "
        f"the circuit chosen has {percent(found.circuit.circuit.share)} of the edges.",
        measure=f"faithfulness, {METRICS[found.circuit.metric].label}",
        axis="share of edges",
        reproduce="study.evaluation.sizes.faithfulness",
    )  # fmt: skip


def _estimates(curve: Curve) -> tuple[Estimate, ...]:
    found = curve.faithfulness
    ends = (found[name].to_numpy() for name in ("mean", "low", "high"))
    return tuple(Estimate(*map(float, each)) for each in zip(*ends, strict=True))


def _needed(found: Evaluated) -> list[Figure]:
    """What each part's removal does to the circuit."""
    table = found.circuit.minimality
    if not len(table):
        return []
    table = table.iloc[::-1]
    columns = {name: table[name].to_numpy() for name in ("part", "change", "low", "high")}
    return [
        bars(
            [str(part) for part in columns["part"]],
            columns["change"], columns["low"], columns["high"],
            title="What the circuit loses without each of its parts",
            shows=say.minimality(found),
            measure="change, as a share of the whole effect",
            reproduce="study.evaluation.circuit.minimality",
        )
    ]  # fmt: skip


def _measures(found: Evaluated) -> Table:
    """Every control, and the circuit under other measures."""
    evaluation = found.circuit
    rows = [
        (CHECKS[name], _checked(evaluation, name) or check.says, _outcome(check.passed))
        for name, check in evaluation.checks.items()
    ]
    rows += [
        (f"elsewhere: {_measure(name)}", f"faithfulness {say.ratio(one)}", say.outcome(one))
        for name, one in evaluation.others.items()
    ]
    rows += [
        (f"{test.name} (Shi et al. 2024)", f"{p_value(test.p)}: {test.null}", _outcome(test.passed))
        for test in evaluation.tests
    ]
    return Table(
        caption="What was tried against the circuit, on held-out prompts",
        columns=("control", "found", "outcome"),
        rows=tuple(rows),
    )


def _outcome(passed: bool) -> str:
    return "holds" if passed else "fails"


def _measure(name: str) -> str:
    """`logit_diff, mean` in words; prompts by the name they were given under."""
    metric, _, ablation = name.partition(", ")
    return f"{METRICS[metric].label}, {ablation} ablation" if metric in METRICS else name


def _checked(evaluation: Evaluation, name: str) -> str:
    """What a control found, with its numbers as this page writes them; empty where it says so."""
    tests = {test.name: test for test in evaluation.background}
    if name in tests:
        return f"{p_value(tests[name].p)} if {tests[name].null}"
    if np.isnan(evaluation.faithfulness.low):
        return ""
    low, high = evaluation.span
    told = {
        "prefers": f"the model prefers the right answers by {say.ratio(evaluation.preference)} "
        "logits",
        "faithful": f"faithfulness {say.ratio(evaluation.faithfulness)}, to lie within {low:g} "
        f"and {high:g}",
    }
    return told.get(name, "")
