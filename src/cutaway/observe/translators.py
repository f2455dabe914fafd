"""Lenses that first carry an earlier stream over to the last one: tuned and Jacobian.

The logit lens reads an earlier stream as if it were the last. Both lenses here put an affine map in
between, x ↦ W·x + b for each layer, and read that:

- **tuned** (Belrose et al. 2023, "Eliciting Latent Predictions from Transformers with the Tuned
  Lens", arXiv:2303.08112): the map whose reading is nearest to the model's own answer,
  min KL(model ‖ lens), trained over all positions of some prompts. Deviation: we start from the
  ridge regression of the last stream on the earlier one, which a few passes over the streams give
  in closed form, rather than from the identity; Adam then has little left to do;
- **jacobian**: the first-order effect that the earlier stream at a position has on the last one at
  the same position, W = E[∂ last / ∂ earlier] over prompts, and b = E[last − W · earlier]. One
  backward pass per dimension gives all layers at once. What the model would make of a small change,
  rather than what it is seen to answer.

A lens trained to answer well may find what the model itself never uses there; the Jacobian lens
cannot. Both carry their KL from the model on held-out prompts, beside the logit lens's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import torch
import xarray as xr
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from cutaway.behaviours.behaviour import Behaviour
from cutaway.errors import CutawayError
from cutaway.measure.batches import Progress, batch_size_for, batches
from cutaway.measure.result import provenance
from cutaway.model.model import Model
from cutaway.model.run import Recorder
from cutaway.model.sites import Site

Method = Literal["tuned", "jacobian"]
_RIDGE = 1e-3
_ROWS = 256
_FORMAT = 1


class LensError(CutawayError):
    """A lens that cannot be trained, or belongs to another model."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Translators:
    """An affine map from each layer's stream to the last one."""

    method: Method
    """How they were found."""
    weights: Float[Tensor, "layer d_model d_model"]
    """One for each layer's `resid_pre`."""
    biases: Float[Tensor, "layer d_model"]
    """The same."""
    kl: xr.DataArray
    """(lens, layer): KL(model ‖ lens) in nats on held-out prompts, for "logit" and this method."""
    provenance: Mapping[str, Any] = field(repr=False)
    """Versions, model, data and settings."""

    def __call__(self, x: Float[Tensor, "*b d_model"], layer: int) -> Float[Tensor, "*b d_model"]:
        """The stream entering a layer, carried over to the last one."""
        weight, bias = self.weights[layer].to(x), self.biases[layer].to(x)
        return x @ weight.mT + bias

    def check(self, model: Model) -> None:
        """Refuse a model that they were not made for."""
        known = self.provenance["model"]["fingerprint"]
        if known != model.fingerprint:
            raise LensError(
                f"This lens belongs to another model (fingerprint {known}; {model.name} has "
                f"{model.fingerprint}); open that model, or make a lens for this one."
            )

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, with the rest in its metadata."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        record = {"format": _FORMAT, "method": self.method, "provenance": dict(self.provenance),
                  "kl": self.kl.to_numpy().tolist()}  # fmt: skip
        tensors = {"weights": self.weights.contiguous(), "biases": self.biases.contiguous()}
        save_file(tensors, target, metadata={"cutaway": json.dumps(record, default=str)})
        return target

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote."""
        try:
            tensors = load_file(path)
            with safe_open(path, framework="pt") as opened:
                record = json.loads((opened.metadata() or {})["cutaway"])
            kl = _kl(record["method"], torch.tensor(record["kl"]))
            return cls(method=record["method"], weights=tensors["weights"], kl=kl,
                       biases=tensors["biases"], provenance=record["provenance"])  # fmt: skip
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise LensError(
                f"{path} is not a saved lens ({type(error).__name__}); give a file that save wrote."
            ) from error


def tuned_lens(
    model: Model,
    prompts: Behaviour,
    *,
    steps: int = 200,
    rate: float = 1e-3,
    held_out: float = 0.2,
    batch_size: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Translators:
    """Train a tuned lens on the clean prompts; `held_out` of them measure its KL.

    `steps` of Adam with the learning `rate`, each on 256 positions for every layer. Raises
    `LensError` for too few prompts.
    """
    train, test = _split(prompts, held_out)
    streams, last = _streams(model, train, batch_size)
    weights, biases = _regressed(streams, last)
    weights, biases = weights.requires_grad_(), biases.requires_grad_()
    optimiser = torch.optim.Adam([weights, biases], lr=rate)
    decay = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.05, total_iters=max(steps, 1))
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        rows = torch.randint(len(last), (min(_ROWS, len(last)),), generator=generator)
        rows = rows.to(last.device)
        found = torch.einsum("lnd,led->lne", streams[:, rows], weights) + biases[:, None]
        loss = _divergence(model, found, last[rows]).mean(dim=1).sum()
        optimiser.zero_grad()
        gradients = torch.autograd.grad(loss, [weights, biases])
        weights.grad, biases.grad = gradients
        optimiser.step()
        decay.step()
        if progress is not None:
            progress(step + 1, steps)
    settings = {"method": "tuned lens", "steps": steps, "rate": rate, "seed": seed}
    return _made(model, prompts, test, "tuned", (weights.detach(), biases.detach()), settings,
                 batch_size)  # fmt: skip


def jacobian_lens(
    model: Model,
    prompts: Behaviour,
    *,
    held_out: float = 0.2,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Translators:
    """The mean Jacobian of the last stream by each layer's, at the clean prompts' `end`.

    d_model backward passes per batch. Raises `LensError` for too few prompts.
    """
    train, test = _split(prompts, held_out)
    many, width = model.n_layers, model.d_model
    weights, means = torch.zeros(many, width, width), torch.zeros(many + 1, width)
    sites = [*(Site("resid_pre", layer) for layer in range(many)), Site("resid_final")]
    size = batch_size_for(model, train, batch_size)
    total, done = -(-len(train) // size) * width, 0
    for _, rows in batches(train, size):
        tokens = rows.clean
        recorder = Recorder(sites, gradients=True)
        model.run(tokens, taps=[recorder], graph=True)
        row, end = torch.arange(len(rows)), tokens.labels["end"]
        *streams, final = (recorder.kept[site] for site in sites)
        last = final[row.to(final.device), end.to(final.device)]
        for place, stream in enumerate([*streams, final]):
            at = stream[row.to(stream.device), end.to(stream.device)]
            means[place] += at.detach().float().sum(0).cpu()
        for dimension in range(width):
            slopes = torch.autograd.grad(last[:, dimension].sum(), streams, retain_graph=True)
            for layer, slope in enumerate(slopes):
                here = slope[row.to(slope.device), end.to(slope.device)]
                weights[layer, dimension] += here.float().sum(0).cpu()
            done += 1
            if progress is not None:
                progress(done, total)
    weights, means = weights / len(train), means / len(train)
    biases = means[-1] - torch.einsum("lde,le->ld", weights, means[:-1])
    pair = (weights.to(model.device), biases.to(model.device))
    return _made(model, prompts, test, "jacobian", pair, {"method": "jacobian lens"}, batch_size)


def _split(prompts: Behaviour, share: float) -> tuple[Behaviour, Behaviour]:
    test = max(1, round(len(prompts) * share))
    if not 0 < share < 1 or len(prompts) - test < 2:
        raise LensError(
            f"A lens needs two prompts or more to learn from and one to be measured on; found "
            f"{len(prompts)} with held_out={share}."
        )
    return prompts.rows(slice(0, len(prompts) - test)), prompts.rows(
        slice(len(prompts) - test, len(prompts))
    )


@torch.no_grad()
def _streams(
    model: Model, prompts: Behaviour, batch_size: int | None
) -> tuple[Float[Tensor, "layer place d_model"], Float[Tensor, "place d_model"]]:
    """Every layer's stream and the last one, at every real position of every prompt."""
    sites = [*(Site("resid_pre", layer) for layer in range(model.n_layers)), Site("resid_final")]
    found: list[Tensor] = []
    for _, rows in batches(prompts, batch_size_for(model, prompts, batch_size)):
        run = model.run(rows.clean, keep=sites)
        real = rows.clean.mask
        found.append(torch.stack([run[s][real.to(run[s].device)].to(model.device) for s in sites]))
    whole = torch.cat(found, dim=1).float()
    return whole[:-1], whole[-1]


def _regressed(streams: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """Ridge regression of the last stream's difference from each layer's."""
    centre = streams.mean(dim=1, keepdim=True)
    x, y = streams - centre, (last - streams) - (last - streams).mean(dim=1, keepdim=True)
    gram = torch.einsum("lnd,lne->lde", x, x)
    scale = gram.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None]
    eye = torch.eye(x.shape[2], device=x.device)
    solved = torch.linalg.solve(gram + _RIDGE * scale * eye, torch.einsum("lnd,lne->lde", x, y))
    weights = solved.mT + eye
    biases = last.mean(dim=0) - torch.einsum("lde,le->ld", weights, centre[:, 0])
    return weights, biases


def _divergence(
    model: Model, found: Float[Tensor, "layer n d_model"], last: Float[Tensor, "n d_model"]
) -> Float[Tensor, "layer n"]:
    """KL(model ‖ lens) in nats."""
    lens = model.unembed(model.anatomy.final_norm(found.to(model.dtype))).float().log_softmax(-1)
    with torch.no_grad():
        own = model.unembed(model.anatomy.final_norm(last.to(model.dtype))).float().log_softmax(-1)
    return (own.exp() * (own - lens)).sum(dim=-1)


def _made(
    model: Model, prompts: Behaviour, test: Behaviour, method: Method,
    pair: tuple[Tensor, Tensor], settings: Mapping[str, object], batch_size: int | None,
) -> Translators:  # fmt: skip
    weights, biases = pair
    streams, last = _streams(model, test, batch_size)
    with torch.no_grad():
        carried = torch.einsum("lnd,led->lne", streams, weights) + biases[:, None]
        each = [torch.stack(list(_means(model, one, last))) for one in (streams, carried)]
    return Translators(
        method=method, weights=weights, biases=biases, kl=_kl(method, torch.stack(each)),
        provenance=provenance(model, prompts, settings),
    )  # fmt: skip


def _means(model: Model, streams: Tensor, last: Tensor) -> Iterator[Tensor]:
    """Each layer's mean divergence, in pieces that fit."""
    for layer in streams:
        parts = zip(layer.split(_ROWS), last.split(_ROWS), strict=True)
        yield torch.cat([_divergence(model, some[None], to)[0] for some, to in parts]).mean()


def _kl(method: str, values: Float[Tensor, "lens layer"]) -> xr.DataArray:
    coords = {"lens": ["logit", method], "layer": list(range(values.shape[1]))}
    return xr.DataArray(values.double().cpu().numpy(), coords, ("lens", "layer"), "kl")
