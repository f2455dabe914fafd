"""What was found out about a circuit, and whether it passes.

A circuit passes when all of these controls hold (`checks` says each with its numbers):

| control | what must hold |
|---|---|
| `prefers` | the model prefers right answers: the interval of the logit difference is above 0 |
| `answers` | and because of the prompt: others' answers are preferred less (p < 0.01) |
| `effect` | the clean run is better than the replaced one (sign flips, p < 0.01) |
| `faithful` | the whole interval of faithfulness lies within `span` |
| `random` | at most 5 % of random circuits like it have an interval that reaches its own |

The first three ask whether there is a behaviour that a circuit could be one of, which is what
shuffled answers and untrained models lack. `answers` needs examples with different answers, and is
left out where all have the same; below 8 prompts no `effect` can be so sure. At that level one null
in a hundred is let through by chance, whatever is found on it. The tests of Shi
et al. 2024 stand beside these (`tests`): the idealised ones are strict, few circuits in trained
models pass them all, and they take no part in `passes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
import pandas as pd
import xarray as xr

from cutaway.circuits.circuit import Circuit
from cutaway.circuits.faithfulness import Ratio
from cutaway.circuits.graph import Graph
from cutaway.circuits.significance import Test
from cutaway.circuits.stability import STABLE
from cutaway.measure.result import Result

_REACHING = 0.05


@dataclass(frozen=True, kw_only=True)
class Check:
    """One control, and whether it holds."""

    passed: bool
    """Whether it holds."""
    says: str
    """What was found, with its numbers."""

    def __str__(self) -> str:
        return f"{'holds' if self.passed else 'FAILS'}: {self.says}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation(Result):
    """What was found out about a circuit."""

    circuit: Circuit
    """The circuit."""
    metric: str
    """The metric's name."""
    ablation: str
    """What an edge carries when it is off."""
    values: xr.DataArray
    """(mask, example): the metric of `circuit`, `model`, `nothing`, and of `random 0`, `random 1`,
    and so on."""
    faithfulness: Ratio
    """How much of the behaviour it keeps."""
    controls: tuple[Ratio, ...]
    """The same of random circuits of its size and shape."""
    others: Mapping[str, Ratio]
    """Its faithfulness under other measures, by "METRIC, ABLATION", and on other prompts, by the
    name that they were given under."""
    preference: Ratio
    """The model's logit difference between right and wrong answers, with its interval."""
    background: tuple[Test, ...]
    """The tests of whether there is a behaviour: `answers` and `effect`."""
    tests: tuple[Test, ...]
    """The tests of Shi et al. 2024; none when only the controls were asked for."""
    incompleteness: pd.DataFrame
    """One row per random set: `parts`, `circuit` and `model` (mean metrics without the set), and
    `distance` with `low` and `high`, as a fraction of the whole effect."""
    minimality: pd.DataFrame
    """One row per part, the least needed first: `part`, and `change` with `low` and `high`."""
    edges: pd.DataFrame
    """One row per edge tested, the least needed first: `edge`, `change` (mean absolute, as a
    fraction of the whole effect), and the uncorrected `p` of its being idle."""
    inclusion: Mapping[str, float]
    """For each of its edges, the share of resampled circuits that hold it; empty when nothing was
    resampled."""
    span: tuple[float, float]
    """Where the interval of faithfulness has to lie."""
    provenance: Mapping[str, Any] = field(repr=False)
    """Versions, model, data and settings."""
    unmeasured: Mapping[str, str] = field(default_factory=dict[str, str])
    """Why some of the other measures and prompts are not in `others`, by the same names: they have
    no effect that a circuit could keep a fraction of."""

    @property
    def checks(self) -> dict[str, Check]:
        """Every control by name (see the module)."""
        low, high = self.span
        own, reach = self.faithfulness, self._reaching()
        if self.values.sizes["example"] < 2:
            return _of_one_prompt(self.preference, own)
        return {
            "prefers": Check(
                passed=self.preference.low > 0,
                says=f"the model prefers the right answers by {self.preference} logits",
            ),
            **{
                test.name: Check(passed=test.passed, says=f"p = {test.p:.2g} if {test.null}")
                for test in self.background
            },
            "faithful": Check(
                passed=low <= own.low and own.high <= high,
                says=f"faithfulness {own}, to lie within {low:g} and {high:g}",
            ),
            "random": Check(
                passed=reach <= _REACHING,
                says=f"{reach:.0%} of {len(self.controls)} random circuits reach its interval"
                if self.controls else "there are no random circuits to compare with",
            ),
        }  # fmt: skip

    def _reaching(self) -> float:
        """The share of random circuits whose interval reaches the circuit's."""
        reached = [not one.high < self.faithfulness.low for one in self.controls]
        return float(np.mean(reached)) if reached else 1.0

    @property
    def passes(self) -> bool:
        """Whether every control holds."""
        return all(check.passed for check in self.checks.values())

    def __str__(self) -> str:
        failed = [name for name, check in self.checks.items() if not check.passed]
        lines = [
            f"{len(self.circuit)} of {len(self.circuit.graph)} edges ({self.circuit.share:.1%}), "
            f"{self.metric}, {self.ablation}, {self.values.sizes['example']} prompts",
            *_columns([("faithfulness", str(self.faithfulness)), *self._beside()]),
            *map(str, self.tests),
            f"passes: {'no: ' + ', '.join(failed) if failed else 'yes'}",
        ]
        return "\n".join(lines)

    def _beside(self) -> list[tuple[str, str]]:
        rows = [(name, str(ratio)) for name, ratio in self.others.items()]
        rows += [(name, "no effect to keep a fraction of") for name in self.unmeasured]
        if self.controls:
            means = [one.mean for one in self.controls]
            rows.insert(0, (f"{len(means)} random alike", f"at most {max(means):.3f}"))
        if self.inclusion:
            stable = sum(share >= STABLE for share in self.inclusion.values())
            rows.append(("stable edges", f"{stable} of {len(self.inclusion)}"))
        if len(self.incompleteness):
            rows.append(("incompleteness", f"at most {self.incompleteness['distance'].max():.3f}"))
        if len(self.minimality):
            least = self.minimality.to_dict("records")[0]
            rows.append(("least needed part", f"{least['part']} ({least['change']:.3f})"))
        return rows

    def to_dataset(self) -> xr.Dataset:
        """Values, with everything else as attributes."""
        circuit = {
            "graph": asdict(self.circuit.graph), "edges": [str(e) for e in self.circuit.edges],
            "provenance": dict(self.circuit.provenance),
        }  # fmt: skip
        attributes = {
            "circuit": circuit, "metric": self.metric, "ablation": self.ablation,
            "span": list(self.span), "inclusion": dict(self.inclusion),
            "unmeasured": dict(self.unmeasured), "provenance": dict(self.provenance),
            **{name: asdict(getattr(self, name)) for name in _RATIO},
            **{name: [asdict(one) for one in getattr(self, name)] for name in _LISTS},
            "others": {name: asdict(ratio) for name, ratio in self.others.items()},
            **{name: getattr(self, name).to_dict("list") for name in _TABLES},
        }  # fmt: skip
        return xr.Dataset({"values": self.values}, attrs=attributes)

    @classmethod
    def from_dataset(cls, data: xr.Dataset) -> Self:
        """The evaluation that `to_dataset` gave this."""
        found: dict[str, Any] = dict(data.attrs)
        circuit = found.pop("circuit")
        graph = Graph(**circuit["graph"])
        kept = graph.mask(circuit["edges"])
        ratios: dict[str, Any] = {name: Ratio(**found.pop(name)) for name in _RATIO}
        lists: dict[str, Any] = {
            name: tuple(kind(**one) for one in found.pop(name)) for name, kind in _LISTS.items()
        }
        tables: dict[str, Any] = {name: pd.DataFrame(found.pop(name)) for name in _TABLES}
        others = {name: Ratio(**one) for name, one in found.pop("others").items()}
        return cls(
            circuit=Circuit(graph=graph, kept=kept, provenance=circuit["provenance"]),
            values=data["values"], span=tuple(found.pop("span")), others=others,
            **ratios, **lists, **tables, **found,
        )  # fmt: skip


_RATIO = ("faithfulness", "preference")
_LISTS: dict[str, type[Any]] = {"controls": Ratio, "background": Test, "tests": Test}
_TABLES = ("incompleteness", "minimality", "edges")


def _of_one_prompt(preference: Ratio, faithfulness: Ratio) -> dict[str, Check]:
    """The controls that ask for an interval, which a single prompt does not have."""
    found = {
        "prefers": f"the model prefers the right answers by {preference.mean:.3f} logits",
        "faithful": f"faithfulness is {faithfulness.mean:.3f}",
        "random": "random circuits are compared by their intervals",
    }
    needs = "an interval needs two prompts or more"
    return {name: Check(passed=False, says=f"{says}; {needs}") for name, says in found.items()}


def _columns(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Two columns, the first as wide as its longest entry."""
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {says}" for name, says in rows]
