"""A finished run, read at one position: direct attribution, neurons and the logit lens.

The same arithmetic as `attribution`, `inside` and `lens`, on one prompt that has been run already,
with edits or without, and at any position of it. `sites_read` says what the run must have kept.

Parts add up to the logit as long as nothing else writes to the stream. An edit of the stream itself
does write to it; what it adds at the end is told beside the parts (`PartsOfLogit.rest`), as the
logit less all parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cutaway.behaviours.metrics import Coefficients, at_least_float32
from cutaway.model import weights as read
from cutaway.model.model import Model
from cutaway.model.run import Run
from cutaway.model.sites import Site
from cutaway.observe.aim import Aim, Aimed, linear_norm
from cutaway.observe.attribution import Splitting
from cutaway.observe.contributions import Parts
from cutaway.observe.inside import through_mlp


@dataclass(frozen=True, kw_only=True)
class PartsOfLogit:
    """What each part adds to a logit, or to the difference of two, at one position."""

    heads: Float[Tensor, "layer head"]
    """Each head's contribution."""
    mlps: Float[Tensor, " layer"]
    """Each MLP's."""
    embeddings: float
    """That of token and position embeddings."""
    constants: float
    """That of the biases of attentions, norm and unembedding."""
    logit: float
    """What is split up (before a soft cap, where a family has one)."""

    @property
    def rest(self) -> float:
        """The logit less all parts: nothing but rounding, unless the stream itself was edited."""
        parts = float(self.heads.double().sum() + self.mlps.double().sum())
        return self.logit - parts - self.embeddings - self.constants


def sites_read(model: Model) -> list[Site]:
    """What a run must keep for `parts_of_logit`, `end_logits` and `top_tokens`."""
    streams = [Site("resid_post", layer) for layer in range(model.n_layers)]
    return [*_splitting(model, ()).sites, *streams]


def end_logits(model: Model, run: Run, position: int) -> Float[Tensor, " vocab"]:
    """A run's logits at one position of its only prompt, from its `final_norm`."""
    with torch.no_grad():
        return model.unembed(run["final_norm"][:, position])[0].float()


def parts_of_logit(model: Model, run: Run, position: int, ids: Sequence[int]) -> PartsOfLogit:
    """Split the logit of one token, or the first one's less the second's, at one position.

    `run` holds one prompt and kept `sites_read(model)`; `ids` are one or two token ids.
    """
    splitting = _splitting(model, ids)
    kept = _at(run, splitting.sites, position)
    with torch.no_grad():
        aimed = _aimed(model, run, position, ids, kept)
        found = {
            name: float(value[0]) for name, value in splitting.contributions(kept, aimed).items()
        }
    heads = torch.tensor(
        [
            [found[f"head_out.{layer}.{head}"] for head in range(model.n_heads)]
            for layer in range(model.n_layers)
        ]
    )
    biases = [found[f"attn_bias.{layer}"] for layer in range(model.n_layers)]
    return PartsOfLogit(
        heads=heads,
        mlps=torch.tensor([found[f"mlp_out.{layer}"] for layer in range(model.n_layers)]),
        embeddings=found["embed"] + found.get("pos_embed", 0.0),
        constants=sum(biases) + found["norm_bias"] + found["unembed_bias"],
        logit=float(aimed.target[0]),
    )


def neurons_of_logit(
    model: Model, run: Run, layer: int, position: int, ids: Sequence[int]
) -> Float[Tensor, " neuron"]:
    """Each neuron's share of its MLP's contribution; the MLP's bias is in none of them.

    `run` kept `mlp_post.LAYER` besides `sites_read`. Raises `ModelError` for a mixture of experts.
    """
    site = model.check_site(Site("mlp_post", layer))
    weights = read.mlp_output(model, layer).float()
    kept = _at(run, [*_splitting(model, ids).sites, site], position)
    with torch.no_grad():
        g = _aimed(model, run, position, ids, kept).g
        post = kept[site]
        through = through_mlp(
            model, layer, linear_norm(model, model.anatomy.layers[layer].mlp_post_norm), post, g
        ).to(post)
        return (post * (through @ weights.to(post).mT))[0]


def top_tokens(
    model: Model, run: Run, positions: Sequence[int]
) -> tuple[Int[Tensor, "reading position"], Float[Tensor, "reading position"]]:
    """The logit lens: the likeliest token and its probability after each layer.

    The first reading is that of the stream that enters layer 0, the others of the streams that
    leave each layer.
    """
    sites = [Site("resid_pre", 0), *(Site("resid_post", layer) for layer in range(model.n_layers))]
    places = torch.as_tensor(list(positions))
    ids: list[Tensor] = []
    shares: list[Tensor] = []
    with torch.no_grad():
        for site in sites:
            stream = run[site][:, places.to(run[site].device)]
            logits = model.unembed(model.anatomy.final_norm(stream))[0].float()
            share, best = logits.softmax(dim=-1).max(dim=-1)
            ids.append(best.cpu())
            shares.append(share.cpu())
    return torch.stack(ids), torch.stack(shares)


def _splitting(model: Model, ids: Sequence[int]) -> Splitting:
    aim = Aim(model=model, name="logit", ids=tuple(ids))
    return Splitting(model, Parts.of(model), aim)


def _aimed(
    model: Model, run: Run, position: int, ids: Sequence[int], kept: Mapping[Site, Tensor]
) -> Aimed:
    weights = torch.tensor([[1.0, -1.0][: len(ids)]])
    coefficients = Coefficients(ids=torch.tensor([list(ids)]), weights=weights)
    aim = Aim(model=model, name="logit", ids=tuple(ids))
    return aim.of_logits(coefficients, kept, end_logits(model, run, position)[None])


def _at(run: Run, sites: Sequence[Site], position: int) -> dict[Site, Tensor]:
    return {site: at_least_float32(run[site][:, position]) for site in sites}
