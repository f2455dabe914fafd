"""The anatomy of an opened decoder: which module is which part.

Reading it off the module tree, in this order:

1. the layers are the shallowest `ModuleList` as long as the configuration's number of layers;
2. in a layer, the attention and the MLP are found by the names families use; where the MLP's two
   projections lie in the layer itself (OPT, BioGPT, XGLM), the layer stands for the MLP;
3. a norm belongs *after* a part (between its output and the stream) when its name says so, or when
   the layer has no norm before that part; other norms come before;
4. projections are separate or fused by the attention's attribute names; how a fused one is packed
   is the one thing that a name cannot tell, so families declare it, and an undeclared family is
   tried with each packing until one verifies.

A `Family` overrides any of this. Nothing here runs the model or changes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from cutaway.errors import ModelError
from cutaway.model.family import FAMILIES, Family, Packing

_ATTENTION = ("attn.attention", "attn", "self_attn", "attention", "self_attention")
_MLP = ("mlp", "ffn", "feed_forward", "block_sparse_moe", "moe", "mlp_moe")
_FINAL_NORM = ("norm", "ln_f", "norm_f", "final_layernorm", "final_layer_norm", "layer_norm")
_POSITIONS = ("wpe", "embed_positions", "position_embeddings", "position_embedding")
_Q = ("q_proj", "q_b_proj", "query")
_K = ("k_proj", "key")
_V = ("v_proj", "value")
_KV = ("kv_b_proj",)
_QKV = ("c_attn", "query_key_value", "qkv_proj", "Wqkv", "in_proj", "qkv")
_Q_NORM = ("q_norm", "q_layernorm", "query_norm")
_OUT = ("o_proj", "c_proj", "out_proj", "dense", "wo")
_UP = ("gate_proj", "gate_up_proj", "c_fc", "dense_h_to_4h", "fc1", "fc_in", "up_proj", "w1")
_DOWN = ("down_proj", "c_proj", "dense_4h_to_h", "fc2", "fc_out", "w2")
_ROUTER = ("gate", "router")
_ATTN_POST = ("post_self_attn_layernorm", "post_attention_layernorm", "post_attention_norm")
_MLP_POST = ("post_feedforward_layernorm", "post_mlp_layernorm", "post_moe_norm")
_BEFORE_MLP = ("pre_feedforward_layernorm", "pre_mlp_layernorm")
_READS_MID = (
    *_BEFORE_MLP, "ln_2", "norm_2", "post_attention_layernorm", "final_layer_norm", "ffn_norm",
    "feedforward_layernorm",
)  # fmt: skip
_BEFORE_ATTN = (
    "input_layernorm",
    "ln_1",
    "norm_1",
    "self_attn_layer_norm",
    "ln_attn",
    "attention_layernorm",
)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """The parts of one layer."""

    block: nn.Module
    """The layer itself."""
    attn: nn.Module
    """The attention."""
    mlp: nn.Module
    """The MLP or mixture of experts; the layer itself where the projections lie in it."""
    q: nn.Module
    """The module whose output holds the queries."""
    k: nn.Module
    """The module whose output holds the keys (before their rotary part, in latent attention)."""
    v: nn.Module
    """The module whose output holds the values."""
    o_proj: nn.Module
    """The output projection."""
    attn_post_norm: nn.Module | None
    """A norm between the attention's output and the stream."""
    mlp_post_norm: nn.Module | None
    """A norm between the MLP's output and the stream."""
    up: nn.Module | None
    """The projection before the non-linearity; None in a mixture of experts."""
    down: nn.Module | None
    """The projection after it; None in a mixture of experts."""
    router: nn.Module | None
    """What chooses the experts, where there are experts."""
    reads_mid: nn.Module
    """The first module that reads the stream after the attention: the norm before the MLP, or the
    MLP itself."""
    norm_across_heads: bool
    """Whether queries and keys are normalised over all heads together (OLMo 2): there, a change of
    one head's `q` reaches the others before the dot product."""

    @property
    def mlp_in_layer(self) -> bool:
        """Whether the MLP's projections lie directly in the layer."""
        return self.mlp is self.block


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """Which module is which part, and the sizes that go with them."""

    model_type: str
    """The family's name."""
    packing: Packing | None
    """How fused projections are packed; None where they are separate."""
    layers: tuple[Layer, ...]
    """The layers, in order."""
    embed: nn.Module
    """The token embedding."""
    pos_embed: nn.Module | None
    """The position embedding, where there is one."""
    final_norm: nn.Module
    """The norm before the unembedding."""
    lm_head: nn.Module
    """The unembedding."""
    n_heads: int
    """Query heads in a layer."""
    n_kv_heads: int
    """Key-value heads in a layer."""
    d_model: int
    """Width of the residual stream."""
    d_vocab: int
    """Size of the vocabulary."""
    d_key: int | None
    """Width of the part of each key that is projected per head, in latent attention; else None."""
    multiplier: float
    """What each layer's outputs are multiplied by before they join the stream (1 for most)."""
    logit_scale: float
    """What the unembedding's output is multiplied by (1 for most)."""
    logit_cap: float | None
    """The soft cap on the logits, where there is one."""
    clip_qkv: float | None
    """A bound that clamps q, k and v, where there is one."""
    own_kernel: bool
    """Whether the inside of attention is read from the fused kernel's call."""


def child(root: nn.Module, path: str) -> Any:
    """The attribute at a dotted path, or None when any part of it is missing."""
    found: Any = root
    for name in path.split("."):
        found = getattr(found, name, None)
        if found is None:
            return None
    return found


def _first(root: nn.Module, names: Iterable[str]) -> nn.Module | None:
    for name in names:
        found = child(root, name)
        if isinstance(found, nn.Module):
            return found
    return None


def weight_of(module: nn.Module) -> Tensor:
    """A module's weight; quantised layers have one too, in a shape of their own."""
    weight: Tensor = module.get_parameter("weight")
    return weight


class _Reader:
    """Reads one model's tree with a family's declarations in hand."""

    def __init__(self, hf: nn.Module, family: Family, config: Any) -> None:
        self.hf, self.family, self.config = hf, family, config

    def part(
        self, root: nn.Module, declared: str | None, names: Iterable[str], what: str
    ) -> nn.Module:
        found = self.optional(root, declared, names)
        if found is None:
            tried = declared or ", ".join(names)
            raise ModelError(
                f"The family {self.family.model_type!r} was not understood: no {what} was found in "
                f"{type(root).__name__} (tried {tried}); declare the family with "
                "cutaway.model.declare(Family(…))."
            )
        return found

    def optional(
        self, root: nn.Module, declared: str | None, names: Iterable[str]
    ) -> nn.Module | None:
        if declared == "":
            return None
        return _first(root, (declared,) if declared is not None else names)

    def blocks(self) -> nn.ModuleList:
        if self.family.blocks is not None:
            found = child(self.hf, self.family.blocks)
            if isinstance(found, nn.ModuleList):
                return found
        depth = int(self.config.num_hidden_layers)
        lists = [
            (name.count("."), module)
            for name, module in self.hf.named_modules()
            if isinstance(module, nn.ModuleList) and len(module) == depth
        ]
        if not lists:
            raise ModelError(
                f"The family {self.family.model_type!r} was not understood: no list of {depth} "
                "layers was found; declare the family with cutaway.model.declare(Family(…))."
            )
        return min(lists, key=lambda pair: pair[0])[1]

    def backbone(self, blocks: nn.ModuleList) -> nn.Module:
        for module in self.hf.modules():
            if any(inner is blocks for inner in module.children()):
                return module
        raise AssertionError("the list of layers belongs to the model")

    def layer(self, block: nn.Module) -> Layer:
        family = self.family
        names = [name for name, _ in block.named_children()]
        attn = self.part(block, family.attn, _ATTENTION, "attention")
        mlp = self.optional(block, family.mlp, _MLP)
        if mlp is None:
            mlp = block
        router = None if mlp is block else _first(mlp, _ROUTER)
        if router is not None and not (_first(mlp, ("experts",)) and hasattr(router, "weight")):
            router = None
        after = self.attn_post_norm(block, names)
        dense = router is None and _first(mlp, ("experts",)) is None
        return Layer(
            block=block,
            attn=attn,
            mlp=mlp,
            **self.projections(attn),
            o_proj=self.part(attn, family.o_proj, _OUT, "output projection"),
            attn_post_norm=after,
            mlp_post_norm=self.optional(block, family.mlp_post_norm, _MLP_POST),
            up=self.part(mlp, family.up, _UP, "first MLP projection") if dense else None,
            down=self.part(mlp, family.down, _DOWN, "last MLP projection") if dense else None,
            router=router,
            reads_mid=self.reads_mid(block, mlp, after),
            norm_across_heads=self.norm_across_heads(attn),
        )

    def reads_mid(self, block: nn.Module, mlp: nn.Module, after: nn.Module | None) -> nn.Module:
        for name in _READS_MID:
            norm = child(block, name)
            if isinstance(norm, nn.Module) and norm is not after:
                return norm
        return mlp

    def norm_across_heads(self, attn: nn.Module) -> bool:
        norm = _first(attn, _Q_NORM)
        weight = None if norm is None else getattr(norm, "weight", None)
        heads = int(self.config.num_attention_heads)
        width = getattr(self.config, "head_dim", None) or self.config.hidden_size // heads
        return (
            weight is not None
            and weight.ndim == 1
            and heads > 1
            and weight.numel() == heads * width
        )

    def attn_post_norm(self, block: nn.Module, names: list[str]) -> nn.Module | None:
        declared = self.family.attn_post_norm
        if declared is not None:
            return self.optional(block, declared, ())
        first = _first(block, _ATTN_POST[:1])
        if first is not None:
            return first
        norm_before_mlp = any(name in names for name in _BEFORE_MLP)
        norm_before_attn = any(name in names for name in _BEFORE_ATTN)
        if norm_before_mlp or not norm_before_attn:
            return _first(block, _ATTN_POST[1:])
        return None

    def projections(self, attn: nn.Module) -> dict[str, nn.Module]:
        family = self.family
        fused = self.optional(attn, family.qkv, _QKV)
        if fused is not None:
            return {"q": fused, "k": fused, "v": fused}
        q = self.part(attn, family.q, _Q, "query projection")
        both = _first(attn, _KV)
        if both is not None:
            return {"q": q, "k": both, "v": both}
        k = self.part(attn, family.k, _K, "key projection")
        return {"q": q, "k": k, "v": self.part(attn, family.v, _V, "value projection")}


def _logit_scale(config: Any) -> float:
    scale = getattr(config, "logit_scale", None)
    if isinstance(scale, (int, float)):
        return float(scale)
    divisor = getattr(config, "logits_scaling", None)
    return 1.0 / float(divisor) if divisor else 1.0


def _packings(family: Family, layers: tuple[Layer, ...], config: Any) -> Iterator[Packing | None]:
    if layers[0].q is not layers[0].k:
        yield None
    elif family.packing is None:
        yield from ("concat", "grouped")
    else:
        yield family.packing(config) if callable(family.packing) else family.packing


def _check_supported(hf: nn.Module, family: Family, config: Any) -> None:
    if getattr(hf.config, "is_encoder_decoder", False):
        raise ModelError(
            f"The family {family.model_type!r} cannot be opened: it is an encoder–decoder, and "
            "Cutaway opens decoders."
        )
    if getattr(config, "add_cross_attention", False):
        raise ModelError(
            f"This {family.model_type!r} cannot be opened: its layers have cross-attention, which "
            "nothing feeds; open a model without add_cross_attention."
        )
    why = family.unsupported(config) if family.unsupported is not None else None
    if why is not None:
        raise ModelError(f"This {family.model_type!r} cannot be opened: {why}.")


def anatomies(hf: Any) -> Iterator[Anatomy]:
    """The readings of a model worth verifying, the likeliest first.

    Only an undeclared family with a fused projection has more than one.
    """
    config = hf.config.get_text_config(decoder=True)
    model_type = str(config.model_type)
    family = FAMILIES.get(model_type, Family(model_type=model_type))
    _check_supported(hf, family, config)
    reader = _Reader(hf, family, config)
    blocks = reader.blocks()
    backbone = reader.backbone(blocks)
    layers = tuple(reader.layer(block) for block in blocks)
    n_heads = int(config.num_attention_heads)
    kv_heads = getattr(config, "num_key_value_heads", None) or n_heads
    nope = getattr(config, "qk_nope_head_dim", None)
    for packing in _packings(family, layers, config):
        yield Anatomy(
            model_type=model_type,
            packing=packing,
            layers=layers,
            embed=reader.part(hf, family.embed, (), "token embedding")
            if family.embed
            else hf.get_input_embeddings(),
            pos_embed=reader.optional(hf, family.pos_embed, ())
            if family.pos_embed
            else _first(backbone, _POSITIONS),
            final_norm=reader.part(hf, family.final_norm, (), "final norm")
            if family.final_norm
            else reader.part(backbone, None, _FINAL_NORM, "final norm"),
            lm_head=hf.get_output_embeddings(),
            n_heads=n_heads,
            n_kv_heads=family.kv_heads(config) if family.kv_heads else int(kv_heads),
            d_model=int(config.hidden_size),
            d_vocab=int(weight_of(hf.get_output_embeddings()).shape[0]),
            d_key=int(nope) if nope and layers[0].k is layers[0].v and packing is None else None,
            multiplier=float(getattr(config, "residual_multiplier", None) or 1.0),
            logit_scale=_logit_scale(config),
            logit_cap=getattr(config, "final_logit_softcapping", None),
            clip_qkv=family.clip_qkv(config)
            if family.clip_qkv
            else getattr(config, "clip_qkv", None),
            own_kernel=family.own_kernel is not None and family.own_kernel(config),
        )
