"""What a study knows of each head and MLP, for the panel that a chosen part opens."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from cutaway.behaviours import bootstrap
from cutaway.observe import Attribution
from cutaway.patch import Effects
from cutaway.study.circuit_sections import named_roles, part_in_circuits
from cutaway.study.discovery import Discovered
from cutaway.study.evaluation import Evaluated
from cutaway.study.patching import Patching
from cutaway.study.paths import Paths
from cutaway.study.places import place_name
from cutaway.study.roles import Roles
from cutaway.study.tested import Hypotheses
from cutaway.study.words import listed, percent
from cutaway.views import Estimate, Part
from cutaway.views.text import number, p_value, word

Fact = tuple[str, str, str]
"""A part's name, what was measured, and the number as written."""

_PART = re.compile(r"a\d+\.h\d+|m\d+")
_MOST_PLACES, _MOST_TOKENS, _SEEN = 2, 3, 0.05


def known(results: Iterable[object]) -> tuple[Part, ...]:
    """Every head and MLP in the model's order, with what each stage measured of it."""
    facts: dict[str, list[tuple[str, str]]] = defaultdict(list)
    each = list(results)
    for result in sorted(each, key=_order):
        for part, what, written in _facts(result):
            facts[part].append((what, written))
    roles = named_roles(each)
    return tuple(
        Part(name=part, called=called(part), role=roles.get(part, ""), facts=tuple(facts[part]))
        for part in sorted(filter(_PART.fullmatch, facts), key=_place)
    )


def called(part: str) -> str:
    """`a2.h1` as a person says it."""
    layer, _, head = part[1:].partition(".h")
    return f"head {layer}.{head}" if head else f"MLP {layer}"


def _place(part: str) -> tuple[int, int]:
    layer, _, head = part[1:].partition(".h")
    return int(layer), int(head) if head else 10**6


_KINDS: tuple[type[Any], ...] = (
    Roles, Hypotheses, Discovered, Evaluated, Attribution, Patching, Paths,
)  # fmt: skip


def _order(result: object) -> int:
    return next((at for at, kind in enumerate(_KINDS) if isinstance(result, kind)), len(_KINDS))


def _facts(result: object) -> Iterator[Fact]:
    if isinstance(result, Roles):
        yield from _reads_and_writes(result)
    elif isinstance(result, Hypotheses):
        yield from _tested(result)
    elif isinstance(result, Discovered):
        yield from _membership(result)
    elif isinstance(result, Evaluated):
        yield from _needed(result)
    elif isinstance(result, Attribution):
        yield from _direct(result)
    elif isinstance(result, Patching):
        yield from _effects(result.heads_denoise, "put back alone")
        yield from _effects(result.heads_noise, "taken away alone")
        yield from _effects(result.mlps_denoise, "put back alone")
        yield from _effects(result.mlps_noise, "taken away alone")
    elif isinstance(result, Paths):
        yield from _effects(result.steps[0].effects, "its direct path to the logits corrupted")


def _reads_and_writes(found: Roles) -> Iterator[Fact]:
    places = [str(place) for place in found.attends["position"].to_numpy()]
    for layer, head in np.ndindex(found.query.shape):
        part = f"a{layer}.h{head}"
        weights = found.attends.to_numpy()[layer, head]
        order = [at for rank, at in enumerate(np.argsort(-weights, kind="stable")[:_MOST_PLACES])
                 if not rank or weights[at] >= _SEEN]  # fmt: skip
        seen = listed([f"{places[at]} ({number(float(weights[at]))})" for at in order])
        yield part, "attends", f"from {found.query.to_numpy()[layer, head]} to {seen}"
        raised = zip(
            found.token.to_numpy()[layer, head], found.writes.to_numpy()[layer, head], strict=True
        )
        told = [
            f"“{word(str(token))}” ({number(float(value), sign=True)})"
            for token, value in raised if not np.isnan(value)
        ][:_MOST_TOKENS]  # fmt: skip
        if told:
            yield part, "raises most at the end", listed(told)


def _tested(found: Hypotheses) -> Iterator[Fact]:
    """The roles that were tested of a part, with their verdicts."""
    verdicts: dict[str, list[str]] = defaultdict(list)
    for each in found.tested:
        for part in each.hypothesis.parts:
            verdicts[part_in_circuits(part)].append(f"{each.hypothesis.said}: {each.verdict}")
    for part, told in verdicts.items():
        yield part, "said and tested", "; ".join(told)


def _membership(found: Discovered) -> Iterator[Fact]:
    graph, inside = found.circuit.graph, found.circuit.parts
    edges = [str(edge) for edge in found.circuit.edges]
    for writer in graph.writers:
        part = str(writer)
        if writer.kind not in ("head", "mlp"):
            continue
        into = sum(edge.partition("->")[2].partition("<")[0] == part for edge in edges)
        out = sum(edge.partition("->")[0] == part for edge in edges)
        said = f"yes, {into} edges in and {out} out" if part in inside else "no"
        yield part, "in the circuit", said


def _needed(found: Evaluated) -> Iterator[Fact]:
    for row in found.circuit.minimality.to_dict("records"):
        ends = f"95 % CI {percent(row['low'])} to {percent(row['high'])}"
        yield (
            str(row["part"]),
            "the circuit without it",
            f"changes by {percent(row['change'])} of the effect ({ends})",
        )


def _direct(found: Attribution) -> Iterator[Fact]:
    heads = bootstrap(found.heads.to_numpy())
    for layer, head in np.ndindex(heads.mean.shape):
        ends = [float(each[layer, head]) for each in (heads.mean, heads.low, heads.high)]
        yield f"a{layer}.h{head}", "adds to the logit difference directly", _written(ends)
    grouped = found.grouped("component")
    each = bootstrap(grouped.to_numpy())
    rows = np.stack([each.mean, each.low, each.high], axis=1).tolist()
    for name, ends in zip(grouped["component"].to_numpy(), rows, strict=True):
        kind, _, layer = str(name).partition(".")
        if kind == "mlp_out":
            yield f"m{layer}", "adds to the logit difference directly", _written(ends)


def _effects(effects: Effects, what: str) -> Iterator[Fact]:
    """What moving a head does, or an MLP at the place where that does most."""
    rows: dict[str, dict[Any, Any]] = {}
    for row in effects.top(effects.mean.size).to_dict("records"):  # the strongest first
        layer = row["layer"]
        part = f"a{layer}.h{row['head']}" if "head" in effects.axes else f"m{layer}"
        rows.setdefault(part, row)
    for part, row in rows.items():
        at = f" at {place_name(row['position'])}" if "position" in effects.axes else ""
        chance = "" if np.isnan(row["p_corrected"]) else f", {p_value(float(row['p_corrected']))}"
        ends = (row["effect"], row["low"], row["high"])
        yield part, f"{what}{at}", f"{_written(ends)}{chance}"


def _written(ends: Sequence[float]) -> str:
    return Estimate(*map(float, ends)).written(sign=True)
