"""Attacks on a circuit: does it do the same elsewhere, and does nothing else do it as well?

The circuit has to keep between 0.8 and 1.2 of the behaviour on other prompts, under other ablations
and by another metric, and so has the circuit of its size that is found on other prompts. A circuit
of its size of another behaviour must keep less than half. Margins are in the metric's own unit:
with every edge on it is m(M), with none m(∅), and on one example the circuit has
m(C) − m(∅) − 0.8 (m(M) − m(∅)) to spare.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from cutaway.behaviours import METRICS, Behaviour
from cutaway.behaviours.build import build
from cutaway.behaviours.builtin import GENERATORS, VARIATIONS
from cutaway.circuits import Circuit, Masked, discover, top_n
from cutaway.circuits.faithfulness import check_gap, measured
from cutaway.errors import BehaviourError
from cutaway.study.verdict import Attack

Make = Callable[[], Attack]
"""Makes one attack."""

_SPAN = (0.8, 1.2)
_HALF = 0.5
_MOST_PROBES, _OTHERS = 12, 2


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is attacked."""

    on: Masked
    """The model."""
    circuit: Circuit
    """The circuit that was found."""
    held_out: Behaviour
    """Prompts that it was not found on."""
    metric: str
    """The metric that it was found by."""
    n: int
    """How many prompts an attack draws."""
    seed: int
    """For what is drawn."""

    @property
    def generator(self) -> str | None:
        """The built-in behaviour, where it is one."""
        origin = self.held_out.provenance
        name = origin.get("generator") if origin.get("source") == "built-in" else None
        return str(name) if name in GENERATORS else None

    def fresh(self, name: str, seed: int, **variation: Any) -> Behaviour:
        """Prompts of a built-in behaviour for this model."""
        return build(name, self.on.model.tokenizer, n=self.n, seed=seed, **variation)


def attacks(target: Target) -> Iterator[tuple[str, str, Make]]:
    """The kind and name of every attack on the circuit, and what makes it."""
    yield from _prompts(target)
    for ablation in ("mean", "zero", "resample"):
        kind, name = "ablation", f"edges that are off carry the {ablation} ablation"
        yield kind, name, lambda a=ablation: keeps(target, target.held_out, ablation=a)
    other = "prob_diff" if target.metric == "logit_diff" else "logit_diff"
    name = f"measured by the {METRICS[other].label}"
    yield "metric", name, lambda: keeps(target, target.held_out, metric=other)
    if target.generator is not None:
        yield "seed", "the circuit found on other prompts", lambda: _again(target)
    for name in [name for name in GENERATORS if name != target.generator][:_OTHERS]:
        what = f"the circuit of {name} must not do it"
        yield "other behaviour", what, lambda n=name: _of_another(target, n)


def _prompts(target: Target) -> Iterator[tuple[str, str, Make]]:
    """Fresh prompts, and prompts of every variation that the generator knows."""
    name = target.generator
    if name is None or target.on.model.tokenizer is None:
        return
    new = target.seed + 1
    yield "prompts", "fresh prompts", lambda: keeps(target, target.fresh(name, new))
    probes = [
        (keyword, value)
        for keyword, values in VARIATIONS[name].items()
        for value in values[1:]
        if keyword != "template" and value != "any"
    ]
    for keyword, value in probes[:_MOST_PROBES]:
        yield (
            "prompts", f"{keyword}: {value}",
            lambda k=keyword, v=value: keeps(target, target.fresh(name, new, **{k: v})),
        )  # fmt: skip


def keeps(
    target: Target, prompts: Behaviour, *, circuit: Circuit | None = None,
    ablation: str = "counterfactual", metric: str | None = None, more: str = "",
) -> Attack:  # fmt: skip
    """An attack that a circuit withstands when it keeps 0.8 to 1.2 of the behaviour."""
    kept = (target.circuit if circuit is None else circuit).kept
    found = measured(
        target.on, prompts, kept[None], metric=metric or target.metric, ablation=ablation,
        seed=target.seed,
    )  # fmt: skip
    check_gap(found.clean, found.ablated, prompts)
    gap = found.clean - found.ablated
    spare = np.sign(gap.mean()) * (found.values[0] - found.ablated - _SPAN[0] * gap)
    room = np.sign(gap.mean()) * (found.ablated + _SPAN[1] * gap - found.values[0])
    ratio = found.ratio(0)
    return Attack(
        kind="", name="", effect=ratio.mean, low=ratio.low, high=ratio.high, unit="faithfulness",
        margins=spare if spare.mean() < room.mean() else room,
        found=f"keeps {ratio.mean:.2f} of the behaviour on {len(prompts)} prompts{more}",
    )  # fmt: skip


def _again(target: Target) -> Attack:
    """The circuit of the same size that is found on prompts of another seed."""
    assert target.generator is not None
    fresh = target.fresh(target.generator, target.seed + 2)
    scores = discover(target.on, fresh, "eap-ig", metric=target.metric, seed=target.seed)
    circuit = top_n(scores, len(target.circuit))
    shared = int((circuit.kept & target.circuit.kept).sum())
    return keeps(
        target, target.held_out, circuit=circuit,
        more=f"; it shares {shared} of {len(circuit)} edges with the circuit",
    )  # fmt: skip


def _of_another(target: Target, name: str) -> Attack:
    """The strongest edges of another behaviour, which must keep less than half of this one."""
    if target.on.model.tokenizer is None:
        raise BehaviourError("Without a tokenizer no other behaviour can be written.")
    other = target.fresh(name, target.seed)
    scores = discover(target.on, other, "eap-ig", seed=target.seed)
    circuit, prompts = top_n(scores, len(target.circuit)), target.held_out
    found = measured(target.on, prompts, circuit.kept[None], metric=target.metric)
    check_gap(found.clean, found.ablated, prompts)
    gap = found.clean - found.ablated
    ratio, sign = found.ratio(0), np.sign(gap.mean())
    shared = int((circuit.kept & target.circuit.kept).sum())
    return Attack(
        kind="", name="", effect=ratio.mean, low=ratio.low, high=ratio.high, unit="faithfulness",
        margins=sign * (found.ablated + _HALF * gap - found.values[0]),
        found=f"it keeps {ratio.mean:.2f} of this behaviour and shares {shared} of "
        f"{len(circuit)} edges",
    )  # fmt: skip
