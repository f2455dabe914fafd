"""A discovery that was killed goes on from its journal, to the same numbers bit for bit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.circuits.each_family import EVEN, masked

from cutaway.behaviours import METRICS, Behaviour
from cutaway.circuits import METHODS, CircuitError, discover
from cutaway.circuits.batch import Batch
from cutaway.circuits.masked import Masked
from cutaway.patch.journal import JournalError

FEW: dict[str, dict[str, Any]] = {"edge-pruning": {"steps": 30}, "subnetwork": {"steps": 30}}


class Killed(Exception):  # noqa: N818
    """What ends a run in its middle."""


def killed_at(step: int) -> Any:
    def progress(done: int, total: int) -> None:
        if done >= min(step, total):
            raise Killed

    return progress


@pytest.mark.parametrize("method", list(METHODS))
def test_killed_and_continued_is_uninterrupted(
    method: str, pairs: Behaviour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on, path = masked("llama-grouped"), tmp_path / "scores.unfinished"
    options: dict[str, Any] = {"batch_size": 2, "seed": 3, **FEW.get(method, {})}
    whole = discover(on, pairs, method, **options)
    with pytest.raises(Killed):
        discover(
            on,
            pairs,
            method,
            journal=path,
            progress=killed_at(27 if method in FEW else 12),
            **options,
        )
    with path.open("ab") as file:
        file.write(b"half a record")  # what a kill while writing leaves
    passes: list[int] = []
    plain = Masked.end_logits
    monkeypatch.setattr(
        Masked, "end_logits", lambda *given, **named: (passes.append(1), plain(*given, **named))[1]
    )
    # other limits than those under which it was begun, which hold
    changed: dict[str, Any] = {**options, "batch_size": 5}
    found = discover(Masked(on.model, memory=10**6), pairs, method, journal=path, **changed)
    np.testing.assert_array_equal(found.values, whole.values)
    np.testing.assert_array_equal(found.clean, whole.clean)
    np.testing.assert_array_equal(found.ablated, whole.ablated)
    some = len(passes)
    again = discover(on, pairs, method, journal=path, **options)
    np.testing.assert_array_equal(again.values, whole.values)
    assert len(passes) == some, "what is finished was run again"


def test_what_is_finished_is_not_measured_again(
    pairs: Behaviour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on, path, readers = masked("gpt2"), tmp_path / "journal", list[Any]()
    plain = Batch.values

    def counted(self: Batch, kept: Any, layer: int | None = 0) -> np.ndarray:
        readers.append(layer)
        return plain(self, kept, layer)

    monkeypatch.setattr(Batch, "values", counted)
    for method, killed in (("exact", 10), ("acdc", 20)):
        readers.clear()
        discover(on, pairs, method)
        total = len(readers)
        readers.clear()
        with pytest.raises(Killed):
            discover(on, pairs, method, journal=path / method, progress=killed_at(killed))
        before = len(readers)
        assert 0 < before < total
        discover(on, pairs, method, journal=path / method)
        assert len(readers) == total


def test_a_journal_serves_its_own_work_only(pairs: Behaviour, tmp_path: Path) -> None:
    on, path = masked("gpt2"), tmp_path / "journal"
    discover(on, pairs, "eap-ig", journal=path, steps=2)
    others: list[dict[str, Any]] = [
        {"steps": 3}, {"seed": 1, "steps": 2}, {"metric": "kl", "steps": 2}
    ]  # fmt: skip
    for other in others:
        with pytest.raises(JournalError, match="holds other unfinished work"):
            discover(on, pairs, "eap-ig", journal=path, **other)
    with pytest.raises(JournalError, match="holds other unfinished work"):
        discover(on, EVEN, "eap-ig", journal=path, steps=2)
    own = replace(METRICS["logit_diff"], name="mine")
    with pytest.raises(CircuitError, match="cannot tell one metric 'mine' of your own from"):
        discover(on, pairs, "eap-ig", journal=tmp_path / "own", metric=own)
