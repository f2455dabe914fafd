"""What a cell makes of the residual stream: where the pass has to be taken up, and with what.

The edit of a cell is carried out on the base run's own tensor, outside of any forward pass, and
followed by hand as far as that is exact and cheap:

| the edited site | is followed to |
|---|---|
| `resid_pre` | the stream entering its layer |
| `z`, `head_out` | Δz · W_O of the edited heads (through the post-norm where there is one), added to the stream between attention and MLP |
| `q`, `k`, `v`, `q_rot`, `k_rot`, `scores`, `pattern` of a head | heads do not see one another, so one pass through the layer's attention with *every* head edited gives each head's new z; then as for `z` |
| `attn_out`, `resid_mid` | the stream between attention and MLP |
| `mlp_post` | Δ · W_down, added to the stream leaving the layer |
| `mlp_out`, `resid_post` | the stream leaving the layer |
| anything else | through the whole of its own layer, a cell at a time |

In layers whose attention and MLP run side by side, a change of the attention's output goes straight
to the stream leaving the layer.
"""  # noqa: E501

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from cutaway.model.edits import BoundEdit
from cutaway.model.model import Model
from cutaway.model.ports import Passing, plain_weight
from cutaway.model.resume import Base, resume
from cutaway.model.sites import KINDS, Site
from cutaway.patch.cells import Cell, MakeEdit

Place = Literal["pre", "mid", "post"]
"""A layer's stream: entering it, between its attention and its MLP, leaving it."""

HEADWISE = frozenset({"q", "k", "v", "q_rot", "k_rot", "scores", "pattern"})
"""Sites inside of attention where heads do not see one another."""
_FOLLOWED = frozenset({
    "resid_pre", "z", "attn_out", "resid_mid", "mlp_post", "mlp_out", "resid_post",
})  # fmt: skip


_INSIDE = frozenset({"z", "attn_out", "resid_mid"})


def place_of(model: Model, cell: Cell, *, halves: bool) -> Place:
    """Which of its layer's streams a cell's edit is followed to."""
    kind = cell.site.kind
    splits = model.parallel or halves
    if kind == "resid_pre":
        return "pre"
    inside = kind in _INSIDE or (kind in HEADWISE and _separable(model, cell))
    return "mid" if inside and splits and not model.parallel else "post"


def is_followed(model: Model, cell: Cell, *, halves: bool) -> bool:
    """Whether a cell's edit is followed by hand, and not run through its whole layer."""
    kind, splits = cell.site.kind, model.parallel or halves
    if kind in HEADWISE:
        return splits and _separable(model, cell)
    return kind in _FOLLOWED and (splits or kind not in _INSIDE)


def _separable(model: Model, cell: Cell) -> bool:
    """Whether a head's edit reaches no other head before the output projection."""
    across = model.anatomy.layers[cell.site.layer or 0].norm_across_heads
    return cell.where.index is not None and not (across and cell.site.kind in ("q", "k"))


@dataclass(frozen=True)
class Stream:
    """The changed stream of one cell, for every prompt of the batch."""

    place: Place
    """Which of the layer's streams."""
    layer: int
    """The layer."""
    values: Tensor
    """(batch, position, d_model)."""


def heads_change(
    model: Model, layer: int, old: Tensor, new: Tensor, heads: Sequence[int] | None
) -> Float[Tensor, "row position d_model"]:
    """What a layer's heads add to the stream with z `new` (row, position, head, d_head), less what
    they add with `old`, through the post-norm where there is one; only `heads` differ (None: any).
    """
    part, scale = model.anatomy.layers[layer], model.anatomy.multiplier
    weight = plain_weight(part.o_proj)
    with torch.no_grad():
        if part.attn_post_norm is None and weight is not None:
            split = rearrange(weight.detach(), "d (head w) -> head w d", head=new.shape[2])
            chosen = slice(None) if heads is None else list(heads)
            out = (new[:, :, chosen] - old[:, :, chosen]).flatten(2) @ split[chosen].flatten(0, 1)
        else:
            pair = [part.o_proj(z.flatten(2)) for z in (new, old)]
            if part.attn_post_norm is not None:
                pair = [part.attn_post_norm(z) for z in pair]
            out = pair[0] - pair[1]
    return out if scale == 1.0 else out * scale


def needed(model: Model, sites: Sequence[Site], *, halves: bool) -> list[Site]:
    """What the base run has to keep for cells of some sites."""
    kind = sites[0].kind
    middle = "resid_mid" if halves and not model.parallel else "resid_post"
    own: set[str] = set()
    if kind in HEADWISE:
        own = {"resid_pre", "z", middle}
    elif kind in ("z", "attn_out"):
        own = {kind, middle}
    elif kind in _FOLLOWED:
        own = {kind} if kind.startswith("resid") else {kind, "resid_post"}
    if kind not in _FOLLOWED or (kind in _INSIDE and not (model.parallel or halves)):
        own = own | {"resid_pre", "resid_post"}
    layers = {site.layer for site in sites}
    return [site for site in model.sites if site.kind in own and site.layer in layers]


class Follower:
    """Follows the edits of one batch's cells."""

    def __init__(self, model: Model, base: Base, make: MakeEdit, *, halves: bool) -> None:
        self.model, self.base, self.make, self.halves = model, base, make, halves
        tokens = base.run.tokens
        self.now = Passing(batch=len(tokens), width=int(tokens.ids.shape[1]))
        self.rows = torch.arange(len(tokens), device=tokens.ids.device)
        self._every_head: OrderedDict[tuple[object, ...], Tensor] = OrderedDict()
        self._unedited: dict[Site, Tensor] = {}

    def stream(self, cell: Cell) -> Stream:
        """The cell's changed stream."""
        kind, layer = cell.site.kind, cell.site.layer
        assert layer is not None
        if not is_followed(self.model, cell, halves=self.halves):
            return self._through_layer(cell, layer)
        if kind in HEADWISE:
            heads = self._heads(cell)
            return self._attention(layer, self._new_z(cell, heads), heads)
        old = self.base.run[cell.site]
        new = self._bound(cell)(cell.site, old, self.now)
        if kind == "z":
            return self._attention(layer, new, cell.where.index)
        if kind in ("resid_pre", "resid_post"):
            return Stream("pre" if kind == "resid_pre" else "post", layer, new)
        if kind == "resid_mid":
            return Stream("mid", layer, new)
        if kind == "attn_out":
            return self._after_attention(layer, new - old)
        added = new - old if kind == "mlp_out" else self._down(layer, old, new, cell.where.index)
        return Stream("post", layer, self.base.run[Site("resid_post", layer)] + added)

    def _bound(self, cell: Cell) -> BoundEdit:
        return self.model.bind([self.make(cell)], self.base.run.tokens)[0]

    def _after_attention(self, layer: int, change: Tensor) -> Stream:
        """The stream once the attention's contribution has changed."""
        place: Place = "post" if self.model.parallel else "mid"
        return Stream(place, layer, self.base.run[Site(f"resid_{place}", layer)] + change)

    def _attention(self, layer: int, new: Tensor, heads: Sequence[int] | None) -> Stream:
        old = self.base.run[Site("z", layer)]
        return self._after_attention(layer, heads_change(self.model, layer, old, new, heads))

    def _down(self, layer: int, old: Tensor, new: Tensor, neurons: Sequence[int] | None) -> Tensor:
        part, scale = self.model.anatomy.layers[layer], self.model.anatomy.multiplier
        assert part.down is not None
        weight = plain_weight(part.down)
        if part.mlp_post_norm is None and weight is not None:
            chosen = slice(None) if neurons is None else list(neurons)
            return ((new - old)[..., chosen] @ weight[:, chosen].T) * scale
        with torch.no_grad():
            pair = [part.down(values) for values in (new, old)]
            if part.mlp_post_norm is not None:
                pair = [part.mlp_post_norm(out) for out in pair]
        return (pair[0] - pair[1]) * scale

    # ── inside attention ─────────────────────────────────────────────────────────────────────

    def _heads(self, cell: Cell) -> list[int]:
        """The heads that read what a cell edits: several, where they share keys and values."""
        shared = "kv_head" in KINDS[cell.site.kind].axes and self.model.anatomy.d_key is None
        group = self.model.n_heads // self.model.n_kv_heads if shared else 1
        return [i * group + j for i in cell.where.index or () for j in range(group)]

    def _new_z(self, cell: Cell, heads: list[int]) -> Tensor:
        """z with some heads as they are when every head is edited."""
        key = (cell.site, cell.where.position, cell.where.key_position)
        if key not in self._every_head:
            every = replace(cell, where=replace(cell.where, index=None))
            self._every_head[key] = self._z_of(cell.site, self._bound(every))
            if len(self._every_head) > self.model.n_layers:
                self._every_head.popitem(last=False)
        z = self.base.run[Site("z", cell.site.layer)]
        change = self._every_head[key] - self._unedited_z(cell.site)
        new = z.clone()
        new[:, :, heads] += change[:, :, heads]
        return new

    def _unedited_z(self, site: Site) -> Tensor:
        """z by the same kernel as the edited one, so that only what the edit does differs."""
        if site not in self._unedited:
            self._unedited[site] = self._z_of(site, Watch(site))
        return self._unedited[site]

    def _z_of(self, site: Site, tap: BoundEdit | Watch) -> Tensor:
        assert site.layer is not None
        entering = self.base.run[Site("resid_pre", site.layer)]
        until = Site("z", site.layer)
        return resume(self.model, self.base, self.rows, site.layer, 0, entering, until, [tap])

    def _through_layer(self, cell: Cell, layer: int) -> Stream:
        entering = self.base.run[Site("resid_pre", layer)]
        until = Site("resid_post", layer)
        out = resume(
            self.model, self.base, self.rows, layer, 0, entering, until, [self._bound(cell)]
        )
        watch = Watch(cell.site)
        if cell.site not in self._unedited:
            plain = resume(self.model, self.base, self.rows, layer, 0, entering, until, [watch])
            self._unedited[cell.site] = plain
        change = out - self._unedited[cell.site]
        return Stream("post", layer, self.base.run[until] + change)


class Watch:
    """A tap that only has its site connected, and so the kernel that shows it."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def wants(self, site: Site) -> bool:
        """Whether this is the site."""
        return site == self.site

    def __call__(self, site: Site, x: Tensor, now: Passing) -> Tensor:
        """Nothing."""
        return x
