"""Comparing two studies: two models, two checkpoints, two behaviours, or the same one again.

Only saved results are read; no model is opened. What is held together:

- from outside: accuracy, logit difference and probability difference on the clean prompts;
- heads, where the two models have as many layers and heads: what each adds to the logit difference
  directly, and what moving it from one run to the other does, each as a share of the behaviour (of
  the mean logit difference, of the mean gap between clean and corrupt), since the logits of two
  models or behaviours are no common scale. The shares' scale is taken as known;
- the circuits, edge by edge where they are of one graph, else by where their edges lie, beside
  chance (`cutaway.circuits.compare`), and how much each keeps on held-out prompts;
- the roles and attacks that they tested, with both verdicts.

Where both studied the same prompts, examples are compared with themselves (`contrast`). A part that
cannot be compared is left out with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from cutaway.circuits import CircuitError
from cutaway.circuits import compare as compare_circuits
from cutaway.errors import StudyError
from cutaway.measure.significance import sign_flips
from cutaway.observe import Attribution
from cutaway.patch import Effects
from cutaway.study.blackbox import MEASURES, BlackBox
from cutaway.study.comparison import Heads, Measure, StudyComparison, Verdicts
from cutaway.study.contrast import contrast, correlation
from cutaway.study.discovery import Discovered
from cutaway.study.evaluation import Evaluated
from cutaway.study.patching import Patching
from cutaway.study.reading import read_study
from cutaway.study.stage import Skipped
from cutaway.study.study import Study
from cutaway.study.tested import Hypotheses
from cutaway.study.verdict import LEVEL, RedTeam

Found = TypeVar("Found")
_NAMES = {
    "accuracy": "accuracy",
    "logit_diff": "logit difference",
    "prob_diff": "probability difference",
}
_COMPARED = (
    "blackbox", "attribution", "patching", "discovery", "evaluation", "hypotheses", "redteam",
)  # fmt: skip


def compare(one: Study | str | Path, other: Study | str | Path) -> StudyComparison:
    """Hold two studies, or the directories of two, together.

    Raises `StudyError` where there is no study, or where the two have no stage in common.
    """
    return _Pair(
        *(each if isinstance(each, Study) else read_study(each) for each in (one, other))
    )()


class _Pair:
    """Two studies on their way to a comparison."""

    def __init__(self, one: Study, other: Study) -> None:
        self.studies = (one, other)
        self.names = _names(one, other)
        self.left_out: dict[str, str] = {}
        first, second = (study.manifest for study in self.studies)
        self.paired = first.behaviour["fingerprint"] == second.behaviour["fingerprint"]
        self.seed = int(first.settings["seed"])

    def __call__(self) -> StudyComparison:
        done = [
            {name for name, found in study.results.items()
             if name in _COMPARED and not isinstance(found, Skipped)}
            for study in self.studies
        ]  # fmt: skip
        if not done[0] & done[1]:
            has = [", ".join(sorted(each)) or "nothing finished" for each in done]
            raise StudyError(
                f"{self.names[0]} and {self.names[1]} have no stage in common that could be "
                f"compared (the first has {has[0]}, the second {has[1]}); run the same stages of "
                "both."
            )
        first, second = (study.manifest for study in self.studies)
        return StudyComparison(
            names=self.names,
            differs=(*first.differences(second), *_settings(first.other_settings(second))),
            measures=(*self._outside(), *self._kept()),
            heads=tuple(self._heads()),
            circuits=self._circuits(),
            roles=tuple(self._verdicts("hypotheses", Hypotheses, _roles)),
            attacks=tuple(self._verdicts("redteam", RedTeam, _attacks)),
            left_out=self.left_out,
        )

    def _both(self, stage: str, kind: type[Found], what: str) -> tuple[Found, Found] | None:
        """The results of a stage; None, with a reason, where one study lacks it."""
        for study, name in zip(self.studies, self.names, strict=True):
            found = study.results.get(stage)
            if not isinstance(found, kind):
                why = found.reason if isinstance(found, Skipped) else "it was not run."
                self.left_out[what] = f"{name} has no result of the stage {stage!r}: {why}"
                return None
        one, other = (study.of(kind, stage) for study in self.studies)
        return one, other

    def _outside(self) -> Iterator[Measure]:
        both = self._both("blackbox", BlackBox, "the behaviour from outside")
        if both is None:
            return
        each = [np.stack([box.each(name) for name in MEASURES]) for box in both]
        found = contrast(*each, paired=self.paired, seed=self.seed)
        for row, name in enumerate(MEASURES):
            ends = [box.interval(name) for box in both]
            one, other = (tuple(float(x) for x in (e.mean, e.low, e.high)) for e in ends)
            apart = tuple(float(x[row]) for x in (found.difference, found.low, found.high))
            yield Measure(
                name=_NAMES[name], one=_three(one), other=_three(other), difference=_three(apart),
                p=float(found.p_corrected[row]),
            )  # fmt: skip

    def _kept(self) -> Iterator[Measure]:
        both = self._both("evaluation", Evaluated, "what the circuits keep")
        if both is not None:
            ratios = [each.circuit.faithfulness for each in both]
            one, other = ((ratio.mean, ratio.low, ratio.high) for ratio in ratios)
            yield Measure(name="kept by the circuit, held out", one=one, other=other)

    def _heads(self) -> Iterator[Heads]:
        shapes = [tuple(study.manifest.model[name] for name in ("n_layers", "n_heads"))
                  for study in self.studies]  # fmt: skip
        if shapes[0] != shapes[1]:
            said = [f"{layers} layers of {heads} heads" for layers, heads in shapes]
            self.left_out["heads"] = (
                f"one model has {said[0]} and the other {said[1]}, so heads have no counterparts."
            )
            return
        both = self._both("attribution", Attribution, "what heads write")
        if both is not None:
            one, other = (_written(each) for each in both)
            yield from self._apart("what heads write", one, other)
        moved = self._both("patching", Patching, "what heads carry")
        if moved is not None:
            for name, kind in (("heads corrupted", "heads_noise"),
                               ("heads put back alone", "heads_denoise")):  # fmt: skip
                one, other = (_moved(getattr(each, kind)) for each in moved)
                yield from self._apart(name, one, other)

    def _apart(self, name: str, one: np.ndarray | str, other: np.ndarray | str) -> Iterator[Heads]:
        """Heads (layer, head, example) of both, unless there is no scale to compare on."""
        for found, study in ((one, self.names[0]), (other, self.names[1])):
            if isinstance(found, str):
                self.left_out[name] = f"in {study} {found}"
                return
        assert isinstance(one, np.ndarray)
        assert isinstance(other, np.ndarray)
        layers, heads, _ = one.shape
        flat = [each.reshape(layers * heads, -1) for each in (one, other)]
        paired = self.paired and flat[0].shape == flat[1].shape
        found = contrast(*flat, paired=paired, seed=self.seed)
        table = pd.DataFrame({
            "head": [f"{layer}.{head}" for layer in range(layers) for head in range(heads)],
            "one": flat[0].mean(axis=1), "other": flat[1].mean(axis=1),
            "difference": found.difference, "low": found.low, "high": found.high,
            "p": found.p_corrected,
        })  # fmt: skip
        yield Heads(
            name=name, correlation=correlation(*flat, paired=paired, seed=self.seed), table=table
        )

    def _circuits(self) -> pd.DataFrame | None:
        both = self._both("discovery", Discovered, "circuits")
        if both is None:
            return None
        names = self.names
        same = both[0].circuit.graph == both[1].circuit.graph
        try:
            return compare_circuits(
                {name: each.circuit for name, each in zip(names, both, strict=True)},
                scores={name: each.scores for name, each in zip(names, both, strict=True)},
                by="edges" if same else "depth", seed=self.seed,
            ).table()  # fmt: skip
        except CircuitError as error:
            self.left_out["circuits"] = str(error)
            return None

    def _verdicts(
        self, stage: str, kind: type[Found], read: Callable[[Found], dict[str, str]]
    ) -> Iterator[Verdicts]:
        what = {"hypotheses": "roles", "redteam": "attacks"}[stage]
        both = self._both(stage, kind, what)
        if both is not None:
            one, other = (read(each) for each in both)
            for about in dict.fromkeys((*one, *other)):
                yield Verdicts(
                    about=about, one=one.get(about, "–"), other=other.get(about, "–")
                )  # fmt: skip


def _names(one: Study, other: Study) -> tuple[str, str]:
    """What the two are called: by behaviour and model where that tells them apart."""
    said = [f"{each.manifest.behaviour['name']} in {each.manifest.model['name']}"
            for each in (one, other)]  # fmt: skip
    if said[0] == said[1]:
        said = [each.directory.name for each in (one, other)]
    if said[0] == said[1]:
        said = [str(each.directory) for each in (one, other)]
    return (said[0], said[1]) if said[0] != said[1] else (f"{said[0]} (1)", f"{said[0]} (2)")


def _settings(found: list[str]) -> list[str]:
    return [each for each in found if not each.startswith("its seed ")]


def _three(found: tuple[float, ...]) -> tuple[float, float, float]:
    return found[0], found[1], found[2]


def _written(found: Attribution) -> np.ndarray | str:
    """(layer, head, example): each head's share of the mean logit difference."""
    return _shares(
        found.heads.transpose("layer", "head", "example").to_numpy(), found.target.to_numpy(),
        "the logit difference is not shown to be other than zero",
    )  # fmt: skip


def _moved(found: Effects) -> np.ndarray | str:
    """(layer, head, example): each head's effect as a share of the mean gap, towards the source."""
    sign = 1 if found.mode == "denoise" else -1
    return _shares(
        sign * found.effect.transpose("layer", "head", "example").to_numpy(),
        (found.clean - found.corrupt).to_numpy(),
        "the corruption is not shown to change anything",
    )  # fmt: skip


def _shares(values: np.ndarray, whole: np.ndarray, nothing: str) -> np.ndarray | str:
    if len(whole) > 1 and float(sign_flips(whole[None]).p[0]) >= LEVEL:
        return f"{nothing}, so there is nothing to take shares of."
    return values / float(whole.mean())


def _roles(found: Hypotheses) -> dict[str, str]:
    return {str(each.hypothesis): each.verdict for each in found.tested}


def _attacks(found: RedTeam) -> dict[str, str]:
    return {f"{each.kind}: {each.name}": each.outcome for each in found.attacks}
