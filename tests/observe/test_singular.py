"""Singular vectors in tokens, against products multiplied out and planted directions."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cutaway.errors import CutawayError
from cutaway.model import Model, Site
from cutaway.model.weights import mlp_output
from cutaway.observe import SingularTokens, WeightsError, singular_tokens
from cutaway.observe import weights as w


def whole(model: Model, matrix: str, layer: int, head: int) -> torch.Tensor:
    if matrix == "ov":
        return w.ov(model, layer).product[head]
    if matrix == "mlp_in":
        return w.reading(model, Site("mlp_pre", layer)).mT
    return mlp_output(model, layer).float()


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
@pytest.mark.parametrize("matrix", ["ov", "mlp_in", "mlp_out"])
def test_equals_the_decomposition_of_the_product(
    opened: Callable[[str], Model], family: str, matrix: str
) -> None:
    model = opened(family)
    found = singular_tokens(model, matrix, vectors=3, tokens=5)  # type: ignore[arg-type]
    part = "1.2" if matrix == "ov" else "1"
    product = whole(model, matrix, 1, 2)
    u, s, vh = torch.linalg.svd(product.double(), full_matrices=False)
    np.testing.assert_allclose(found.values.sel(part=part), s[:3], rtol=1e-4)
    np.testing.assert_allclose(found.energy.sel(part=part), (s**2 / (s**2).sum())[:3], rtol=1e-3)
    tables = {"input": w.embedding(model), "output": w.unembedding(model)}
    for vector in range(3):
        # whichever sign the decomposition has, it is the same at both ends
        ends = {}
        for end, direction in zip(found.ids["end"].values, (u[:, vector], vh[vector]), strict=True):
            scores = direction if end == "neurons" else tables[end].double() @ direction
            ends[end] = scores if end == "neurons" else scores - scores.mean()
        tail = ends.get("output", ends.get("input"))
        assert tail is not None
        sign = -1 if (tail**3).sum() < 0 else 1
        for end, scores in ends.items():
            at = found.ids.sel(part=part, vector=vector, end=end)
            expected = (sign * scores).argsort(descending=True)
            assert at.sel(sign="+").values.tolist() == expected[:5].tolist()
            assert at.sel(sign="-").values.tolist() == expected.flip(0)[:5].tolist()
            np.testing.assert_allclose(
                found.scores.sel(part=part, vector=vector, end=end, sign="+"),
                (sign * scores)[expected[:5]], rtol=1e-3, atol=1e-4,
            )  # fmt: skip


def test_a_planted_direction_is_read(opened: Callable[[str], Model]) -> None:
    """A head made to write token 7 wherever it sees token 5 says so, with a plus at both ends."""
    model = opened("gpt_neox")
    part = model.anatomy.layers[1]
    rows, columns = w.embedding(model), w.unembedding(model)
    with torch.no_grad():
        width = model.d_head
        # the values of head 0 in the packing (head, qkv, d_head)
        values = part.v.weight.view(model.n_heads, 3, width, -1)[0, 2]  # type: ignore[operator]
        norm = part.block.get_parameter("input_layernorm.weight")
        centred = rows[5] - rows[5].mean()
        values.zero_()[0] = 50 * centred / norm
        part.o_proj.weight[:, :width].zero_()  # type: ignore[index]
        part.o_proj.weight[:, 0] = columns[7]  # type: ignore[index]
    found = singular_tokens(model, vectors=1, tokens=1)
    at = found.ids.sel(part="1.0", vector=0, sign="+")
    assert at.sel(end="output").item() == 7
    assert at.sel(end="input").item() == 5
    assert float(found.energy.sel(part="1.0", vector=0)) == pytest.approx(1, abs=1e-4)


def test_prints_tabulates_and_saves(opened: Callable[[str], Model], tmp_path: Path) -> None:
    found = singular_tokens(opened("gpt2"), "mlp_out", vectors=2, tokens=3)
    again = SingularTokens.load(found.save(tmp_path / "singular.nc"))
    assert str(again) == str(found)
    assert again.table("0").equals(found.table("0"))
    assert list(found.table("1").columns) == [
        "vector", "value", "neurons +", "neurons -", "output +", "output -",
    ]  # fmt: skip
    assert "n" in found.texts.sel(part="0", end="neurons").values[0, 0, 0]


def test_what_is_refused(opened: Callable[[str], Model]) -> None:
    with pytest.raises(WeightsError, match="found 'qk'"):
        singular_tokens(opened("gpt2"), "qk")  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match="vectors=99"):
        singular_tokens(opened("gpt2"), vectors=99)
    with pytest.raises(WeightsError, match=r"no part '9\.9'"):
        singular_tokens(opened("gpt2"), vectors=1).table("9.9")
    for matrix in ("mlp_in", "mlp_out"):
        with pytest.raises(CutawayError, match="mixture of experts"):
            singular_tokens(opened("mixtral"), matrix)
