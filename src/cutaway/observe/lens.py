"""The logit lens: what the model would answer if it stopped after each layer.

nostalgebraist 2020, "interpreting GPT: the logit lens":

1. run the prompts and keep the residual stream entering layer 0 and leaving every layer;
2. at each position of interest, put it through the model's own final norm and unembedding;
3. read the behaviour's answers off these logits: the logit difference between correct and wrong
   answers, the probability and rank of the correct ones, and the likeliest token.

The last reading is the model's own output. Earlier ones go through a norm and an unembedding that
were trained for the last layer's stream, so that they show what is already readable there, not all
that is there. `through` puts a tuned or a Jacobian lens in between (see `translators`).

Other sites of the stream's width can be read in the same way: the stream between attention and MLP,
or what one attention, head or MLP adds, as if that alone were the last stream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor

from cutaway.behaviours.behaviour import Behaviour
from cutaway.behaviours.metrics import METRICS
from cutaway.errors import SiteError
from cutaway.measure.batches import (
    Progress,
    Prompts,
    batch_size_for,
    batches,
    coordinate,
    named_positions,
    side,
)
from cutaway.measure.finite import check_run
from cutaway.measure.result import Result, interval, provenance
from cutaway.model.model import Model
from cutaway.model.run import Run
from cutaway.model.select import positions_of
from cutaway.model.sites import Site
from cutaway.model.tokens import token_strings
from cutaway.observe.translators import LensError, Translators
from cutaway.views.figure import Figure
from cutaway.views.heatmap import lens as lens_map

_READ = (
    "embed", "pos_embed", "resid_pre", "resid_mid", "resid_post", "resid_final", "attn_out",
    "mlp_out", "head_out",
)  # fmt: skip
_DIMS = ("example", "layer", "position")
_ARRAYS = ("logit_diff", "probability", "rank", "top_token", "top_text")


@dataclass(frozen=True, kw_only=True, eq=False)
class Lens(Result):
    """The logit lens at every layer; arrays are (example, layer, position).

    The coordinate `layer` holds site names: "resid_pre.0" (the embeddings), then "resid_post.0" to
    the last layer, which is the model's own output (or other sites that were asked for, and again
    the model's own output). `position` holds labels or numbers.
    """

    logit_diff: xr.DataArray
    """Mean logit of the correct answers less that of the wrong ones."""
    probability: xr.DataArray
    """Probability of the correct answers, added up."""
    rank: xr.DataArray
    """How many tokens have a larger logit than the best correct answer; 0 when it is on top."""
    top_token: xr.DataArray
    """The id of the likeliest token."""
    top_text: xr.DataArray
    """That token as text (its id in digits when the model has no tokenizer)."""
    provenance: Mapping[str, Any] = field(repr=False)
    """Versions, model, data and settings."""

    @property
    def mean(self) -> xr.DataArray:
        """The logit difference (layer, position), averaged over examples."""
        return self.logit_diff.mean("example")

    @property
    def saturation(self) -> xr.DataArray:
        """(example, position): the first reading from which on the top token stays the model's own.

        Counted along `layer`: 0 is the embeddings', the last the model's answer (Geva et al. 2022).
        """
        same = (self.top_token == self.top_token.isel(layer=-1)).to_numpy()
        axis = self.top_token.get_axis_num("layer")
        from_here_on = np.flip(np.cumprod(np.flip(same, axis), axis=axis), axis)
        kept = self.top_token.isel(layer=-1, drop=True)
        return kept.copy(data=from_here_on.argmax(axis=axis)).rename("saturation")

    def interval(self, level: float = 0.95) -> xr.Dataset:
        """`mean`, `low`, `high` of the logit difference (layer, position) over examples."""
        return interval(self.logit_diff, level)

    def plot(self) -> Figure:
        """The mean logit difference by layer and position, as a picture."""
        found = self.interval()
        n = self.logit_diff.sizes["example"]
        return lens_map(
            found["mean"].to_numpy(),
            [str(layer) for layer in found["layer"].to_numpy()],
            [str(place) for place in found["position"].to_numpy()],
            shows=f"The logit difference as each layer would have it, averaged over {n} prompts.",
            lows=found["low"].to_numpy(),
            highs=found["high"].to_numpy(),
            reproduce="lens.interval()",
        )

    def to_dataset(self) -> xr.Dataset:
        """All arrays in one."""
        return xr.Dataset(
            {name: getattr(self, name) for name in _ARRAYS}, attrs={"provenance": self.provenance}
        )

    @classmethod
    def from_dataset(cls, data: xr.Dataset) -> Self:
        """The inverse of `to_dataset`."""
        return cls(**{name: data[name] for name in _ARRAYS}, provenance=data.attrs["provenance"])


def logit_lens(
    model: Model,
    behaviour: Behaviour,
    *,
    sites: Sequence[str | Site] | str | Site | None = None,
    positions: Sequence[int | str] | int | str | None = None,
    through: Translators | None = None,
    prompts: Prompts = "clean",
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Lens:
    """Read the residual stream of every layer as if it were the last.

    `sites` are others to read: kinds ("mlp_out": every layer; "head_out": every head) or single
    sites, of the stream's width and before any norm. `positions` are labels or numbers (negative
    ones count from a prompt's end), every label when not given; `through` carries each stream over
    to the last one first; `prompts` says which side of the pairs is run. Raises `SiteError` for a
    site that cannot be read so, or a label or position that not all prompts have, and `LensError`
    for another model's lens, or one that does not know a site.
    """
    if through is not None:
        through.check(model)
    names = named_positions(side(behaviour, prompts), positions)
    read = _sites(model, sites, through)
    shape = (len(behaviour), len(read), len(names))
    found = {
        "logit_diff": np.empty(shape), "probability": np.empty(shape),
        "rank": np.empty(shape, dtype=np.int64), "top_token": np.empty(shape, dtype=np.int64),
    }  # fmt: skip
    size = batch_size_for(model, behaviour, batch_size)
    for where, rows in batches(behaviour, size, progress):
        run = model.run(side(rows, prompts), keep=read)
        check_run(model, run, where.start, prompts)
        for name, part in _readings(model, run, rows, read, names, through).items():
            found[name][where] = part.numpy()
    coords = {"layer": [str(site) for site in read], "position": coordinate(names)}
    arrays = {name: xr.DataArray(part, coords, _DIMS, name) for name, part in found.items()}
    texts = token_texts(model, found["top_token"])
    return Lens(
        **arrays,
        top_text=xr.DataArray(texts, coords, _DIMS, "top_text"),
        provenance=provenance(
            model, behaviour,
            {"method": f"{through.method if through else 'logit'} lens", "prompts": prompts,
             "positions": list(names)},
        ),
    )  # fmt: skip


def _sites(
    model: Model, sites: Sequence[str | Site] | str | Site | None, through: Translators | None
) -> list[Site]:
    """What is read, in order, and last the model's own output."""
    last = Site("resid_post", model.n_layers - 1)
    if sites is None:
        return [Site("resid_pre", 0), *(Site("resid_post", n) for n in range(model.n_layers))]
    listed = [sites] if isinstance(sites, str | Site) else sites
    found = [site for given in listed for site in _named(model, given)]
    if not found:
        raise SiteError("No site was given to read; leave sites out for the stream of every layer.")
    unknown = next((site for site in found if _entering(site) is None), None)
    if through is not None and unknown is not None:
        raise LensError(
            f"A {through.method} lens knows the stream that enters or leaves a layer; it cannot "
            f"read {str(unknown)!r}, which the logit lens can."
        )
    return [*(site for site in dict.fromkeys(found) if site != last), last]


def _named(model: Model, given: str | Site) -> list[Site]:
    """Every site of a kind, or one; each head by itself."""
    every = [site for site in model.sites if site.kind == str(given)]
    found = every or [model.check_site(Site.parse(given))]
    if found[0].kind not in _READ:
        raise SiteError(
            f"The lens reads the stream and what is added to it ({', '.join(_READ)}); found "
            f"{str(given)!r}."
        )
    if found[0].kind != "head_out" or found[0].index is not None:
        return found
    return [Site("head_out", site.layer, n) for site in found for n in range(model.n_heads)]


def _entering(site: Site) -> int | None:
    """The layer that a site's stream enters; None for what is no such stream."""
    if site.layer is None or site.kind not in ("resid_pre", "resid_post"):
        return None
    return site.layer + (site.kind == "resid_post")


@torch.no_grad()
def _readings(
    model: Model, run: Run, rows: Behaviour, sites: Sequence[Site], names: Sequence[int | str],
    through: Translators | None,
) -> dict[str, Tensor]:  # fmt: skip
    """Every array of `Lens` for one batch, (batch, site, position)."""
    where = positions_of(names, run.tokens)
    row = torch.arange(len(rows))
    columns: dict[str, list[Tensor]] = {}
    right: Tensor | None = None
    for site in sites:
        stream, entering = run[site], _entering(site)
        for place in where.T:
            x = stream[row.to(stream.device), place.to(stream.device)]
            if through is not None and entering is not None and entering < model.n_layers:
                x = through(x, entering)
            logits = model.unembed(model.anatomy.final_norm(x))
            right = _answers(rows, logits) if right is None else right
            for name, value in _read(logits, right, rows).items():
                columns.setdefault(name, []).append(value.cpu())
    shape = (len(rows), len(sites), len(names))
    return {name: torch.stack(parts, dim=1).reshape(shape) for name, parts in columns.items()}


def _answers(rows: Behaviour, logits: Tensor) -> Bool[Tensor, "batch vocab"]:
    right = torch.zeros(logits.shape, dtype=torch.bool)
    for row, answers in enumerate(rows.answers):
        right[row, list(answers)] = True
    return right.to(logits.device)


def _read(
    logits: Float[Tensor, "batch vocab"], right: Bool[Tensor, "batch vocab"], rows: Behaviour
) -> dict[str, Float[Tensor, " batch"]]:
    best = logits.masked_fill(~right, -torch.inf).amax(dim=-1, keepdim=True)
    return {
        "logit_diff": METRICS["logit_diff"](logits, rows),
        "probability": (logits.float().softmax(dim=-1) * right).sum(dim=-1),
        "rank": (logits > best).sum(dim=-1),
        "top_token": logits.argmax(dim=-1),
    }


def token_texts(model: Model, ids: np.ndarray) -> np.ndarray:
    """Token ids as text (in digits without a tokenizer), decoding each different one once."""
    different, place = np.unique(ids, return_inverse=True)
    listed = [int(token) for token in different]
    shown = [str(token) for token in listed]
    if model.tokenizer is not None:
        # netCDF text cannot hold the NUL character, which byte-level tokenizers have.
        shown = [text.replace("\0", "␀") for text in token_strings(model.tokenizer, listed)]
    return np.array(shown, dtype=str)[place].reshape(ids.shape)
