"""What is particular to a family of models.

Most of a decoder's anatomy can be read off its module tree (see `anatomy`), so a `Family` only
names what that reading would get wrong. Every field left at None is inferred. Declaring a family
of one's own takes a few lines:

    from cutaway.model import Family, declare
    declare(Family(model_type="my_gpt", blocks="decoder.layers", attn="mixer", qkv="wqkv",
                   packing="concat", o_proj="wo"))

Whatever is declared or inferred has to pass verification when a model is opened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Packing = Literal["concat", "grouped", "codegen"]
"""How one projection holds q, k and v: `concat` [q | k | v]; `grouped` per key-value head
[its queries | k | v]; `codegen` four blocks of [q | v | k]."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """Where a family keeps its parts. Paths are dotted; None means: infer it."""

    model_type: str
    """The configuration's `model_type`."""
    blocks: str | None = None
    """The list of layers, from the model."""
    embed: str | None = None
    """The token embedding, from the model."""
    pos_embed: str | None = None
    """The position embedding, from the model."""
    final_norm: str | None = None
    """The norm before the unembedding, from the model."""
    attn: str | None = None
    """The attention, from a layer."""
    mlp: str | None = None
    """The MLP or mixture of experts, from a layer."""
    attn_post_norm: str | None = None
    """A norm between the attention's output and the stream, from a layer; '' for none."""
    mlp_post_norm: str | None = None
    """A norm between the MLP's output and the stream, from a layer; '' for none."""
    q: str | None = None
    """The query projection, from the attention."""
    k: str | None = None
    """The key projection, from the attention."""
    v: str | None = None
    """The value projection, from the attention."""
    qkv: str | None = None
    """A fused projection, from the attention."""
    packing: Packing | Callable[[Any], Packing] | None = None
    """How the fused projection is packed; may depend on the configuration."""
    o_proj: str | None = None
    """The output projection, from the attention."""
    up: str | None = None
    """The MLP's first projection (the gate's, in gated MLPs), from the MLP or the layer."""
    down: str | None = None
    """The MLP's last projection, from the MLP or the layer."""
    kv_heads: Callable[[Any], int] | None = None
    """The number of key-value heads, when the configuration's usual names do not say."""
    clip_qkv: Callable[[Any], float | None] | None = None
    """A bound that clamps the projections after they are made."""
    own_kernel: Callable[[Any], bool] | None = None
    """Whether the fused kernel's call is to be opened rather than the family's eager attention,
    where the two are not the same function."""
    unsupported: Callable[[Any], str | None] | None = None
    """Why a variant of this family cannot be opened, judging by its configuration."""


def _falcon_kv_heads(config: Any) -> int:
    if config.new_decoder_architecture:
        return int(config.num_kv_heads)
    return 1 if config.multi_query else int(config.num_attention_heads)


def _bigcode_kv_heads(config: Any) -> int:
    return 1 if config.multi_query else int(config.num_attention_heads)


def _stream_is_normalised(config: Any) -> str | None:
    if config.do_layer_norm_before:
        return None
    return (
        "it normalises the residual stream itself after each addition (do_layer_norm_before="
        "False), so its layers' outputs do not add up"
    )


def _bloom_residual(config: Any) -> str | None:
    if not config.apply_residual_connection_post_layernorm:
        return None
    return "it takes its residual after the layer norm, so its layers' outputs do not add up"


FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        Family(model_type="gpt2", packing="concat"),
        Family(model_type="gpt_bigcode", packing="grouped", kv_heads=_bigcode_kv_heads),
        Family(model_type="gpt_neox", packing="grouped"),
        Family(model_type="codegen", packing="codegen"),
        Family(model_type="bloom", packing="grouped", unsupported=_bloom_residual),
        Family(
            model_type="falcon",
            packing="grouped",
            kv_heads=_falcon_kv_heads,
            # transformers' eager Falcon adds ALiBi twice: in the mask and to the scores.
            own_kernel=lambda config: bool(config.alibi),
        ),
        Family(
            model_type="mpt",
            packing="concat",
            clip_qkv=lambda config: config.attn_config.clip_qkv,
        ),
        Family(model_type="phi3", packing="concat"),
        Family(model_type="opt", unsupported=_stream_is_normalised),
    )
}
"""The declared families by `model_type`; everything else is inferred."""


def declare(family: Family) -> None:
    """Say how a family is built, for this process. It must still verify when it is opened."""
    FAMILIES[family.model_type] = family
