"""Methods against the truth: the bars, resuming, and names that are not known."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cutaway.circuits import METHODS
from cutaway.ground_truth import (
    MODELS,
    GroundTruth,
    GroundTruthError,
    Report,
    Row,
    choose_methods,
    choose_models,
    identity,
    measure,
    measured,
)
from cutaway.patch.journal import Journal

torch.set_num_threads(1)
CONSTRUCTED = [name for name in MODELS if not name.endswith("-trained")]
TRAINED = [name for name in MODELS if name.endswith("-trained")]


def rows(models: list[str], methods: list[str], examples: int = 20, **more: Any) -> list[Row]:
    return list(measure(models, methods, examples=examples, **more))


def test_there_are_six_models_of_each_kind() -> None:
    assert len(CONSTRUCTED) == len(TRAINED) == 6
    assert choose_models(["trained", "sort", "sort"]) == (*TRAINED, "sort")
    assert choose_models(None) == MODELS
    assert choose_methods(None) == tuple(METHODS)


@pytest.mark.parametrize("name", CONSTRUCTED)
def test_effects_find_constructed_circuits(name: str) -> None:
    more = ["acdc"] if name in ("fraction", "reverse") else []
    for row in rows([name], ["exact", "eap-ig", *more], examples=16):
        assert (row.edges, row.nodes, row.precision) == (1.0, 1.0, 1.0), row
        assert 0 < row.seconds < 60
        assert np.isnan(row.megabytes) or 0 <= row.megabytes < 1000


def test_learned_masks_find_a_constructed_circuit() -> None:
    for row in rows(["fraction"], ["edge-pruning", "acdc"], examples=16):
        assert (row.edges, row.nodes, row.precision) == (1.0, 1.0, 1.0), row


@pytest.mark.parametrize("name", TRAINED)
def test_effects_find_trained_circuits(name: str) -> None:
    exact, path = rows([name], ["exact", "eap-ig"], examples=16)
    assert exact.edges >= 0.98
    assert path.edges >= 0.95
    assert exact.nodes == 1.0


def test_baselines_do_not() -> None:
    for row in rows(["sort", "induction-trained"], ["random", "magnitude"]):
        assert row.edges < 0.9


Counted = Callable[..., object]


def test_what_is_finished_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rows to the last bit, times and memory too, and only the rest is run."""
    ran: list[tuple[str, str]] = []
    discover = measured.discover

    def counted(on: Any, behaviour: Any, method: str, **more: Any) -> Any:
        if more:  # not the warming up
            ran.append((behaviour.name, method))
        return discover(on, behaviour, method, **more)

    monkeypatch.setattr(measured, "discover", counted)
    whose = identity(examples=6, seed=0)
    with Journal.beside(tmp_path / "out.json", whose) as journal:
        partly = measure(["fraction", "sort"], ["eap", "random"], examples=6, journal=journal)
        first = [next(partly) for _ in range(3)]
    with Journal.beside(tmp_path / "out.json", whose) as journal:
        assert journal.resumed == 3
        every = rows(["fraction", "sort"], ["random", "eap"], examples=6, journal=journal)
    assert ran == [("fraction", "eap"), ("fraction", "random"), ("sort", "eap"), ("sort", "random")]
    assert {(row.model, row.method): row for row in first}.items() <= {
        (row.model, row.method): row for row in every
    }.items()


def test_unknown_names_and_too_few_examples_are_refused_in_a_sentence() -> None:
    with pytest.raises(GroundTruthError, match=r"no model 'srot'; did you mean 'sort'\? There are"):
        measure(["srot"])
    with pytest.raises(GroundTruthError, match=r"no discovery method 'eap_ig'; .* 'eap-ig'\?"):
        measure(None, ["eap_ig"])
    with pytest.raises(GroundTruthError, match=r"at least one model: reverse, "):
        measure([])
    with pytest.raises(GroundTruthError, match=r"2 examples or more; found 1"):
        measure(None, None, examples=1)


def test_rows_as_tables(tmp_path: Path) -> None:
    found = GroundTruth(
        rows=[
            Row(model=model, method=method, edges=edges, nodes=1.0, precision=0.25, seconds=0.5,
                megabytes=float("nan"))
            for model, method, edges in [
                ("sort", "eap", 0.5), ("sort", "exact", 1.0), ("reverse", "eap", 0.7),
                ("reverse", "exact", 0.9), ("sort-trained", "eap", 0.6),
            ]
        ],
        provenance={"seed": 0},
    )  # fmt: skip
    assert "Circuits" not in found.text()
    text = found.markdown()
    assert "| method | sort | reverse | mean |" in text
    assert "| `eap` | 0.500 | 0.700 | 0.600 |" in text
    assert "| `eap` | 0.600 | 0.600 |" in text
    assert "| `exact` | 0.5 | – |" in text.replace("0.50", "0.5")
    lines = found.save(tmp_path / "deep" / "rows.csv").read_text().splitlines()
    assert lines[0].startswith("kind,model,method,edges")
    assert lines[5].startswith("trained,sort-trained,eap,0.6")
    assert '"seed": 0' in found.save(tmp_path / "rows.json").read_text()
    with pytest.raises(GroundTruthError, match=r"ends in .csv or .json; found .*rows.parquet"):
        found.save(tmp_path / "rows.parquet")


def test_reports_as_tables() -> None:
    def report(kind: str, case: str, method: str, edges: int, passed: bool) -> Report:
        return Report(kind=kind, case=case, method=method, true=4, edges=edges,
                      checks={"faithful": passed})  # fmt: skip

    reports = [
        report("trained", "sort-trained", "eap", 4, True),
        report("trained", "sort-trained", "random", 90, False),
        report("untrained", "null-0", "eap", 0, False),
        report("shuffled-answers", "null-1", "eap", 7, True),
    ]
    text = GroundTruth(rows=[], reports=reports, provenance={}).markdown()
    assert "| `true edges` | 4 |\n| `eap` | 4 |\n| `random` | 90 ✗ |" in text
    assert "| method | untrained | shuffled-answers | all |" in text
    assert "| `eap` | 0 of 1 | 1 of 1 | 1 of 2 |" in text
    assert "| method | found | faithful | and beyond random ones | and of a behaviour |" in text
    assert "| `eap` | 1 | 1 | 0 | 1 |" in text
