"""The summary says what its numbers say, for every way in which a study can end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cutaway.circuits import Ratio
from cutaway.study import Study
from cutaway.study.known import known
from cutaway.study.stage import Skipped
from cutaway.study.summary import Results, summary, verdict
from cutaway.study.verdict import Attack, RedTeam


def told(study: Study, **changed: object) -> str:
    """The verdict of a study with some results replaced."""
    return " ".join(verdict(Results.of_all({**study.results, **changed}.values())))


def attacked(*outcomes: tuple[str, str]) -> RedTeam:
    made = [Attack(kind=kind, name=f"{kind} {at}", found="", outcome=outcome)  # pyright: ignore[reportArgumentType]
            for at, (kind, outcome) in enumerate(outcomes)]  # fmt: skip
    return RedTeam(attacks=tuple(made), provenance={})


@pytest.fixture
def passing(whole: Study) -> dict[str, object]:
    """The evaluation of a circuit that passes every control."""
    found = whole.evaluation
    one = replace(
        found.circuit, faithfulness=Ratio(mean=0.97, low=0.94, high=1.0),
        preference=Ratio(mean=5.0, low=4.0, high=6.0), span=(0.8, 1.2),
        background=tuple(replace(test, p=0.001 if test.wanted == "rejected" else 0.5)
                         for test in found.circuit.background),
        controls=(Ratio(mean=0.0, low=-0.1, high=0.1),) * 30,
    )  # fmt: skip
    assert one.passes
    return {"evaluation": replace(found, circuit=one)}


def test_it_holds_where_all_attacks_are_survived(whole: Study, passing: dict[str, object]) -> None:
    said = told(whole, **passing, redteam=attacked(("prompts", "survives"), ("seed", "survives")))
    assert said.startswith("The finding holds: ")
    assert said.endswith("and survive every attack.")


def test_what_failed_and_what_is_open_are_limits(whole: Study, passing: dict[str, object]) -> None:
    outcomes = ("survives", "survives", "fails", "undecided", "not applicable")
    said = told(whole, **passing, redteam=attacked(*(("prompts", one) for one in outcomes)))
    assert said.startswith("The finding holds, with limits: ")
    assert said.endswith("of 4 attacks, 2 are survived, 1 failed and 1 undecided.")


def test_a_control_in_which_something_is_found_takes_it_all_back(
    whole: Study, passing: dict[str, object]
) -> None:
    said = told(whole, **passing, redteam=attacked(("prompts", "survives"), ("control", "fails")))
    assert said.startswith("The circuit cannot be trusted: ")
    assert "control 1" in said


def test_a_circuit_that_fails_its_evaluation_is_not_confirmed(
    whole: Study, passing: dict[str, object]
) -> None:
    found = passing["evaluation"]
    assert isinstance(found, type(whole.evaluation))
    weak = replace(found.circuit, faithfulness=Ratio(mean=0.5, low=0.4, high=0.6))
    said = told(whole, evaluation=replace(found, circuit=weak), redteam=attacked())
    assert said.startswith("The circuit is not confirmed: ")
    assert "“the circuit keeps it”" in said


def test_stages_that_were_skipped_leave_their_reason(whole: Study) -> None:
    because = {name: Skipped(stage=name, reason=f"No {name} here.")
               for name in ("discovery", "evaluation", "redteam", "scrubbing")}  # fmt: skip
    assert told(whole, **because) == "No circuit is claimed. Not done: No discovery here."
    said = summary({**whole.results, **because}.values())
    assert "Not done: No redteam here." in said
    assert any(sentence.startswith("Patching") for sentence in said)
    unchecked = told(whole, evaluation=because["evaluation"])
    assert unchecked == "A circuit is found but not checked. Not done: No evaluation here."
    same = {name: Skipped(stage=name, reason="Too few prompts.") for name in because}
    said = " ".join(summary({**whole.results, **same}.values()))
    assert said.count("Too few prompts.") == 1
    others = [result for name, result in whole.results.items() if name not in because]
    assert summary(others)[0] == "No circuit was looked for."


def test_the_numbers_are_those_of_the_results(whole: Study) -> None:
    said = " ".join(summary(whole.results.values()))
    circuit = whole.discovery.circuit
    assert f"{len(circuit):,} of {len(circuit.graph):,} edges" in said
    made = whole.redteam
    applied = len(made.attacks) - len(made.of("not applicable"))
    assert f"Of {applied} attacks the finding survives {len(made.of('survives'))}" in said
    assert f"{whole.evaluation.circuit.faithfulness.mean:.2f}".replace("-", "−") in said


def test_every_head_and_mlp_is_known(whole: Study) -> None:
    parts = {part.name: dict(part.facts) for part in known(whole.results.values())}
    layers, heads = whole.patching.heads_denoise.mean.shape
    names = [[f"a{layer}.h{head}" for head in range(heads)] for layer in range(layers)]
    assert list(parts) == [name for layer, row in enumerate(names) for name in (*row, f"m{layer}")]
    mean = whole.patching.heads_denoise.mean.to_numpy()
    layer, head = np.unravel_index(int(np.abs(mean).argmax()), mean.shape)
    said = parts[f"a{layer}.h{head}"]["put back alone"]
    assert said.startswith(f"{mean[layer, head]:+.2f}".replace("-", "−"))
    inside = {name for name, facts in parts.items() if facts["in the circuit"].startswith("yes")}
    assert inside == set(map(str, whole.discovery.circuit.parts)) & set(parts)
