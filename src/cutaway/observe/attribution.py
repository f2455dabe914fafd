"""Direct logit attribution: which part of the model writes the logit difference.

Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"; Wang et al. 2022,
"Interpretability in the Wild", section 3.1. The stream that the unembedding reads is a sum of what
every part added to it, so with the final norm's scale held at what it was, the logit difference at
the position `end` is a sum too:

1. u is the direction of the logit difference: the correct answers' mean unembedding vector less
   that of the wrong ones (times the logit scale, where a family has one);
2. g = u pulled back through the final norm at its scale in this run;
3. a part that added x to the stream contributes g · x: the embedding(s), each MLP, each attention;
4. an attention is split into its heads, and the rest, which is its bias. Where a norm stands
   between attention and stream (OLMo 2, Gemma 2), its scale is held in the same way, so g is
   pulled back through it too;
5. the norm's bias and the unembedding's bias contribute constants.

The contributions must add up to the logit difference that the model really gave; when they do not,
the attribution is refused. A soft cap on the logits (Gemma 2) is not linear: there the logit
difference before the cap is what is attributed, and the result says so.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import torch
import xarray as xr
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from cutaway.behaviours.behaviour import Behaviour
from cutaway.behaviours.metrics import METRICS, Coefficients, at_least_float32
from cutaway.measure.batches import Progress, Prompts, batch_size_for, batches, side
from cutaway.measure.finite import check_run
from cutaway.measure.result import provenance
from cutaway.model.model import Model
from cutaway.model.norm import FrozenNorm, frozen
from cutaway.model.ports import Passing, per_head
from cutaway.model.sites import Site
from cutaway.model.verify import tolerance
from cutaway.observe.contributions import Attribution, Parts, refuse_unless_sum


def attribute(
    model: Model,
    behaviour: Behaviour,
    *,
    prompts: Prompts = "clean",
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Attribution:
    """Split the logit difference at `end` into what each part of the model contributes directly.

    `prompts` says which side of the pairs is run. Raises `AttributionError` when the parts do not
    add up to the model's own logit difference.
    """
    parts = Parts.of(model)
    method = _Method(model, parts)
    shape = (len(behaviour), len(parts.names))
    values, target, measured = np.empty(shape), np.empty(shape[0]), np.empty(shape[0])
    size = batch_size_for(model, behaviour, batch_size)
    for where, rows in batches(behaviour, size, progress):
        values[where], target[where], measured[where] = method(rows, prompts, where.start)
    found = Attribution(
        values=parts.array(values),
        target=xr.DataArray(target, dims="example", name="target"),
        logit_diff=xr.DataArray(measured, dims="example", name="logit_diff"),
        before_cap=model.anatomy.logit_cap is not None,
        embeddings=method.embeddings,
        provenance=provenance(
            model, behaviour, {"method": "direct logit attribution", "prompts": prompts}
        ),
    )
    refuse_unless_sum(found, bound=min(0.05, 5 * tolerance(model.dtype)))
    return found


class _AtEnd:
    """The tap that keeps what passes at the position `end` only, in float32 or wider."""

    def __init__(self, sites: Collection[Site], end: Int[Tensor, " batch"]) -> None:
        self.sites, self.end = frozenset(sites), end
        self.kept: dict[Site, Tensor] = {}

    def wants(self, site: Site) -> bool:
        return site in self.sites

    def __call__(self, site: Site, x: Tensor, now: Passing) -> Tensor:
        rows = torch.arange(x.shape[0], device=x.device)
        self.kept[site] = at_least_float32(x[rows, self.end.to(x.device)].detach())
        return x


class _Method:
    """The steps of the module docstring for one model, batch by batch."""

    def __init__(self, model: Model, parts: Parts) -> None:
        self.model, self.parts = model, parts
        self.adds_up: bool | None = None
        self.post_norms = [self._post_norm(layer) for layer in range(model.n_layers)]
        layers = range(model.n_layers)
        kinds = ("z", "attn_out", "mlp_out")
        self.sites = [
            *(Site(kind, layer) for kind in kinds for layer in layers),
            *(Site(name) for name in ("embed", "pos_embed") if Site(name) in model.sites),
            Site("resid_pre", 0), Site("resid_final"), Site("final_norm"),
        ]  # fmt: skip

    @property
    def embeddings(self) -> str:
        """What the embeddings' contribution was read from."""
        listed = [str(site) for site in self.sites if site.kind in ("embed", "pos_embed")]
        return " + ".join(listed) if self.adds_up else "resid_pre.0"

    @torch.no_grad()
    def __call__(
        self, rows: Behaviour, prompts: Prompts, first: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Contributions (batch, part), and the logit difference attributed and measured (batch)."""
        model, tokens = self.model, side(rows, prompts)
        tap = _AtEnd(self.sites, tokens.labels["end"])
        run = model.run(tokens, taps=[tap])
        check_run(model, run, first, prompts)
        kept = tap.kept
        coefficients = METRICS["logit_diff"].coefficients(rows)
        measured = coefficients.apply(rows.end_logits(run.logits))
        target = measured
        if model.anatomy.logit_cap is not None:
            logits = model.anatomy.lm_head(kept[Site("final_norm")].to(model.dtype))
            target = coefficients.apply(logits * model.anatomy.logit_scale)
        found = self._contributions(kept, coefficients)
        stacked = torch.stack([found[name].double().cpu() for name in self.parts.names], dim=1)
        return stacked.numpy(), target.cpu().numpy(), measured.cpu().numpy()

    def _contributions(
        self, kept: Mapping[Site, Tensor], coefficients: Coefficients
    ) -> dict[str, Float[Tensor, " batch"]]:
        model = self.model
        weights = coefficients.weights.to(model.logit_directions(coefficients.ids[:1, :1]))
        u = (model.logit_directions(coefficients.ids) * weights[..., None]).sum(dim=1)
        norm, final = model.frozen_norm, kept[Site("resid_final")].to(u.device)
        g = norm.pull_back(u) / norm.scale(final)
        found = {
            "norm_bias": u @ norm.bias.to(u),
            "unembed_bias": (model.logit_biases(coefficients.ids).to(u) * weights).sum(dim=1),
            **self._embeddings(kept, g),
        }
        for layer in range(model.n_layers):
            heads = self._heads(layer, kept[Site("z", layer)])
            through = self._through_post_norm(layer, heads, g).to(heads.device)
            each = einsum(heads, through, "b head d, b d -> b head").to(g.device)
            found |= {f"head_out.{layer}.{head}": each[:, head] for head in range(each.shape[1])}
            found[f"attn_bias.{layer}"] = _dot(kept[Site("attn_out", layer)], g) - each.sum(dim=1)
            found[f"mlp_out.{layer}"] = _dot(kept[Site("mlp_out", layer)], g)
        return found

    def _embeddings(
        self, kept: Mapping[Site, Tensor], g: Float[Tensor, "batch d_model"]
    ) -> dict[str, Tensor]:
        """The embeddings' shares; of the whole stream where they do not simply add up to it."""
        stream = kept[Site("resid_pre", 0)]
        listed = {name: kept[Site(name)] for name in ("embed", "pos_embed") if Site(name) in kept}
        if self.adds_up is None:
            missing = sum((x.to(stream.device) for x in listed.values()), start=-stream)
            self.adds_up = bool(missing.norm() <= tolerance(self.model.dtype) * stream.norm())
        if self.adds_up:
            return {name: _dot(x, g) for name, x in listed.items()}
        nothing = {name: torch.zeros(len(g)) for name in listed}
        return nothing | {"embed": _dot(stream, g)}

    def _post_norm(self, layer: int) -> FrozenNorm | None:
        norm = self.model.anatomy.layers[layer].attn_post_norm
        if norm is None:
            return None
        device = next((w.device for w in norm.parameters()), self.model.device)
        return frozen(norm, self.model.d_model, device, self.model.dtype)

    def _heads(
        self, layer: int, z: Float[Tensor, "batch head d_head"]
    ) -> Float[Tensor, "batch head d_model"]:
        """What `head_out` holds at `end`, made there only: at every position it would be large."""
        part = self.model.anatomy.layers[layer]
        heads = at_least_float32(per_head(part.o_proj, z.to(self.model.dtype)[:, None])[:, 0])
        return heads if part.attn_post_norm is not None else heads * self.model.anatomy.multiplier

    def _through_post_norm(
        self, layer: int, heads: Float[Tensor, "batch head d_model"], g: Tensor
    ) -> Float[Tensor, "batch d_model"]:
        """g as the heads meet it: pulled back through the norm between them and the stream."""
        norm = self.post_norms[layer]
        if norm is None:
            return g
        projection, model = self.model.anatomy.layers[layer].o_proj, self.model
        nothing = torch.zeros(1, 1, model.n_heads * model.d_head, dtype=model.dtype)
        bias = projection(nothing.to(heads.device))[0, 0]
        before = heads.sum(dim=1) + bias
        return norm.pull_back(g.to(heads.device)) / norm.scale(before) * model.anatomy.multiplier


def _dot(x: Float[Tensor, "batch d_model"], g: Float[Tensor, "batch d_model"]) -> Tensor:
    return (x.to(g.device) * g).sum(dim=-1)
