"""Pictures of weights show the numbers of the products multiplied out."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cutaway.errors import CutawayError
from cutaway.model import Model
from cutaway.observe import (
    TokenCircuit,
    WeightsError,
    composition,
    copying,
    draw_weights,
    singular_tokens,
    token_circuit,
)
from cutaway.observe import weights as w
from cutaway.views.figure import Figure

ROWS, COLUMNS = [5, 9, 40], [3, 8]


def rows(picture: Figure) -> int:
    assert picture.table is not None
    return len(picture.table.rows)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("circuit", ["qk", "ov"])
def test_chosen_entries_of_the_whole_table(
    opened: Callable[[str], Model], family: str, circuit: str, tmp_path: Path
) -> None:
    model = opened(family)
    found = token_circuit(model, circuit, "1.2", ROWS, COLUMNS)  # type: ignore[arg-type]
    inner = (w.qk if circuit == "qk" else w.ov)(model, 1).product[2]
    ends = w.embedding(model) if circuit == "qk" else w.unembedding(model)
    table = w.embedding(model) @ inner @ ends.mT
    np.testing.assert_allclose(found.values, table[ROWS][:, COLUMNS], rtol=1e-3, atol=1e-4)
    again = TokenCircuit.load(found.save(tmp_path / "circuit.nc"))
    np.testing.assert_array_equal(again.values, found.values)
    assert again.head == "1.2"


def test_pictures_tell_the_numbers(opened: Callable[[str], Model]) -> None:
    model = opened("gpt2")
    circuit = token_circuit(model, "ov", "0.1", ROWS)
    picture = draw_weights(circuit)
    values = circuit.values.to_numpy()
    row, column = (ROWS[i] for i in np.unravel_index(np.abs(values).argmax(), values.shape))
    assert f"'{row}' with '{column}'" in picture.shows
    assert rows(picture) == 3
    scores = composition(model, "q")
    shown = draw_weights(scores)
    assert rows(shown) == model.n_heads  # writers of layer 0, readers of layer 1
    assert f"{int((scores.values > scores.bound).sum())} of 16 pairs" in shown.shows
    assert rows(draw_weights(copying(model))) == 2
    assert rows(draw_weights(singular_tokens(model, vectors=2))) == 8


def test_what_is_refused(opened: Callable[[str], Model]) -> None:
    model = opened("gpt2")
    with pytest.raises(WeightsError, match="found 'vo'"):
        token_circuit(model, "vo", "0.1", ROWS)  # type: ignore[arg-type]
    with pytest.raises(CutawayError, match="9"):
        token_circuit(model, "ov", "0.9", ROWS)
    with pytest.raises(WeightsError, match=r"found \[500\]"):
        token_circuit(model, "ov", "0.1", [500])
    with pytest.raises(WeightsError, match="at least one"):
        token_circuit(model, "ov", "0.1", [])
