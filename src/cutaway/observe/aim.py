"""What is attributed: a logit difference, a token, a difference of two, or any direction.

| target | what is split up at `end` |
|---|---|
| None | the behaviour's logit difference, example by example |
| a token (its text or number) | its logit |
| (token, token) | the difference of their logits |
| a tensor, (d_model,) or (example, d_model) | what it reads of the last stream, before the norm |

The last is for probes, steering vectors and latents: their reading is linear in the stream, so no
norm stands between and nothing is frozen. For logits, the final norm's scale is held at what it was
in the run; a soft cap on the logits is left out (see `attribution`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cutaway.behaviours.behaviour import Behaviour
from cutaway.behaviours.metrics import METRICS, Coefficients, at_least_float32
from cutaway.model.model import Model
from cutaway.model.norm import FrozenNorm, frozen
from cutaway.model.ports import Passing
from cutaway.model.sites import Site
from cutaway.observe.contributions import AttributionError

Target = None | str | int | tuple[str | int, str | int] | Tensor
"""What is attributed; see the module."""


@dataclass(frozen=True, kw_only=True)
class Aimed:
    """A target for the examples of one batch."""

    g: Float[Tensor, "batch d_model"]
    """What an addition to the stream is worth."""
    norm_bias: Float[Tensor, " batch"]
    """What the final norm's bias contributes."""
    unembed_bias: Float[Tensor, " batch"]
    """What the unembedding's bias contributes."""
    target: Float[Tensor, " batch"]
    """What contributions must add up to."""
    measured: Float[Tensor, " batch"]
    """What the model gave; differs from `target` where it caps its logits."""


@dataclass(frozen=True, kw_only=True)
class Aim:
    """A target, checked against a model and a behaviour."""

    model: Model
    """The model."""
    name: str
    """The target in words, for the record."""
    ids: tuple[int, ...] = ()
    """Tokens whose logits count, the first for and the second against."""
    direction: Float[Tensor, "*example d_model"] | None = None
    """A direction of the stream, for each example or for all."""

    @classmethod
    def of(cls, model: Model, behaviour: Behaviour, target: Target) -> Aim:
        """Raises `AttributionError` for a target that does not fit."""
        if target is None:
            return cls(model=model, name="logit difference")
        if isinstance(target, Tensor):
            shapes = [(model.d_model,), (len(behaviour), model.d_model)]
            if tuple(target.shape) not in shapes:
                raise AttributionError(
                    f"A direction has the shape {shapes[0]}, or {shapes[1]} for one an example; "
                    f"found {tuple(target.shape)}."
                )
            return cls(model=model, name="direction", direction=target.detach().float())
        listed = target if isinstance(target, tuple) else (target,)
        ids = tuple(_token(model, each) for each in listed)
        return cls(model=model, name=" − ".join(f"logit {each!r}" for each in listed), ids=ids)

    def at(
        self,
        rows: Behaviour,
        kept: Mapping[Site, Tensor],
        first: int,
        logits: Float[Tensor, "batch position vocab"],
    ) -> Aimed:
        """The target for a batch whose first example is number `first`.

        `kept` holds `resid_final` and `final_norm` at `end`.
        """
        final = kept[Site("resid_final")]
        if self.direction is not None:
            own = self.direction.expand(first + len(rows), -1) if self.direction.ndim == 1 else (
                self.direction
            )  # fmt: skip
            g = own[first : first + len(rows)].to(final)
            read, nothing = dot(final, g), torch.zeros(len(rows), device=final.device)
            return Aimed(g=g, norm_bias=nothing, unembed_bias=nothing, target=read, measured=read)
        return self.of_logits(self._coefficients(rows), kept, rows.end_logits(logits))

    def _coefficients(self, rows: Behaviour) -> Coefficients:
        if not self.ids:
            return METRICS["logit_diff"].coefficients(rows)
        ids = torch.tensor([self.ids]).repeat(len(rows), 1)
        weights = torch.tensor([[1.0, -1.0][: len(self.ids)]]).repeat(len(rows), 1)
        return Coefficients(ids=ids, weights=weights)

    def of_logits(
        self, coefficients: Coefficients, kept: Mapping[Site, Tensor], end_logits: Tensor
    ) -> Aimed:
        """The target that is a weighted sum of logits; arguments as for `at`, `end_logits` (batch,
        vocab)."""
        model = self.model
        measured = target = coefficients.apply(end_logits)
        if model.anatomy.logit_cap is not None:
            logits = model.anatomy.lm_head(kept[Site("final_norm")].to(model.dtype))
            target = coefficients.apply(logits * model.anatomy.logit_scale)
        u = unembedded(model, coefficients)
        biases = model.logit_biases(coefficients.ids).to(u)
        return Aimed(
            g=before_norm(model, u, kept[Site("resid_final")]),
            norm_bias=u @ model.frozen_norm.bias.to(u),
            unembed_bias=(biases * coefficients.weights.to(u)).sum(dim=1),
            target=target, measured=measured,
        )  # fmt: skip


def unembedded(model: Model, coefficients: Coefficients) -> Float[Tensor, "batch d_model"]:
    """The direction of `final_norm` that a sum of logits reads."""
    directions = model.logit_directions(coefficients.ids)
    return (directions * coefficients.weights.to(directions)[..., None]).sum(dim=1)


def before_norm(
    model: Model, u: Float[Tensor, "batch d_model"], final: Float[Tensor, "batch d_model"]
) -> Float[Tensor, "batch d_model"]:
    """A direction of `final_norm` as one of the last stream, at the norm's scale there."""
    return model.frozen_norm.pull_back(u) / model.frozen_norm.scale(final.to(u.device))


def _token(model: Model, token: str | int) -> int:
    if isinstance(token, str):
        return model.single_token(token)
    if isinstance(token, bool) or not 0 <= token < model.d_vocab:
        raise AttributionError(
            f"Tokens of {model.name} are numbered 0 to {model.d_vocab - 1}; found {token!r}."
        )
    return token


class AtEnd:
    """The tap that keeps what passes at the position `end` only, in float32 or wider."""

    def __init__(self, sites: Collection[Site], end: Int[Tensor, " batch"]) -> None:
        self.sites, self.end = frozenset(sites), end
        self.kept: dict[Site, Tensor] = {}

    def wants(self, site: Site) -> bool:
        """Only what was asked for."""
        return site in self.sites

    def __call__(self, site: Site, x: Tensor, now: Passing) -> Tensor:
        """Keep, and hand on unchanged."""
        rows = torch.arange(x.shape[0], device=x.device)
        self.kept[site] = at_least_float32(x[rows, self.end.to(x.device)].detach())
        return x


def dot(x: Float[Tensor, "batch d_model"], g: Float[Tensor, "batch d_model"]) -> Tensor:
    """x · g, row by row."""
    return (x.to(g.device) * g).sum(dim=-1)


def linear_norm(model: Model, norm: nn.Module | None) -> FrozenNorm | None:
    """A norm between a part of a layer and the stream, as a linear map; None without one."""
    if norm is None:
        return None
    device = next((w.device for w in norm.parameters()), model.device)
    return frozen(norm, model.d_model, device, model.dtype)


def through_post_norm(
    model: Model,
    layer: int,
    norm: FrozenNorm | None,
    heads: Float[Tensor, "batch head d_model"],
    g: Float[Tensor, "batch d_model"],
) -> Float[Tensor, "batch d_model"]:
    """g as the heads meet it: pulled back through the norm between them and the stream."""
    if norm is None:
        return g
    projection = model.anatomy.layers[layer].o_proj
    nothing = torch.zeros(1, 1, model.n_heads * model.d_head, dtype=model.dtype)
    bias = projection(nothing.to(heads.device))[0, 0]
    before = heads.sum(dim=1) + bias
    return norm.pull_back(g.to(heads.device)) / norm.scale(before) * model.anatomy.multiplier
