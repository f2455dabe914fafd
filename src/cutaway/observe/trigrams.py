"""Skip-trigrams of a one-layer model: source … destination → output.

Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", "Zero-layer and one-layer
models". What a head of the only layer sees is the token embeddings, each through its own norm, so
its two full circuits are tables over tokens:

- QK[destination, source]: the attention score, in the model's own scale;
- OV[source, output]: what attending to the source adds to the output's logit, less the mean over
  all outputs, before the final norm divides by its scale (one number per position).

1. a score says nothing by itself, since attention is shared out; so it is held against an ordinary
   token's: a = σ(QK[d, s] − log mean over tokens t of exp QK[d, t]), the attention that the source
   gets when it stands beside one ordinary token;
2. an entry's effect is  a · OV[s, o]. For a given source the best destination and the best output
   can be chosen apart, since a > 0; so sources are ranked by their largest entry, and each is given
   with its `each` best destinations and outputs (the form of the paper's tables);
3. tables are made in chunks of sources, of which only the best are kept: vocabulary × vocabulary
   never exists.

Left out, as in `weights`: biases, positions (added or rotary) and q/k-norms. An MLP, which every
Hugging Face decoder has, is left out too, and the result says so unless it writes nothing. Deeper
models are refused, since their later heads read what earlier parts wrote.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

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
from cutaway.observe.factored import Factored, WeightsError
from cutaway.observe.lens import token_texts
from cutaway.observe.weights import embedding, origin, ov, qk, unembedding

_ENTRIES = 4_000_000
"""Entries of a table held in memory at a time."""
_ARRAYS = ("source", "effect", "destination", "attention", "output", "logit")
_TEXTS = ("source", "destination", "output")


@dataclass(frozen=True, kw_only=True, eq=False)
class SkipTrigrams(Result):
    """The strongest sources of each head, each with its best destinations and outputs."""

    source: xr.DataArray
    """(head, rank): token ids, the source of the largest entry first."""
    effect: xr.DataArray
    """(head, rank): that entry, in logits before the final norm's division."""
    destination: xr.DataArray
    """(head, rank, place): the tokens that attend to the source most."""
    attention: xr.DataArray
    """(head, rank, place): how much, beside one ordinary token."""
    output: xr.DataArray
    """(head, rank, place): the tokens whose logit the source raises most."""
    logit: xr.DataArray
    """(head, rank, place): by how much at full attention."""
    texts: Mapping[str, xr.DataArray] = field(repr=False)
    """`source`, `destination` and `output` as text."""
    mlp_left_out: bool
    """Whether the model has an MLP that writes something, which these tables do not see."""
    provenance: Mapping[str, Any] = field(repr=False)
    """The model."""

    def entries(self, head: int) -> pd.DataFrame:
        """A head's entries, the largest first: source, destination, output, attention, effect."""
        known = self.source["head"].to_numpy().tolist()
        if head not in known:
            raise WeightsError(f"There is no head {head!r} here; there are {known}.")
        here = {name: getattr(self, name).sel(head=head).to_numpy() for name in _ARRAYS}
        texts = {name: each.sel(head=head).to_numpy() for name, each in self.texts.items()}
        size = here["attention"].shape
        rank, d, o = (grid.ravel() for grid in np.indices((*size, size[1])))
        table = pd.DataFrame(
            {
                "source": texts["source"][rank],
                "destination": texts["destination"][rank, d],
                "output": texts["output"][rank, o],
                "attention": here["attention"][rank, d],
                "effect": here["attention"][rank, d] * here["logit"][rank, o],
            }
        )
        return table.sort_values("effect", ascending=False, kind="stable", ignore_index=True)

    @property
    def copies(self) -> xr.DataArray:
        """(head,): the share of sources among whose best outputs they are themselves."""
        return (self.output == self.source).any("place").mean("rank")

    def __str__(self) -> str:
        lines = ["Skip-trigrams: source … destinations → outputs"]
        if self.mlp_left_out:
            lines[0] += " (by attention alone: the model's MLP is left out)"
        for head in self.source["head"].to_numpy():
            for rank in self.source["rank"].to_numpy()[:5]:
                at = {"head": head, "rank": rank}
                source, ends, outs = (self.texts[name].sel(at).to_numpy() for name in _TEXTS)
                lines.append(
                    f"head {head}: {source.item()!r} … {' '.join(map(repr, ends.tolist()))} → "
                    f"{' '.join(map(repr, outs.tolist()))}  ({float(self.effect.sel(at)):+.2f})"
                )
        return "\n".join(lines)

    def to_dataset(self) -> xr.Dataset:
        """All of it."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        arrays |= {f"{name}_text": self.texts[name] for name in _TEXTS}
        attrs = {"mlp_left_out": self.mlp_left_out, "provenance": self.provenance}
        return xr.Dataset(arrays, attrs=attrs)

    @classmethod
    def from_dataset(cls, data: xr.Dataset) -> Self:
        """The inverse of `to_dataset`."""
        texts = {name: data[f"{name}_text"] for name in _TEXTS}
        return cls(**{name: data[name] for name in _ARRAYS}, texts=texts, **data.attrs)


def skip_trigrams(model: Model, *, sources: int = 20, each: int = 5) -> SkipTrigrams:
    """The `sources` strongest sources of every head, with `each` destinations and outputs.

    Raises `WeightsError` for a model of more than one layer, and for numbers above the vocabulary.
    """
    if model.n_layers != 1:
        raise WeightsError(
            f"Skip-trigrams are read off models of one layer; {model.name} has {model.n_layers}, "
            "whose later heads read what earlier layers wrote; use composition or path patching."
        )
    if not 1 <= each <= model.d_vocab or not 1 <= sources <= model.d_vocab:
        raise WeightsError(
            f"{model.name} has {model.d_vocab} tokens; found sources={sources} and each={each}."
        )
    rows, scale = seen_tokens(model), score_scale(model)
    outputs = unembedding(model)[: len(rows)]
    scores, values = qk(model, 0), ov(model, 0)
    found: dict[str, list[np.ndarray]] = {name: [] for name in _ARRAYS}
    for head in range(model.n_heads):
        queries = Factored(scale * rows @ scores.left[head], scores.right[head] @ rows.mT)
        written = Factored(rows @ values.left[head], values.right[head] @ outputs.mT)
        for name, part in _strongest(queries, written, sources, each).items():
            found[name].append(part.cpu().numpy())
    coords = {"head": np.arange(model.n_heads), "rank": np.arange(sources)}
    dims = ("head", "rank", "place")
    arrays = {
        name: xr.DataArray(np.stack(parts), coords, dims[: np.ndim(parts[0]) + 1], name)
        for name, parts in found.items()
    }
    texts = {name: arrays[name].copy(data=token_texts(model, arrays[name].to_numpy()))
             for name in _TEXTS}  # fmt: skip
    return SkipTrigrams(
        **arrays, texts=texts, mlp_left_out=_writes(model),
        provenance=origin(model, sources=sources, each=each),
    )  # fmt: skip


def seen_tokens(model: Model) -> Float[Tensor, "vocab d_model"]:
    """What the first layer's heads see of each token, but for gain and centring: the embedding
    over its norm's scale."""
    rows = embedding(model)
    norm = read.frozen_norm_before(model, Site("attn_in", 0))
    return rows if norm is None else rows / norm.scale(rows)


def score_scale(model: Model) -> float:
    """What the first layer's dot products are multiplied by, as measured on a probe."""
    sites = [Site(kind, 0) for kind in ("q_rot", "k_rot", "scores")]
    tokens = torch.arange(1, 1 + min(6, model.d_vocab - 1))[None]
    q, k, scores = (model.run(tokens, keep=sites)[site].float() for site in sites)
    k = k.repeat_interleave(q.shape[2] // k.shape[2], dim=2)
    products = (q * k).sum(-1).mT
    # a token's score for itself, where no bias by distance has anything to add
    own = scores.diagonal(dim1=-2, dim2=-1)
    return float((products * own).sum() / products.square().sum())


def _strongest(queries: Factored, written: Factored, many: int, each: int) -> dict[str, Tensor]:
    """The best sources of a head; see the module's steps."""
    size = queries.shape[-1]
    step = max(1, _ENTRIES // size)
    chunks = [slice(start, min(start + step, size)) for start in range(0, size, step)]
    ordinary = torch.full((size,), -math.inf, device=queries.left.device)
    for some in chunks:
        here = torch.logsumexp(queries.left @ queries.right[:, some], dim=1)
        ordinary = torch.logaddexp(ordinary, here)
    ordinary = ordinary - math.log(size)
    best: dict[str, Tensor] = {}
    for some in chunks:
        found = _of_sources(queries, written, ordinary, some, each)
        best = {n: torch.cat([best[n], part]) for n, part in found.items()} if best else found
        order = best["effect"].argsort(descending=True, stable=True)[:many]
        best = {name: part[order] for name, part in best.items()}
    return best


def _of_sources(
    queries: Factored, written: Factored, ordinary: Float[Tensor, " vocab"], some: slice, each: int
) -> dict[str, Tensor]:
    """Every source of a chunk with its best destinations and outputs."""
    scores = queries.left @ queries.right[:, some]
    attention = (scores - ordinary[:, None]).sigmoid().mT.topk(each, dim=1)
    logits = written.left[some] @ written.right
    raised = (logits - logits.mean(dim=1, keepdim=True)).topk(each, dim=1)
    return {
        "source": torch.arange(some.start, some.stop, device=scores.device),
        "effect": attention.values[:, 0] * raised.values[:, 0],
        "destination": attention.indices, "attention": attention.values,
        "output": raised.indices, "logit": raised.values,
    }  # fmt: skip


def _writes(model: Model) -> bool:
    """Whether the MLP adds anything to the stream."""
    run = model.run(torch.arange(min(6, model.d_vocab))[None], keep=[Site("mlp_out", 0)])
    return bool(run[Site("mlp_out", 0)].abs().max() > 0)
