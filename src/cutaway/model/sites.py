"""Sites: the places in a decoder where a named tensor passes.

A site is written `kind.layer` (`resid_post.3`), `kind.layer.index` (`head_out.9.6`,
`mlp_post.2.117`) or, for the few that exist once per model, just `kind` (`logits`). `Site` is the
typed form and `Site.parse` the only parser. `KINDS` is the glossary: axis names are the same in
types, einops patterns, result dimensions, files and plots.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from cutaway.errors import SiteError


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What one kind of site is."""

    name: str
    """The word used in site names."""
    axes: tuple[str, ...]
    """The tensor's axis names, in order."""
    meaning: str
    """One line for tables and error messages."""
    indexed: str | None = None
    """The axis that a third part of the site name picks from (`head`, `neuron`, …)."""
    per_layer: bool = True
    """False for the sites that exist once per model."""
    interior: bool = False
    """True where the attention must be materialised for the tensor to exist."""


_STREAM = ("batch", "position", "d_model")
_NEURON = ("batch", "position", "neuron")
_QUERY = ("batch", "position", "head", "d_head")
_KEY = ("batch", "position", "kv_head", "d_head")
_SQUARE = ("batch", "head", "query_position", "key_position")


def _kinds() -> dict[str, Kind]:
    def kind(
        name: str,
        axes: tuple[str, ...],
        meaning: str,
        indexed: str | None = None,
        *,
        per_layer: bool = True,
        interior: bool = False,
    ) -> Kind:
        return Kind(
            name=name, axes=axes, meaning=meaning, indexed=indexed, per_layer=per_layer,
            interior=interior,
        )  # fmt: skip

    listed = [
        kind("embed", _STREAM, "the token embedding", per_layer=False),
        kind("pos_embed", _STREAM, "the position embedding, where positions have one",
             per_layer=False),
        kind("resid_pre", _STREAM, "the residual stream entering the layer"),
        kind("attn_in", _STREAM, "what the attention reads, after its norm"),
        kind("q", _QUERY, "query projections, before rotary", "head"),
        kind("k", _KEY, "key projections, before rotary", "kv_head"),
        kind("v", _KEY, "value projections", "kv_head"),
        kind("q_rot", _QUERY, "queries as the dot product sees them", "head", interior=True),
        kind("k_rot", _KEY, "keys as the dot product sees them", "kv_head", interior=True),
        kind("scores", _SQUARE, "scaled dot products, before soft cap, mask, sink and softmax",
             "head", interior=True),
        kind("pattern", _SQUARE, "attention weights, after softmax", "head", interior=True),
        kind("z", _QUERY, "pattern · v: what the output projection reads", "head"),
        kind("head_out", ("batch", "position", "head", "d_model"),
             "each head's own contribution through the output projection", "head"),
        kind("attn_out", _STREAM, "what the attention adds to the residual stream"),
        kind("resid_mid", _STREAM, "the residual stream between attention and MLP"),
        kind("mlp_in", _STREAM, "what the MLP reads, after its norm"),
        kind("router", ("batch", "position", "expert"),
             "the weight of each expert in the mixture (zero where it is not chosen)", "expert"),
        kind("mlp_pre", _NEURON, "before the non-linearity (the gate's side in gated MLPs)",
             "neuron"),
        kind("mlp_post", _NEURON, "what the MLP's down projection reads", "neuron"),
        kind("mlp_out", _STREAM, "what the MLP adds to the residual stream"),
        kind("resid_post", _STREAM, "the residual stream leaving the layer"),
        kind("resid_final", _STREAM, "the stream entering the final norm", per_layer=False),
        kind("final_norm", _STREAM, "what the unembedding reads", per_layer=False),
        kind("logits", ("batch", "position", "vocab"), "the output logits", per_layer=False),
    ]  # fmt: skip
    return {entry.name: entry for entry in listed}


KINDS: Final[Mapping[str, Kind]] = _kinds()
"""Every kind of site, in the order in which a forward pass meets them."""


@dataclass(frozen=True, order=True)
class Site:
    """A place where a named tensor passes."""

    kind: str
    """One of `KINDS`."""
    layer: int | None = None
    """Counted from 0; None for sites that exist once per model."""
    index: int | None = None
    """A head, key-value head, neuron or expert within the site; None for the whole tensor."""

    @classmethod
    def parse(cls, text: str | Site) -> Site:
        """Read `kind`, `kind.layer` or `kind.layer.index`."""
        if isinstance(text, Site):
            return text
        kind, *numbers = text.strip().split(".")
        if kind not in KINDS:
            raise SiteError(f"There is no site {text!r}{_nearest(kind, KINDS)}.")
        known = KINDS[kind]
        if not known.per_layer and numbers:
            raise SiteError(f"{text!r}: {kind!r} exists once per model; write just {kind!r}.")
        if known.per_layer and not numbers:
            raise SiteError(f"{text!r} needs a layer, for example '{kind}.0'.")
        if len(numbers) > 2 or not all(number.isdigit() for number in numbers):
            raise SiteError(
                f"{text!r} is not a site; write '{kind}.LAYER' or '{kind}.LAYER.INDEX' "
                "with whole numbers."
            )
        if len(numbers) == 2 and known.indexed is None:
            raise SiteError(f"{text!r}: {kind!r} has no parts to index; write '{kind}.LAYER'.")
        layer = int(numbers[0]) if numbers else None
        return cls(kind, layer, int(numbers[1]) if len(numbers) == 2 else None)

    @property
    def whole(self) -> Site:
        """The same place without an index into it."""
        return replace(self, index=None)

    @property
    def axes(self) -> tuple[str, ...]:
        """The axis names of the tensor that passes here."""
        return KINDS[self.kind].axes

    def __str__(self) -> str:
        return ".".join(
            str(part) for part in (self.kind, self.layer, self.index) if part is not None
        )


def _nearest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known kinds are {', '.join(known)}"


def check_site(
    site: Site, *, present: Sequence[Site], reasons: Mapping[str, str], sizes: Mapping[str, int]
) -> Site:
    """Return `site` when the model has it, or say what is nearest.

    `present` lists the model's whole sites, `reasons` says why a kind is absent, and `sizes`
    gives the length of each indexed axis.
    """
    if site.whole not in present:
        if site.kind in reasons:
            raise SiteError(f"{str(site)!r} does not exist here: {reasons[site.kind]}.")
        layers = sorted(s.layer for s in present if s.kind == site.kind and s.layer is not None)
        if not layers:
            near = _nearest(site.kind, dict.fromkeys(s.kind for s in present))
            raise SiteError(f"This model has no site {str(site)!r}{near}.")
        closest = min(layers, key=lambda layer: abs(layer - (site.layer or 0)))
        raise SiteError(
            f"This model has no site {str(site)!r}: {site.kind!r} exists in layers "
            f"{layers[0]} to {layers[-1]}; the nearest is '{site.kind}.{closest}'."
        )
    axis = KINDS[site.kind].indexed
    if site.index is not None and axis is not None and not -sizes[axis] <= site.index < sizes[axis]:
        raise SiteError(
            f"This model has no site {str(site)!r}: there are {sizes[axis]} entries along "
            f"{axis!r}; the last is '{site.kind}.{site.layer}.{sizes[axis] - 1}'."
        )
    return site
