"""What the circuit stages found, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cutaway.behaviours.metrics import METRICS
from cutaway.circuits import Circuit, Ratio
from cutaway.circuits.stability import STABLE
from cutaway.study.discovery import Discovered
from cutaway.study.evaluation import Evaluated
from cutaway.study.words import listed, percent
from cutaway.views.text import number

_ENOUGH = 0.1
"""Within this of 1 a circuit is said to keep the behaviour."""
_SMALL = 0.5
"""A circuit with a larger share of the edges explains nothing."""


def ratio(found: Ratio) -> str:
    """A faithfulness with its interval."""
    if np.isnan(found.low):
        return number(found.mean)
    return f"{number(found.mean)} (95 % CI {number(found.low)} to {number(found.high)})"


# ── discovery ────────────────────────────────────────────────────────────────────────────────


def size(circuit: Circuit) -> str:
    """A circuit's size in words."""
    share = 100 * circuit.share
    return f"{len(circuit):,} of {len(circuit.graph):,} edges ({number(share, int(share < 10))} %)"


def parts(circuit: Circuit) -> list[str]:
    """The heads and MLPs that a circuit runs through: `heads 1.2 and 2.0`, `MLP 3`."""
    writers = [w for w in circuit.graph.writers if str(w) in circuit.parts]
    heads = [f"{w.layer}.{w.head}" for w in writers if w.kind == "head"]
    mlps = [str(w.layer) for w in writers if w.kind == "mlp"]
    return [
        f"{kind}{'s' * (len(names) > 1)} {listed(names)}"
        for kind, names in (("head", heads), ("MLP", mlps))
        if names
    ]


def runs_through(circuit: Circuit) -> str:
    """The circuit in a sentence."""
    named = listed(parts(circuit)) or "no head and no MLP"
    return f"The circuit has {size(circuit)} and runs through {named}."


def counted(circuit: Circuit) -> str:
    """How many parts and edges: `6 heads and 2 MLPs, joined by 20 of 1,096 edges`."""
    writers = [w for w in circuit.graph.writers if str(w) in circuit.parts]
    many = {kind: sum(w.kind == kind for w in writers) for kind in ("head", "mlp")}
    named = [f"{count} {word}{'s' * (count > 1)}" for word, count in
             (("head", many["head"]), ("MLP", many["mlp"])) if count]  # fmt: skip
    return f"{listed(named) or 'No head and no MLP'}, joined by {size(circuit)}"


def discovered(found: Discovered, kept: float) -> str:
    """Which circuit was chosen, and how well it does where it was found."""
    at = found.sizes.faithfulness.isel(share=found.at)
    here = Ratio(**{name: float(at[name]) for name in ("mean", "low", "high")})
    n = found.sizes.clean.sizes["example"]
    does = f"does what the whole model does to within {percent(1 - kept)}, interval and all"
    if found.circuit.share > _SMALL:
        return (
            f"No small circuit {does} on the {n} training prompts: it takes "
            f"{size(found.circuit)} (faithfulness {ratio(here)})."
        )
    return (
        f"The circuit has {size(found.circuit)}: the fewest with which it {does}, on the {n} "
        f"training prompts (faithfulness {ratio(here)})."
    )


def stable(found: Discovered) -> str:
    """How much of the circuit is there whatever the prompts."""
    each = found.stability
    return (
        f"When the training prompts are resampled {each.sizes.sizes['draw']} times, "
        f"{percent(each.share())} of its edges are among the {len(found.circuit)} strongest at "
        f"least {percent(STABLE)} of the time."
    )


def strongest_edges(found: Discovered, most: int = 5) -> str:
    """The edges with the largest scores."""
    rows = found.scores.top(most).to_dict("records")
    named = [f"{row['edge']} ({number(row['score'], sign=True)})" for row in rows]
    return f"Its edges with the largest scores are {listed(named)}."


# ── evaluation ───────────────────────────────────────────────────────────────────────────────


def held_out(found: Evaluated) -> str:
    """The summary's sentence: what the circuit keeps, and what chance does."""
    evaluation, metric = found.circuit, METRICS[found.circuit.metric].label
    return (
        f"With all other edges off, {size(evaluation.circuit)} keep "
        f"{ratio(evaluation.faithfulness)} of the {metric} on {found.n} held-out prompts; "
        f"{_by_chance(evaluation.controls)}"
    )


def _by_chance(controls: Sequence[Ratio]) -> str:
    means = [one.mean for one in controls]
    return (
        f"{len(means)} random circuits of its size and shape keep {number(float(np.mean(means)))} "
        f"on average and at most {number(max(means))}."
    )


def outcome(found: Ratio) -> str:
    """Whether a circuit with this faithfulness keeps the behaviour."""
    return "holds" if abs(1 - found.mean) <= _ENOUGH else "fails"


def other_measures(found: Evaluated) -> str:
    """Whether it holds under another metric and another ablation."""
    told: list[str] = []
    for name, one in found.circuit.others.items():
        metric, ablation = name.split(", ")
        holds = "holds" if abs(1 - one.mean) <= _ENOUGH else "does not hold"
        told.append(
            f"by {METRICS[metric].label} under {ablation} ablation {ratio(one)}, it {holds}"
        )
    return f"Measured otherwise: {'; '.join(told)}." if told else ""


def mean_ablation(found: Evaluated) -> str:
    """Why a circuit that was found against corrupt prompts may fail against means."""
    means = [one for name, one in found.circuit.others.items() if name.endswith(", mean")]
    if not means or all(outcome(one) == "holds" for one in means):
        return ""
    return (
        "Counterfactual ablation keeps what clean and corrupt prompts share, and this circuit is "
        "one of what makes the difference between them. A mean over prompts takes away what they "
        "share too, so that the circuit alone no longer has what it builds on."
    )


def completeness(found: Evaluated) -> str:
    """How far the circuit without some parts is from the model without them."""
    table = found.circuit.incompleteness
    if not len(table):
        return ""
    row = table.sort_values("distance", ascending=False).iloc[0]
    parts = str(row["parts"]) or "no part"
    return (
        f"Completeness: without the same parts, circuit and model differ by at most "
        f"{percent(float(row['distance']))} of the whole effect over {len(table)} random sets of "
        f"parts (the set {parts})."
    )


def minimality(found: Evaluated) -> str:
    """Which parts it could do without."""
    table = found.circuit.minimality
    if not len(table):
        return ""
    spare = [str(row["part"]) for row in table.to_dict("records") if row["low"] <= 0]
    most = table.iloc[-1]
    told = f"{len(spare)} of its {len(table)} parts move it by no more than their interval"
    which = f" ({listed(spare)})" if spare else ""
    return (
        f"Minimality: {told}{which}; taking out {most['part']} moves it most, by "
        f"{percent(float(most['change']))} of the whole effect."
    )
