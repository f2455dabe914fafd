"""The hypotheses stage: stated roles, each tested on prompts that were not used to choose them.

1. The prompts are split as for circuits: on the training side the study observes, on the held-out
   side it tests (`discovery.sides`).
2. What is tested: the hypotheses of the settings; where there are none, the roles that the study
   observes itself and those of the literature (`stating`). With either goes a deliberately wrong
   one, which has to be refuted.
3. Each role stands for one test (`role_tests`), made on the same bench (`bench`).
4. All p-values are corrected together, and each hypothesis is supported, refuted or undecided
   (`tested`).

Where the model does not do the behaviour, or the corruption does not take it away, there is nothing
to have a role in: the study states nothing of its own, and nothing that was stated is supported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cutaway.behaviours import Behaviour
from cutaway.measure.result import provenance
from cutaway.model import Model
from cutaway.study.bench import Bench
from cutaway.study.discovery import sides
from cutaway.study.hypothesis import part_site
from cutaway.study.role_tests import check_hypothesis, measure, read_role
from cutaway.study.settings import Settings
from cutaway.study.stage import Inputs, SkippedError
from cutaway.study.stating import Observer, own, stated
from cutaway.study.tested import Condition, Hypotheses, Tested, condition, decided

_MISSING = ("does not do the behaviour", "does it on the corrupt prompts as well")
_SHOWN = ("that the model does the behaviour", "that the corruption takes it away")


def check(settings: Settings, model: Model, behaviour: Behaviour) -> None:
    """Refuse stated hypotheses about heads, labels or relations that there are not."""
    for each in settings.hypotheses:
        check_hypothesis(each, model, behaviour.labels)


def test(inputs: Inputs) -> Hypotheses:
    """State, or take what was stated, and test it."""
    model, settings = inputs.model, inputs.settings
    train, held_out = sides(inputs)
    given = stated(settings.hypotheses)
    missing = _missing(present(Bench(model, train, seed=settings.seed)), settings.seed)
    if missing and not given:
        raise SkippedError(missing)
    if not missing:
        observer = Observer(model, train, followed=settings.heads_followed, seed=settings.seed)
        given = given or own(observer)
        if not given:
            raise SkippedError(
                "No head and no MLP adds as much as a twentieth of the logit difference directly, "
                "so the study states no role of its own; state some (Settings.hypotheses)."
            )
        given += observer.wrong()
    bench = Bench(model, held_out, named=_named(given), seed=settings.seed)
    tested: list[Tested] = []
    for each in given:
        found = measure(bench, each.hypothesis)
        done = {"found": found} if isinstance(found, str) else {"conditions": found}
        tested.append(replace(each, **done))
        inputs.tick(len(tested), len(given))
    settled, behaviour = decided(tested, present(bench), seed=settings.seed)
    return Hypotheses(
        tested=settled, behaviour=behaviour, chosen_on=len(train), tested_on=len(held_out),
        provenance=provenance(
            model, held_out, {"method": "hypotheses about roles", "seed": settings.seed}
        ),
    )  # fmt: skip


def present(bench: Bench) -> tuple[Condition, ...]:
    """That the model does the behaviour, and that the corruption takes it away."""
    clean, gap = bench.clean, bench.gap
    return (
        condition("the model does it", clean, clean, bound=0.0, unit=bench.metric),
        condition("the corruption takes it away", gap, gap, bound=0.0, unit=bench.metric),
    )


def _missing(there: Sequence[Condition], seed: int) -> str:
    """Why nobody can have a role here; empty where somebody can."""
    _, found = decided([], there, seed=seed)
    for one, means, shown in zip(found, _MISSING, _SHOWN, strict=True):
        prompts = len(one.margins)
        numbers = f"{one.effect:+.2f} {one.unit}, {one.low:+.2f} to {one.high:+.2f}"
        if not one.holds and one.low > one.bound:
            return (
                f"With {prompts} prompts no role can be tested: {shown} ({numbers}) has a "
                f"corrected p of {one.p_corrected:.2f}; give more."
            )
        if not one.holds:
            return (
                f"No part can have a role in what is not there: the model {means} ({numbers}, on "
                f"{prompts} prompts)."
            )
    return ""


def _named(given: Sequence[Tested]) -> list[str]:
    """Every part that a hypothesis names, as sender or as receiver."""
    found = {part for each in given for part in each.hypothesis.parts}
    for each in given:
        _, places = read_role(each.hypothesis)
        if "part" in places:
            found.add(part_site(places["part"]))
    return sorted(found)
