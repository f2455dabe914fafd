"""Heads and MLPs set to their mean, one by one or several together, and what text loses by it.

A part is written as the site where it writes: `head_out.L.H` or `mlp_out.L`. Heads are held at `z`,
so that biases and post-norms stay the model's own. Means are over all real tokens of a reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cutaway.model.edits import Edit, replace
from cutaway.model.model import Model
from cutaway.model.sites import Site
from cutaway.model.tokens import Tokens

_ROWS = 32
Progress = Callable[[int, int], None]
"""Called with the steps done and their total."""


def means(model: Model, tokens: Tokens, sites: Sequence[Site]) -> dict[Site, Tensor]:
    """The mean of each site over the prompts' real tokens."""
    sums: dict[Site, Tensor] = {}
    for start in range(0, len(tokens), _ROWS):
        run = model.run(tokens.rows(slice(start, start + _ROWS)), keep=sites)
        for site in sites:
            here = run[site][run.tokens.mask.to(run[site].device)].double().sum(dim=0)
            sums[site] = sums[site] + here if site in sums else here
    total = int(tokens.lengths.sum())
    return {site: (each / total).float() for site, each in sums.items()}


@dataclass(frozen=True, kw_only=True, eq=False)
class Means:
    """The mean of every head and MLP over some prompts."""

    values: dict[Site, Tensor]
    """By whole site: `z.L` (head, d_head) and `mlp_out.L` (d_model,)."""

    @staticmethod
    def of(model: Model, tokens: Tokens) -> Means:
        """Run the prompts and average over their real tokens."""
        sites = [Site(kind, layer) for layer in range(model.n_layers) for kind in ("z", "mlp_out")]
        return Means(values=means(model, tokens, sites))

    def edits(self, parts: Sequence[str]) -> list[Edit]:
        """The edits that set these parts to their means."""
        return [self._edit(Site.parse(part)) for part in parts]

    def _edit(self, part: Site) -> Edit:
        if part.kind == "mlp_out":
            return replace(part, self.values[part])
        assert part.index is not None
        site = Site("z", part.layer)
        return replace(site, self.values[site][part.index], head=part.index)


def heads_of(model: Model) -> list[str]:
    """Every head as a part."""
    layers, heads = range(model.n_layers), range(model.n_heads)
    return [f"head_out.{layer}.{head}" for layer in layers for head in heads]


def mlps_of(model: Model) -> list[str]:
    """Every MLP as a part."""
    return [f"mlp_out.{layer}" for layer in range(model.n_layers)]


def log_probabilities(
    model: Model, tokens: Tokens, edits: Sequence[Edit] = ()
) -> tuple[Float[Tensor, "text position"], Float[Tensor, "text position"]]:
    """(text, position): the log-probability of each token given those before it, and 1 where it is
    the likeliest; NaN for every text's first token and for padding."""
    said = torch.full(tokens.ids.shape, torch.nan)
    likeliest = said.clone()
    for start in range(0, len(tokens), _ROWS):
        where = slice(start, min(start + _ROWS, len(tokens)))
        rows = tokens.rows(where)
        logits = model.run(rows, edits=list(edits)).logits[:, :-1].float()
        wanted = rows.ids[:, 1:].to(logits.device)
        log = logits.log_softmax(dim=-1).gather(-1, wanted[..., None])[..., 0]
        known = rows.mask[:, 1:] & rows.mask[:, :-1]
        said[where, 1:] = torch.where(known, log.cpu(), torch.nan)
        best = (logits.argmax(dim=-1) == wanted).float().cpu()
        likeliest[where, 1:] = torch.where(known, best, torch.nan)
    return said, likeliest


def losses(model: Model, tokens: Tokens, edits: Sequence[Edit] = ()) -> Float[np.ndarray, " text"]:
    """(text,): the mean loss per token, in nats."""
    said, _ = log_probabilities(model, tokens, edits)
    return -said.nanmean(dim=1).double().numpy()
