"""Singular vectors of weights, read in tokens.

Millidge & Black 2022, "The Singular Value Decompositions of Transformer Weight Matrices are Highly
Interpretable". A matrix M = U · diag(S) · Vᵀ reads the stream along the columns of U and answers
each with a column of V:

| matrix | reads | writes |
|---|---|---|
| `ov` of a head, W_Vᵀ · W_O | the stream, in input tokens | the stream, in output tokens |
| `mlp_in` of a layer, W_inᵀ | the stream, in input tokens | neurons |
| `mlp_out` of a layer, W_out | neurons | the stream, in output tokens |

1. decompose the thin factors (`Factored.svd`): the OV circuit is never multiplied out;
2. score tokens at both ends. Input: the embedding's rows times U. Output: the unembedding's rows,
   with the final norm's gain folded in, times V; scores are given less their mean over the
   vocabulary, which a softmax does not see. Neurons are scored by their own coordinate;
3. (u, v) and (−u, −v) are the same pair, so its sign is a choice, and both ends turn together. Here
   the end that holds tokens (the output, of an OV circuit) has its longer tail on the positive
   side: what is written most clearly is written with a plus. What lies at the input's positive end
   then raises what lies at the output's positive end, and negative raises negative.

Deviations: the paper reads both ends with the unembedding; what a head reads is read here with the
embedding, through the gain of the norm before the layer. Norms' scales are left out, as in
`weights`. The gate's side is what `mlp_in` is in a gated MLP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from cutaway.measure.result import Result
from cutaway.model import weights as read
from cutaway.model.model import Model
from cutaway.model.sites import Site
from cutaway.observe.factored import WeightsError
from cutaway.observe.lens import token_texts
from cutaway.observe.weights import embedding, origin, ov, reading, unembedding

Matrix = Literal["ov", "mlp_in", "mlp_out"]
"""Which weights are decomposed."""

ENDS: Mapping[Matrix, tuple[str, str]] = {
    "ov": ("input", "output"), "mlp_in": ("input", "neurons"), "mlp_out": ("neurons", "output"),
}  # fmt: skip
"""What the left and the right singular vectors of each are read in."""
_DIMS = ("part", "vector", "end", "sign", "place")


@dataclass(frozen=True, kw_only=True, eq=False)
class SingularTokens(Result):
    """The largest singular values of heads or MLPs, and the tokens at each vector's ends."""

    values: xr.DataArray
    """(part, vector): singular values, the largest first. Parts are "layer.head" or "layer"."""
    energy: xr.DataArray
    """(part, vector): each one's share of the sum of all squared singular values."""
    ids: xr.DataArray
    """(part, vector, end, sign, place): token ids, or the numbers of neurons."""
    texts: xr.DataArray
    """The same as text."""
    scores: xr.DataArray
    """The same axes: each one's score, in the unit of a unit vector's projection."""
    matrix: Matrix
    """Which weights they are."""
    provenance: Mapping[str, Any] = field(repr=False)
    """The model."""

    def table(self, part: str) -> pd.DataFrame:
        """One row per singular vector of a part: its value, and what each end reads or writes."""
        known = [str(each) for each in self.values["part"].to_numpy()]
        if part not in known:
            raise WeightsError(
                f"There is no part {part!r} here; the parts are {known[0]!r} to {known[-1]!r}."
            )
        rows: list[dict[str, object]] = []
        for vector in self.values["vector"].to_numpy():
            at = {"part": part, "vector": vector}
            row: dict[str, object] = {"vector": int(vector), "value": float(self.values.sel(at))}
            for end in self.texts["end"].to_numpy():
                for sign in ("+", "-"):
                    texts = self.texts.sel(at | {"end": end, "sign": sign}).to_numpy()
                    row[f"{end} {sign}"] = " ".join(map(repr, texts.tolist()))
            rows.append(row)
        return pd.DataFrame(rows)

    def __str__(self) -> str:
        lines = [f"Singular vectors of {self.matrix}, read in tokens (+ end of each)"]
        for part in self.values["part"].to_numpy():
            value = float(self.values.sel(part=part).isel(vector=0))
            at = {"part": part, "vector": 0, "sign": "+"}
            ends = [
                f"{end} {' '.join(self.texts.sel(at | {'end': end}).to_numpy().tolist())}"
                for end in self.texts["end"].to_numpy()
            ]
            lines.append(f"{part}: {value:.3g}  {'  →  '.join(ends)}")
        return "\n".join(lines)

    def to_dataset(self) -> xr.Dataset:
        """All of it."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        return xr.Dataset(arrays, attrs={"matrix": self.matrix, "provenance": self.provenance})

    @classmethod
    def from_dataset(cls, data: xr.Dataset) -> Self:
        """The inverse of `to_dataset`."""
        return cls(**{name: data[name] for name in _ARRAYS}, **data.attrs)


_ARRAYS = ("values", "energy", "ids", "texts", "scores")


def singular_tokens(
    model: Model, matrix: Matrix = "ov", *, vectors: int = 4, tokens: int = 8
) -> SingularTokens:
    """The `vectors` largest singular vectors of every head or MLP, with `tokens` at each end.

    Raises `WeightsError` for another matrix or numbers that are too large, and `ModelError` for a
    mixture of experts when MLPs are asked for.
    """
    _check(model, matrix, vectors, tokens)
    parts: list[str] = []
    found: dict[str, list[np.ndarray]] = {name: [] for name in ("values", "energy", "ids", "at")}
    tables = _Tables(model)
    for layer in range(model.n_layers):
        for part, (u, s, v) in _decomposed(model, matrix, layer).items():
            parts.append(part)
            found["values"].append(s[:vectors].cpu().numpy())
            found["energy"].append((s.square() / s.square().sum())[:vectors].cpu().numpy())
            ids, scores = tables.extremes(matrix, u[:, :vectors], v[:, :vectors], tokens)
            found["ids"].append(ids)
            found["at"].append(scores)
    coords = {"part": parts, "vector": np.arange(vectors), "end": list(ENDS[matrix]),
              "sign": ["+", "-"], "place": np.arange(tokens)}  # fmt: skip
    flat = {name: coords[name] for name in _DIMS[:2]}
    ids = np.stack(found["ids"])
    texts = np.empty(ids.shape, dtype=object)
    for number, end in enumerate(ENDS[matrix]):
        here = ids[:, :, number]
        named = np.char.add("n", here.astype(str)) if end == "neurons" else token_texts(model, here)
        texts[:, :, number] = named
    return SingularTokens(
        values=xr.DataArray(np.stack(found["values"]), flat, _DIMS[:2]),
        energy=xr.DataArray(np.stack(found["energy"]), flat, _DIMS[:2]),
        ids=xr.DataArray(ids, coords, _DIMS),
        texts=xr.DataArray(texts.astype(str), coords, _DIMS),
        scores=xr.DataArray(np.stack(found["at"]), coords, _DIMS),
        matrix=matrix, provenance=origin(model, vectors=vectors, tokens=tokens),
    )  # fmt: skip


def _decomposed(
    model: Model, matrix: Matrix, layer: int
) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """U, S and V of each part of a layer, V as (n, k)."""
    if matrix == "ov":
        u, s, v = ov(model, layer).svd()
        return {f"{layer}.{head}": (u[head], s[head], v[head]) for head in range(model.n_heads)}
    if matrix == "mlp_in":
        # refuses a mixture of experts by name, before its missing site would
        read.mlp_output(model, layer)
        weight = reading(model, Site("mlp_pre", layer)).mT
    else:
        weight = read.mlp_output(model, layer).float()
    u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    return {str(layer): (u, s, vh.mT)}


class _Tables:
    """The vocabulary's directions, made once, and what lies at the ends of vectors."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.input = embedding(model)
        self.output = unembedding(model)

    def extremes(
        self, matrix: Matrix, u: Tensor, v: Tensor, many: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """(vector, end, sign, place): the numbers at the ends, and their scores."""
        names = ENDS[matrix]
        scores = [self._scores(name, x) for name, x in zip(names, (u, v), strict=True)]
        decides = scores[names.index("output") if "output" in names else names.index("input")]
        turn = torch.where(decides.pow(3).sum(dim=0) < 0, -1.0, 1.0)
        ids, at = zip(*(_ends(each * turn, many) for each in scores), strict=True)
        return np.stack(ids, axis=1), np.stack(at, axis=1)

    def _scores(self, end: str, x: Float[Tensor, "n vector"]) -> Float[Tensor, "entry vector"]:
        if end == "neurons":
            return x
        found = (self.input if end == "input" else self.output) @ x
        return found - found.mean(dim=0)


def _ends(scores: Float[Tensor, "entry vector"], many: int) -> tuple[np.ndarray, np.ndarray]:
    """(vector, sign, place): the largest and the smallest, the most extreme first."""
    high, low = scores.topk(many, dim=0), scores.topk(many, dim=0, largest=False)
    ids = torch.stack([high.indices.mT, low.indices.mT], dim=1)
    return ids.cpu().numpy(), torch.stack([high.values.mT, low.values.mT], dim=1).cpu().numpy()


def _check(model: Model, matrix: str, vectors: int, tokens: int) -> None:
    if matrix not in ENDS:
        raise WeightsError(
            f"Singular vectors are read of {', '.join(map(repr, ENDS))}; found {matrix!r}."
        )
    most = model.d_head if matrix == "ov" else model.d_model
    if not 1 <= vectors <= most or not 1 <= tokens <= model.d_vocab:
        raise WeightsError(
            f"{matrix!r} of {model.name} has {most} singular vectors over {model.d_vocab} tokens; "
            f"found vectors={vectors} and tokens={tokens}."
        )
