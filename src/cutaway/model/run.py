"""Runs: what a forward pass gave, and what was kept of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from cutaway.errors import SiteError
from cutaway.model.ports import Passing
from cutaway.model.sites import KINDS, Site
from cutaway.model.tokens import Tokens

Keep = str | Site | Callable[[Site], bool]
"""A site, a kind (all its layers), or a predicate over sites."""
Metric = Callable[[Float[Tensor, "batch position vocab"]], Tensor]
"""From the logits to a number per prompt, or one."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One forward pass over a batch of prompts."""

    logits: Float[Tensor, "batch position vocab"]
    """The output logits."""
    tokens: Tokens
    """What was run."""
    kept: Mapping[Site, Tensor] = field(repr=False)
    """The kept tensors by whole site, as they passed (edits included)."""
    gradients: Mapping[Site, Tensor] = field(default_factory=dict, repr=False)
    """The metric's gradient at each kept site, when one was asked for."""

    @property
    def sites(self) -> Sequence[Site]:
        """What was kept."""
        return list(self.kept)

    def __getitem__(self, site: Site | str) -> Tensor:
        """A kept tensor, or one head or neuron of it when the site names an index."""
        return self._pick(self.kept, site, "keep")

    def grad(self, site: Site | str) -> Tensor:
        """The gradient of the metric at a kept site."""
        if not self.gradients:
            raise SiteError("This run has no gradients; run it with grad_of=METRIC and keep=[…].")
        return self._pick(self.gradients, site, "keep")

    def _pick(self, tensors: Mapping[Site, Tensor], site: Site | str, how: str) -> Tensor:
        parsed = Site.parse(site)
        if parsed.whole not in tensors:
            kept = ", ".join(str(each) for each in tensors) or "nothing"
            raise SiteError(
                f"This run did not keep {str(parsed.whole)!r} (it kept {kept}); "
                f"run again with {how}=[{str(parsed.whole)!r}]."
            )
        tensor = tensors[parsed.whole]
        axis = KINDS[parsed.kind].indexed
        if parsed.index is None or axis is None:
            return tensor
        dim = KINDS[parsed.kind].axes.index(axis)
        if parsed.index >= tensor.shape[dim]:
            raise SiteError(
                f"This run has no {str(parsed)!r}: there are {tensor.shape[dim]} entries along "
                f"{axis!r}; the last is '{parsed.whole}.{tensor.shape[dim] - 1}'."
            )
        return tensor.select(dim, parsed.index)

    def array(self, site: Site | str) -> xr.DataArray:
        """A kept tensor with named dimensions, in float32 on the CPU."""
        parsed = Site.parse(site)
        values = self[parsed.whole].detach().float().cpu().numpy()
        return xr.DataArray(values, dims=KINDS[parsed.kind].axes, name=str(parsed.whole))

    @property
    def last_logits(self) -> Float[Tensor, "batch vocab"]:
        """The logits at each prompt's last token."""
        rows = torch.arange(len(self.tokens), device=self.logits.device)
        return self.logits[rows, self.tokens.last.to(self.logits.device)]


def chosen(
    keep: Sequence[Keep] | Keep, check: Callable[[Site], Site], sites: Sequence[Site]
) -> set[Site]:
    """The whole sites that `keep` names; a name that matches nothing is an error."""
    listed = [keep] if isinstance(keep, (str, Site)) or callable(keep) else list(keep)
    found: set[Site] = set()
    for item in listed:
        if callable(item):
            matching = {site for site in sites if item(site)}
            if not matching:
                raise SiteError("The function given to keep matches no site of this model.")
        elif isinstance(item, str) and item in KINDS and KINDS[item].per_layer:
            matching = {site for site in sites if site.kind == item}
            if not matching:
                check(Site(item, 0))
        else:
            matching = {check(Site.parse(item)).whole}
        found |= matching
    return found


class Recorder:
    """The tap that keeps what passes.

    A copy is kept, since some families add to their tensors in place. With gradients, the copy is
    part of the graph, so that the gradient at the site is the gradient of what went on from it.
    """

    def __init__(self, sites: Collection[Site], *, gradients: bool = False) -> None:
        self.sites, self.gradients = frozenset(sites), gradients
        self.kept: dict[Site, Tensor] = {}

    def wants(self, site: Site) -> bool:
        """Whether the site is to be kept."""
        return site in self.sites

    def __call__(self, site: Site, x: Tensor, now: Passing) -> Tensor:
        """Keep a copy; pass on `x` itself, or with gradients what depends on the copy."""
        if not self.gradients:
            self.kept[site] = x.clone() if torch.is_grad_enabled() else x.detach().clone()
            return x
        copy = x.clone() if x.requires_grad else x.detach().clone().requires_grad_()
        self.kept[site] = copy
        return copy.clone()


def gradients_of(
    metric: Metric, logits: Tensor, kept: Mapping[Site, Tensor], *, graph: bool
) -> dict[Site, Tensor]:
    """The gradient of the metric's sum at each kept site; `graph` keeps what it was made from."""
    if not kept:
        raise SiteError("grad_of needs keep=[…]: gradients are given at kept sites.")
    total = metric(logits).sum()
    if not total.requires_grad:
        raise SiteError("The metric given to grad_of does not depend on the logits.")
    found = torch.autograd.grad(
        total, list(kept.values()), retain_graph=graph, allow_unused=True, materialize_grads=True
    )
    return dict(zip(kept, found, strict=True))


def ordered(kept: Mapping[Site, Tensor]) -> dict[Site, Tensor]:
    """Sites sorted as a forward pass meets them."""
    rank = {kind: i for i, kind in enumerate(KINDS)}
    first = {"embed", "pos_embed"}

    def key(site: Site) -> tuple[int, int, int]:
        stage = 0 if site.kind in first else 1 if KINDS[site.kind].per_layer else 2
        return (stage, site.layer or 0, rank[site.kind])

    return {site: kept[site] for site in sorted(kept, key=key)}
