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

from collections.abc import Mapping

import numpy as np
import torch
import xarray as xr
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from cutaway.behaviours.behaviour import Behaviour
from cutaway.behaviours.metrics import at_least_float32
from cutaway.measure.batches import Progress, Prompts, batch_size_for, batches, side
from cutaway.measure.finite import check_run
from cutaway.measure.result import provenance
from cutaway.model.model import Model
from cutaway.model.ports import per_head
from cutaway.model.sites import Site
from cutaway.model.verify import tolerance
from cutaway.observe.aim import (
    Aim,
    Aimed,
    AtEnd,
    Target,
    dot,
    linear_norm,
    through_post_norm,
)
from cutaway.observe.contributions import Attribution, Parts, refuse_unless_sum


def attribute(
    model: Model,
    behaviour: Behaviour,
    *,
    target: Target = None,
    prompts: Prompts = "clean",
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Attribution:
    """Split the logit difference at `end` into what each part of the model contributes directly.

    `target` says what is split instead: a token's logit, the difference of two tokens' logits, or
    what a direction of the stream reads there (see `aim`). `prompts` says which side of the pairs
    is run. Raises `AttributionError` when the parts do not add up to what the model itself gave.
    """
    parts = Parts.of(model)
    aim = Aim.of(model, behaviour, target)
    method = Splitting(model, parts, aim)
    shape = (len(behaviour), len(parts.names))
    values, whole, measured = np.empty(shape), np.empty(shape[0]), np.empty(shape[0])
    size = batch_size_for(model, behaviour, batch_size)
    for where, rows in batches(behaviour, size, progress):
        values[where], whole[where], measured[where] = method(rows, prompts, where.start)
    found = Attribution(
        values=parts.array(values),
        target=xr.DataArray(whole, dims="example", name="target"),
        measured=xr.DataArray(measured, dims="example", name="measured"),
        before_cap=model.anatomy.logit_cap is not None,
        embeddings=method.embeddings,
        provenance=provenance(
            model,
            behaviour,
            {"method": "direct logit attribution", "prompts": prompts, "target": aim.name},
        ),
    )
    refuse_unless_sum(found, bound=min(0.05, 5 * tolerance(model.dtype)))
    return found


class Splitting:
    """The steps of the module docstring for one model, batch by batch."""

    def __init__(self, model: Model, parts: Parts, aim: Aim) -> None:
        self.model, self.parts, self.aim = model, parts, aim
        self.adds_up: bool | None = None
        self.post_norms = [
            linear_norm(model, layer.attn_post_norm) for layer in model.anatomy.layers
        ]
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
        tap = AtEnd(self.sites, tokens.labels["end"])
        run = model.run(tokens, taps=[tap])
        check_run(model, run, first, prompts)
        kept = tap.kept
        aimed = self.aim.at(rows, kept, first, run.logits)
        found = self.contributions(kept, aimed)
        stacked = torch.stack([found[name].double().cpu() for name in self.parts.names], dim=1)
        return stacked.numpy(), aimed.target.cpu().numpy(), aimed.measured.cpu().numpy()

    def contributions(
        self, kept: Mapping[Site, Tensor], aimed: Aimed
    ) -> dict[str, Float[Tensor, " batch"]]:
        """What each part adds to the target, from what passed at `sites` at one position."""
        model, g = self.model, aimed.g
        found = {
            "norm_bias": aimed.norm_bias,
            "unembed_bias": aimed.unembed_bias,
            **self._embeddings(kept, g),
        }
        for layer in range(model.n_layers):
            heads = self._heads(layer, kept[Site("z", layer)])
            norm = self.post_norms[layer]
            through = through_post_norm(model, layer, norm, heads, g).to(heads.device)
            each = einsum(heads, through, "b head d, b d -> b head").to(g.device)
            found |= {f"head_out.{layer}.{head}": each[:, head] for head in range(each.shape[1])}
            found[f"attn_bias.{layer}"] = dot(kept[Site("attn_out", layer)], g) - each.sum(dim=1)
            found[f"mlp_out.{layer}"] = dot(kept[Site("mlp_out", layer)], g)
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
            return {name: dot(x, g) for name, x in listed.items()}
        nothing = {name: torch.zeros(len(g)) for name in listed}
        return nothing | {"embed": dot(stream, g)}

    def _heads(
        self, layer: int, z: Float[Tensor, "batch head d_head"]
    ) -> Float[Tensor, "batch head d_model"]:
        """What `head_out` holds at `end`, made there only: at every position it would be large."""
        part = self.model.anatomy.layers[layer]
        heads = at_least_float32(per_head(part.o_proj, z.to(self.model.dtype)[:, None])[:, 0])
        return heads if part.attn_post_norm is not None else heads * self.model.anatomy.multiplier
