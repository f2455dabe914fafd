"""The scrubbing stage: is the story right that is told of the circuit?

A hypothesis says which parts matter and what each of them is about; causal scrubbing swaps
everything that it allows and sees how much of the behaviour is left (`cutaway.circuits.scrubbing`).
Built-in hypotheses are about the model that ships (`cutaway.circuits.septet`), on prompts in which
the features that they name come again. Beside the claim stands a wrong one as control: the same
parts, about where the answer was named and not what it is.

| verdict | when |
|---|---|
| supported | the whole interval of what is recovered is above 0.8 |
| refuted | the whole interval is below 0.8 |
| undecided | otherwise |
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from cutaway.circuits import CircuitError, Hypothesis, Scrubbed, scrub
from cutaway.circuits.septet import HYPOTHESES, prompts
from cutaway.study.manifest import short_name
from cutaway.study.stage import Inputs, SkippedError, within

Verdict = Literal["supported", "refuted", "undecided"]

ENOUGH = 0.8
"""What is to be recovered at least."""
_MODEL = "septet"
_WRONG = {"ioi": "place of IO", "induction": "place of B1"}
_PROMPTS, _SAMPLES = 400, 2


@dataclass(frozen=True, kw_only=True)
class Scrubbing:
    """A hypothesis and a wrong one, tested."""

    claimed: Scrubbed
    """The built-in hypothesis, each claim of it also alone."""
    wrong: Scrubbed
    """The same parts, about something else."""


def verdict(found: Scrubbed) -> Verdict:
    """What the interval of the recovered fraction says of a hypothesis."""
    recovered = found.recovered
    if recovered.low >= ENOUGH:
        return "supported"
    return "refuted" if recovered.high < ENOUGH else "undecided"


def test(inputs: Inputs) -> Scrubbing:
    """Scrub the behaviour's built-in hypothesis and the wrong one."""
    model, settings, behaviour = inputs.model, inputs.settings, inputs.behaviour
    built_in = behaviour.provenance.get("source") == "built-in"
    name = str(behaviour.provenance.get("generator")) if built_in else behaviour.name
    if model.name != _MODEL or not built_in or name not in HYPOTHESES:
        raise SkippedError(
            f"There are built-in hypotheses about {' and '.join(HYPOTHESES)} in {_MODEL}, and "
            f"none about {name} in {short_name(model)}; write one (cutaway.circuits.Hypothesis) "
            "and test it with cutaway.circuits.scrub."
        )
    claim = HYPOTHESES[name]
    try:
        rows = prompts(name, model, n=_PROMPTS, seed=settings.seed)
        claimed, wrong = (
            scrub(
                model, rows, one, examples=settings.scrub_examples, samples=_SAMPLES,
                claims=one is claim, seed=settings.seed, progress=within(inputs.tick, part, 2),
            )
            for part, one in enumerate((claim, misread(claim, _WRONG[name])))
        )  # fmt: skip
    except CircuitError as error:
        raise SkippedError(str(error)) from error
    return Scrubbing(claimed=claimed, wrong=wrong)


def misread(hypothesis: Hypothesis, feature: str) -> Hypothesis:
    """The same parts and paths, all said to be about this feature."""
    return replace(
        hypothesis,
        name=f"{hypothesis.name}, but about the {feature}",
        description=f"The same parts, about the {feature} alone.",
        nodes=tuple(replace(node, agrees=feature) for node in hypothesis.nodes),
    )
