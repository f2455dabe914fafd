"""Pictures of weights: one function for everything that is read in them.

| what | drawn as |
|---|---|
| `TokenCircuit` | a heatmap of the chosen tokens' entries, rows against columns |
| `Composition` | a heatmap of earlier against later heads |
| `Copying` | a heatmap by layer and head |
| `SingularTokens` | a heatmap of the singular values of each head or MLP |

A circuit over tokens is a vocabulary × vocabulary matrix that nobody can look at; `token_circuit`
takes the entries of chosen tokens out of its thin factors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self, get_args

import numpy as np
import xarray as xr

from cutaway.measure.result import Result
from cutaway.model.model import Model
from cutaway.observe.factored import Factored, WeightsError
from cutaway.observe.lens import token_texts
from cutaway.observe.singular import SingularTokens
from cutaway.observe.weights import (
    Composition,
    Copying,
    embedding,
    origin,
    ov,
    qk,
    unembedding,
)
from cutaway.views.figure import Figure
from cutaway.views.heatmap import heatmap

Circuit = Literal["qk", "ov"]
"""Which circuit of a head is read over tokens."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenCircuit(Result):
    """A head's full circuit at chosen tokens."""

    values: xr.DataArray
    """(row, column): for `qk`, W_E · QK · W_Eᵀ, queries along the rows, keys along the columns; for
    `ov`, W_E · OV · W_Uᵀ, what is attended to along the rows, outputs along the columns."""
    circuit: Circuit
    """Which circuit."""
    head: str
    """"layer.head"."""
    provenance: Mapping[str, Any] = field(repr=False)
    """The model."""

    def to_dataset(self) -> xr.Dataset:
        """All of it."""
        attrs = {name: getattr(self, name) for name in ("circuit", "head", "provenance")}
        return xr.Dataset({"values": self.values}, attrs=attrs)

    @classmethod
    def from_dataset(cls, data: xr.Dataset) -> Self:
        """The inverse of `to_dataset`."""
        return cls(values=data["values"], **data.attrs)


def token_circuit(
    model: Model,
    circuit: Circuit,
    head: str,
    rows: Sequence[str | int],
    columns: Sequence[str | int] | None = None,
) -> TokenCircuit:
    """A head's QK or OV circuit at chosen tokens (texts that are one token each, or ids).

    `head` is "layer.head"; `columns` are the rows when not given. The reading norm's gain is folded
    in and its scale left out, as in `weights`. Raises `WeightsError` or `InputError` for circuits,
    heads and tokens that there are not.
    """
    if circuit not in get_args(Circuit):
        raise WeightsError(f"A head has the circuits 'qk' and 'ov'; found {circuit!r}.")
    layer, index = _place(model, head)
    down, across = (_ids(model, each) for each in (rows, rows if columns is None else columns))
    whole = (qk if circuit == "qk" else ov)(model, layer)[index]
    ends = embedding(model) if circuit == "qk" else unembedding(model)
    chosen = Factored(embedding(model)[down] @ whole.left, whole.right @ ends[across].mT)
    texts = [token_texts(model, np.array(each)).tolist() for each in (down, across)]
    return TokenCircuit(
        values=xr.DataArray(
            chosen.product.cpu().numpy(), {"row": texts[0], "column": texts[1]}, ("row", "column")
        ),
        circuit=circuit, head=head, provenance=origin(model),
    )  # fmt: skip


def draw_weights(found: TokenCircuit | Composition | Copying | SingularTokens) -> Figure:
    """The picture of a result that was read off weights; see the module's table."""
    if isinstance(found, TokenCircuit):
        return _tokens(found)
    if isinstance(found, Composition):
        return _composition(found)
    if isinstance(found, Copying):
        return _copying(found)
    return _singular(found)


def _tokens(found: TokenCircuit) -> Figure:
    values = found.values.to_numpy()
    rows, columns = ([str(t) for t in found.values[d].to_numpy()] for d in ("row", "column"))
    best = np.unravel_index(int(np.abs(values).argmax()), values.shape)
    axes = {"qk": ("query", "key"), "ov": ("attended to", "output")}[found.circuit]
    ends = {"qk": ("looks away", "looks there"), "ov": ("lowers", "raises")}[found.circuit]
    return heatmap(
        values, rows, columns, title=f"{found.circuit.upper()} circuit of head {found.head}",
        shows=f"The strongest entry is {rows[best[0]]!r} with {columns[best[1]]!r}.",
        row_axis=axes[0], column_axis=axes[1], measure="entry, norms' scales left out", ends=ends,
        reproduce=f'draw_weights(token_circuit(model, "{found.circuit}", "{found.head}", […]))',
    )  # fmt: skip


def _composition(found: Composition) -> Figure:
    if found.values.sizes["layer"] < 2:
        raise WeightsError("A model of one layer has no heads that compose, and no picture of it.")
    between = found.values.isel(writer_layer=slice(-1), layer=slice(1, None))
    flat = between.stack(writer=("writer_layer", "writer_head"), reader=("layer", "head"))
    flat = flat.transpose("writer", "reader")
    rows, columns = (
        [f"{layer}.{head}" for layer, head in flat[axis].to_numpy()]
        for axis in ("writer", "reader")
    )
    values = flat.to_numpy()
    above = int((values > found.bound).sum())
    return heatmap(
        values - found.chance, rows, columns,
        title=f"{found.through.upper()}-composition of earlier with later heads",
        shows=f"{above} of {int(np.isfinite(values).sum())} pairs are above what 99 % of random "
        "ones stay under.",
        row_axis="writing head", column_axis="reading head",
        measure=f"score less chance ({found.chance:.3f})",
        reproduce=f'draw_weights(composition(model, "{found.through}"))',
    )  # fmt: skip


def _copying(found: Copying) -> Figure:
    values = found.values.to_numpy()
    above = int((values > found.chance).sum())
    rows, columns = ([str(n) for n in found.values[d].to_numpy()] for d in ("layer", "head"))
    return heatmap(
        values, rows, columns, title="Copying scores of OV circuits",
        shows=f"{above} of {values.size} heads copy more than random ones ({found.chance:.2f}).",
        measure="copying score", ends=("lowers its own", "copies"), limit=1.0,
        reproduce="draw_weights(copying(model))",
    )  # fmt: skip


def _singular(found: SingularTokens) -> Figure:
    values = found.values.to_numpy()
    parts = [str(part) for part in found.values["part"].to_numpy()]
    best = int(values[:, 0].argmax())
    return heatmap(
        values, parts, [str(n) for n in found.values["vector"].to_numpy()],
        title=f"Largest singular values of {found.matrix}",
        shows=f"The largest is {values[best, 0]:.3g}, of {parts[best]}.",
        row_axis="head" if found.matrix == "ov" else "layer", column_axis="singular vector",
        measure="singular value", signed=False,
        reproduce=f'draw_weights(singular_tokens(model, "{found.matrix}"))',
    )  # fmt: skip


def _place(model: Model, head: str) -> tuple[int, int]:
    site = model.check_site(f"head_out.{head}")
    if site.layer is None or site.index is None:
        raise WeightsError(f"A head is named 'layer.head', for example '0.1'; found {head!r}.")
    return site.layer, site.index


def _ids(model: Model, given: Sequence[str | int]) -> list[int]:
    if isinstance(given, str) or not given:
        raise WeightsError(f"Tokens are a list of texts or ids, at least one; found {given!r}.")
    ids = [model.single_token(each) if isinstance(each, str) else int(each) for each in given]
    wrong = [each for each in ids if not 0 <= each < model.d_vocab]
    if wrong:
        raise WeightsError(f"{model.name} has the tokens 0 to {model.d_vocab - 1}; found {wrong}.")
    return ids
