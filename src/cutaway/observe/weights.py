"""The circuits that are in the weights: QK, OV, and what lies between any writer and any reader.

For row vectors x of the residual stream (Elhage et al. 2021, "A Mathematical Framework for
Transformer Circuits"):

- QK circuit of a head: the score of query x for key y is  x · QK · yᵀ / √d_head,  QK = W_Qᵀ · W_K;
- OV circuit: attending to y writes  y · OV,  OV = W_Vᵀ · W_O;
- virtual weights: what a writer's output does to a reader's input, write · read.

All are `Factored`: never multiplied out. With `fold` (the default) the reader's own norm is folded
in: its gain multiplies the columns, and a LayerNorm's centring is applied; only the division by the
norm's scale, one number per position, is left out. Biases, rotary and q/k-norms are not weights of
a circuit and are left out as well; a post-norm stands after what is given here.

Scores:

- copying (section "copying heads"): Σ Re λ / Σ |λ| over the eigenvalues of the full OV circuit
  W_E · OV · W_Uᵀ. 1: every token raises its own logit; about 0 for chance; −1: lowers it.
- composition (section "composition"): ‖A·B‖ / (‖A‖ · ‖B‖) in Frobenius norms, A the writing head's
  OV and B the reading head's QK (for q), QKᵀ (for k) or OV (for v). For directions at random its
  mean square is 1/d_model; the spread is had by putting a random Gaussian matrix between A and B.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from cutaway.measure.result import Result
from cutaway.model import weights as read
from cutaway.model.anatomy import weight_of
from cutaway.model.model import Model
from cutaway.model.sites import Site
from cutaway.observe.factored import Factored, WeightsError

Through = Literal["q", "k", "v"]
"""The input of the reading head that is composed with."""

_CHANCE = 0.99


def qk(model: Model, layer: int, *, fold: bool = True) -> Factored:
    """(head, d_model, d_model): the QK circuits of a layer, queries on the left."""
    q = reading(model, Site("q", layer), fold=fold)
    return Factored(q.mT, _shared(model, reading(model, Site("k", layer), fold=fold)))


def ov(model: Model, layer: int, *, fold: bool = True) -> Factored:
    """(head, d_model, d_model): the OV circuits of a layer, what is attended to on the left."""
    v = _shared(model, reading(model, Site("v", layer), fold=fold))
    return Factored(v.mT, read.output(model, layer).float())


def reading(model: Model, site: Site, *, fold: bool = True) -> Float[Tensor, "*own d_model"]:
    """What `q`, `k`, `v` or `mlp_pre` reads of the stream: one direction per entry.

    Raises `WeightsError` where something that is not a norm stands between (latent attention).
    """
    found = read.projection(model, site).float()
    if found.shape[-1] != model.d_model:
        raise WeightsError(
            f"{str(site)!r} of {model.name} is projected from {found.shape[-1]} numbers, not from "
            f"the stream's {model.d_model} (latent attention), so it has no plain weights."
        )
    seen = Site("mlp_in" if site.kind == "mlp_pre" else "attn_in", site.layer)
    norm = read.frozen_norm_before(model, seen) if fold else None
    return found if norm is None else norm.pull_back(found)


def unembedding(model: Model, *, fold: bool = True) -> Float[Tensor, "vocab d_model"]:
    """The direction that each token's logit reads, through the final norm when folded."""
    rows = weight_of(model.anatomy.lm_head).detach().float() * model.anatomy.logit_scale
    return model.frozen_norm.pull_back(rows) if fold else rows


def embedding(model: Model) -> Float[Tensor, "vocab d_model"]:
    """The token embedding's rows."""
    rows = weight_of(model.anatomy.embed).detach().float()
    if rows.shape[1] != model.d_model:
        raise WeightsError(
            f"The embedding of {model.name} is {rows.shape[1]} wide and its stream "
            f"{model.d_model}, so its rows are no directions of the stream."
        )
    return rows[: model.d_vocab]


@dataclass(frozen=True, kw_only=True, eq=False)
class Copying(Result):
    """How far each head's full OV circuit copies tokens."""

    values: xr.DataArray
    """(layer, head), between −1 and 1."""
    chance: float
    """The largest magnitude that 99 % of heads with random values reach."""
    provenance: Mapping[str, Any] = field(repr=False)
    """The model."""

    def to_dataset(self) -> xr.Dataset:
        """All of it."""
        attrs = {"chance": self.chance, "provenance": dict(self.provenance)}
        return xr.Dataset({"values": self.values}, attrs=attrs)

    @classmethod
    def from_dataset(cls, data: xr.Dataset) -> Self:
        """The inverse of `to_dataset`."""
        return cls(values=data["values"], **data.attrs)


def copying(model: Model, *, draws: int = 20, seed: int = 0) -> Copying:
    """Copying scores of every head; `draws` random heads per layer give the chance level."""
    rows, columns = embedding(model), unembedding(model)
    many = min(len(rows), len(columns))
    generator = torch.Generator().manual_seed(seed)
    scores: list[Tensor] = []
    random: list[Tensor] = []
    for layer in range(model.n_layers):
        circuit = ov(model, layer)
        scores.append(_copying(circuit, rows[:many], columns[:many]))
        left = torch.randn(draws, model.d_model, circuit.rank, generator=generator)
        right = torch.randn(draws, circuit.rank, model.d_model, generator=generator)
        drawn = Factored(left.to(rows.device), right.to(rows.device))
        random.append(_copying(drawn, rows[:many], columns[:many]))
    chance = float(torch.cat(random).abs().quantile(_CHANCE))
    values = xr.DataArray(
        torch.stack(scores).cpu().numpy(),
        {"layer": np.arange(model.n_layers), "head": np.arange(model.n_heads)},
        ("layer", "head"), "copying",
    )  # fmt: skip
    return Copying(values=values, chance=chance, provenance=origin(model, draws=draws, seed=seed))


def _copying(circuit: Factored, rows: Tensor, columns: Tensor) -> Float[Tensor, " head"]:
    core = (circuit.right @ columns.mT) @ (rows @ circuit.left)
    eigenvalues = torch.linalg.eigvals(core)
    return eigenvalues.real.sum(-1) / eigenvalues.abs().sum(-1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Composition(Result):
    """How much of what earlier heads write later heads read, by the weights alone."""

    values: xr.DataArray
    """(writer_layer, writer_head, layer, head); NaN where the writer is not earlier."""
    through: Through
    """The reading head's input."""
    chance: float
    """The score's root mean square for directions at random, 1/√d_model."""
    bound: float
    """What 99 % of pairs stay under with a random matrix between the two heads."""
    provenance: Mapping[str, Any] = field(repr=False)
    """The model."""

    def to_dataset(self) -> xr.Dataset:
        """All of it."""
        names = ("through", "chance", "bound", "provenance")
        return xr.Dataset({"values": self.values}, attrs={n: getattr(self, n) for n in names})

    @classmethod
    def from_dataset(cls, data: xr.Dataset) -> Self:
        """The inverse of `to_dataset`."""
        return cls(values=data["values"], **data.attrs)


def composition(
    model: Model, through: Through = "k", *, draws: int = 3, seed: int = 0
) -> Composition:
    """Composition scores between every head and every head of a later layer."""
    if through not in ("q", "k", "v"):
        raise WeightsError(f"Heads compose through 'q', 'k' or 'v'; found {through!r}.")
    size, width = (model.n_layers, model.n_heads), model.d_model
    writers = [ov(model, layer, fold=False) for layer in range(model.n_layers)]
    readers = [_reader(model, layer, through) for layer in range(model.n_layers)]
    generator = torch.Generator().manual_seed(seed)
    values = np.full((*size, *size), np.nan)
    random: list[Tensor] = []
    for layer in range(1, model.n_layers):
        for before in range(layer):
            values[before, :, layer] = _composed(writers[before], readers[layer]).cpu().numpy()
            for _ in range(draws):
                between = torch.randn(width, width, generator=generator) / width**0.5
                mixed = Factored(
                    writers[before].left, writers[before].right @ between.to(model.device)
                )
                random.append(_composed(mixed, readers[layer]).flatten())
    bound = float(torch.cat(random).quantile(_CHANCE)) if random else float("nan")
    coords = {"writer_layer": np.arange(size[0]), "writer_head": np.arange(size[1]),
              "layer": np.arange(size[0]), "head": np.arange(size[1])}  # fmt: skip
    return Composition(
        values=xr.DataArray(values, coords, tuple(coords), "composition"), through=through,
        chance=width**-0.5, bound=bound, provenance=origin(model, draws=draws, seed=seed),
    )  # fmt: skip


def _reader(model: Model, layer: int, through: Through) -> Factored:
    if through == "v":
        return ov(model, layer)
    return qk(model, layer) if through == "q" else qk(model, layer).transposed


def _composed(writer: Factored, reader: Factored) -> Float[Tensor, "writer_head head"]:
    """‖A·B‖ / (‖A‖·‖B‖) of all pairs, from r × r matrices."""
    middle = torch.einsum("wrd,hds->whrs", writer.right, reader.left)
    grams = writer.left.mT @ writer.left, reader.right @ reader.right.mT
    square = torch.einsum("wab,whbc,hcd,whad->wh", grams[0], middle, grams[1], middle)
    return square.clamp(min=0).sqrt() / (writer.norm[:, None] * reader.norm)


_WRITER = re.compile(r"head_out\.\d+\.\d+|mlp_post\.\d+(\.\d+)?|embed")
_READER = re.compile(r"[qkv]\.\d+\.\d+|mlp_pre\.\d+(\.\d+)?|logits")


def virtual(model: Model, writer: str, reader: str) -> Factored:
    """What a writer's own numbers do to a reader's, along the stream alone.

    `writer`: a head's `head_out.L.H` (its rows are those of z), `mlp_post.L` or one neuron
    `mlp_post.L.N`, or `embed` (its rows are tokens). `reader`: `q.L.H`, `k.L.H`, `v.L.H` (H counts
    key-value heads for the last two), `mlp_pre.L`, `mlp_pre.L.N`, or `logits`. The result is
    (writer's numbers, reader's numbers), through the reader's norm.

    Raises `WeightsError` for names that are neither, and for a reader that comes before the writer.
    """
    if not _WRITER.fullmatch(writer) or not _READER.fullmatch(reader):
        raise WeightsError(
            f"Virtual weights go from 'embed', 'head_out.L.H' or 'mlp_post.L' to 'q.L.H', 'k.L.H', "
            f"'v.L.H', 'mlp_pre.L' or 'logits'; found {writer!r} and {reader!r}."
        )
    first, second = model.check_site(writer), model.check_site(reader)
    if not _earlier(model, first, second):
        raise WeightsError(f"{reader!r} stands before {writer!r}, so it cannot read it.")
    if reader == "logits":
        reads = unembedding(model)
    else:
        rows = reading(model, Site(second.kind, second.layer))
        reads = rows if second.index is None else rows[second.index].reshape(-1, model.d_model)
    return Factored(_written(model, first), reads.mT)


def _earlier(model: Model, writer: Site, reader: Site) -> bool:
    if writer.layer is None or reader.layer is None:
        return True
    if writer.layer == reader.layer:
        return writer.kind == "head_out" and reader.kind == "mlp_pre" and not model.parallel
    return writer.layer < reader.layer


def _written(model: Model, site: Site) -> Float[Tensor, "own d_model"]:
    if site.layer is None:
        return embedding(model)
    if site.kind == "head_out":
        return read.output(model, site.layer).float()[site.index or 0]
    rows = read.mlp_output(model, site.layer).float()
    return rows if site.index is None else rows[site.index][None]


def _shared(
    model: Model, rows: Float[Tensor, "kv_head d_head d_model"]
) -> Float[Tensor, "head d_head d_model"]:
    """Keys or values of every query head, repeated where heads share them."""
    return rows.repeat_interleave(model.n_heads // len(rows), dim=0)


def origin(model: Model, **settings: object) -> dict[str, object]:
    """Where numbers that are read off weights alone come from."""
    return {"model": {"name": model.name, "fingerprint": model.fingerprint}, **settings}
