"""Zeroing a site without Cutaway: plain module hooks, weights, and transformers' own interfaces.

The second derivation of every zero ablation. Nothing here uses Cutaway's ports.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from cutaway.model import Model, Site
from cutaway.model.anatomy import Layer

UNREACHED = {"k", "q", "q_rot", "k_rot", "scores"}
_WANTED: dict[str, Any] = {}


def one_part(model: Model, site: Site) -> list[Site]:
    """One head or neuron of a site, where it has them."""
    if site.kind in ("q", "v", "z", "head_out", "q_rot", "pattern"):
        return [Site(site.kind, site.layer, 1 if model.n_kv_heads > 1 else 0)]
    return [Site(site.kind, site.layer, 5)] if site.kind == "mlp_post" else []


def _out(module: nn.Module, stack: ExitStack, change: Any) -> None:
    def hook(_m: nn.Module, _a: Any, out: Any) -> Any:
        if isinstance(out, torch.Tensor):
            return change(out)
        if isinstance(out, tuple):
            return (change(out[0]), *out[1:])
        out.logits = change(out.logits)
        return out

    stack.callback(module.register_forward_hook(hook).remove)


def _in(module: nn.Module, stack: ExitStack, change: Any) -> None:
    def hook(_m: nn.Module, args: Any, kwargs: Any) -> Any:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

    stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)


def _columns(weight: torch.Tensor, layer: nn.Module) -> torch.Tensor:
    """A view of a projection's weight with its inputs last."""
    return weight.T if type(layer).__name__ == "Conv1D" else weight


@contextmanager
def _cleared(module: nn.Module, columns: slice) -> Iterator[None]:
    weight: torch.Tensor = module.weight.data  # type: ignore[assignment]
    before = weight.clone()
    _columns(weight, module)[:, columns] = 0
    try:
        yield
    finally:
        weight.copy_(before)


@contextmanager
def zeroed(model: Model, site: Site) -> Iterator[bool]:
    """The model with a site at zero; False where there is no other way to do it."""
    with ExitStack() as stack:
        yield _zero(model, site, stack)


def _zero(model: Model, site: Site, stack: ExitStack) -> bool:
    zero = torch.zeros_like
    anatomy = model.anatomy
    if site.layer is None:
        place = {
            "embed": (anatomy.embed, _out), "pos_embed": (anatomy.pos_embed, _out),
            "resid_final": (anatomy.final_norm, _in), "final_norm": (anatomy.final_norm, _out),
            "logits": (model.hf, _out),
        }  # fmt: skip
        module, how = place[site.kind]
        assert module is not None
        how(module, stack, zero)
        return True
    layer = anatomy.layers[site.layer]
    if site.kind in ("q", "k", "v", "q_rot", "k_rot", "pattern", "scores"):
        return _zero_attention(model, layer, site, stack)
    return _zero_part(model, layer, site, stack)


def _zero_part(model: Model, layer: Layer, site: Site, stack: ExitStack) -> bool:
    zero = torch.zeros_like
    heads = model.n_heads
    attn_end = layer.attn_post_norm or layer.o_proj
    if site.kind in ("z", "head_out"):
        if site.index is None:
            _in(layer.o_proj, stack, zero)
        else:
            width = _columns(layer.o_proj.weight, layer.o_proj).shape[1] // heads  # type: ignore[arg-type]
            head = slice(site.index * width, (site.index + 1) * width)
            stack.enter_context(_cleared(layer.o_proj, head))
    elif site.kind == "mlp_post":
        assert layer.down is not None
        one = slice(None) if site.index is None else slice(site.index, site.index + 1)
        stack.enter_context(_cleared(layer.down, one))
    elif site.kind == "mlp_pre":
        assert layer.up is not None
        fused = layer.up is getattr(layer.mlp, "gate_up_proj", None)
        if fused:
            _out(
                layer.up,
                stack,
                lambda x: torch.cat([zero(x.chunk(2, -1)[0]), x.chunk(2, -1)[1]], -1),
            )
        else:
            _out(layer.up, stack, zero)
    elif site.kind == "resid_mid":
        entering: list[torch.Tensor] = []
        _in(layer.block, stack, lambda x: entering.append(x) or x)
        _out(attn_end, stack, lambda x: -entering[-1] / model.anatomy.multiplier)
        # A multiplier's rounding would leave a residue that the next norm blows up.
        _in(layer.reads_mid, stack, lambda x: x.copy_(torch.where(x.abs() < 1e-5, 0.0, x)))
    elif site.kind == "router":
        _out(layer.mlp.experts, stack, zero)  # type: ignore[arg-type]
    else:
        reads = layer.up if layer.mlp_in_layer and layer.up is not None else layer.mlp
        place = {
            "resid_pre": (layer.block, _in), "resid_post": (layer.block, _out),
            "attn_in": (layer.attn, _in), "attn_out": (attn_end, _out),
            "mlp_in": (reads, _in),
            "mlp_out": (layer.mlp_post_norm or layer.down or layer.mlp, _out),
        }  # fmt: skip
        module, how = place[site.kind]
        how(module, stack, zero)
    return True


def _zero_attention(model: Model, layer: Layer, site: Site, stack: ExitStack) -> bool:
    """Inside attention: by transformers' attention interface, or the family's own methods."""
    if site.kind == "pattern":
        return _zero_part(model, layer, Site("z", site.layer, site.index), stack)
    if site.kind == "scores":
        return False
    if _normed(layer, site.kind):
        return False
    family = sys.modules[type(layer.attn).__module__]
    if not hasattr(family, "ALL_ATTENTION_FUNCTIONS"):
        return _zero_legacy(model, layer, site, stack)

    def attention(module: Any, query: Any, key: Any, value: Any, mask: Any, **kwargs: Any) -> Any:
        if module is layer.attn:
            chosen = slice(None) if site.index is None else site.index
            tensors = {"q": query, "q_rot": query, "k": key, "k_rot": key, "v": value}
            target = tensors[site.kind] = tensors[site.kind].clone()
            target[:, chosen] = 0
            query, key, value = (
                (target if site.kind[0] == name else given)
                for name, given in (("q", query), ("k", key), ("v", value))
            )
        return family.eager_attention_forward(module, query, key, value, mask, **kwargs)

    AttentionInterface.register("by_hand", attention)
    AttentionMaskInterface.register("by_hand", ALL_MASK_ATTENTION_FUNCTIONS["eager"])
    configs = {id(m.config): m.config for m in model.hf.modules() if hasattr(m, "config")}
    for config in configs.values():
        before = config._attn_implementation
        stack.callback(setattr, config, "_attn_implementation", before)
        config._attn_implementation = "by_hand"
    return True


def _normed(layer: Layer, kind: str) -> bool:
    """Whether a norm with a bias, or latent attention, follows the projection."""
    if kind == "k" and layer.k is layer.v and hasattr(layer.attn, "kv_b_proj"):
        return True
    norms = [module for name, module in layer.attn.named_children() if "norm" in name]
    biased = any(getattr(norm, "bias", None) is not None for norm in norms)
    return kind in ("q", "k") and (biased or layer.norm_across_heads)


def _zero_legacy(model: Model, layer: Layer, site: Site, stack: ExitStack) -> bool:
    """Families with attention code of their own."""
    which = "qkv".index(site.kind[0])
    head = slice(None) if site.index is None else slice(site.index, site.index + 1)
    attn: Any = layer.attn
    if layer.q is not layer.k:
        if site.kind.endswith("_rot"):
            return False
        module = (layer.q, layer.k, layer.v)[which]
        width = model.d_model // model.n_heads

        def clear(x: torch.Tensor) -> torch.Tensor:
            x = x.clone().unflatten(-1, (-1, width))
            x[..., head, :] = 0
            return x.flatten(-2)

        _out(module, stack, clear)
    elif model.family == "mpt":
        width = model.d_model // model.n_heads
        rows = (
            slice(None)
            if site.index is None
            else slice(site.index * width, (site.index + 1) * width)
        )

        def third(x: torch.Tensor) -> torch.Tensor:
            parts = list(x.clone().chunk(3, dim=-1))
            parts[which][..., rows] = 0
            return torch.cat(parts, dim=-1)

        _out(attn.Wqkv, stack, third)
    else:
        name, dim = ("_reshape", 1) if model.family == "bloom" else ("_split_heads", 2)
        original, calls = getattr(attn, name), [0]

        def split(*args: Any, **kwargs: Any) -> Any:
            if model.family == "codegen":
                calls[0] += 1
                x = original(*args, **kwargs).clone()
                if (calls[0] - 1) % 3 == (0, 1, 2)[which]:
                    x[:, :, head] = 0
                return x
            parts = [part.contiguous().clone() for part in original(*args)]
            repeat = parts[which].shape[dim] // (model.n_kv_heads if which else model.n_heads)
            chosen = (
                head
                if site.index is None
                else slice(site.index * repeat, (site.index + 1) * repeat)
            )
            parts[which].narrow(dim, 0, parts[which].shape[dim])[
                (slice(None),) * dim + (chosen,)
            ] = 0
            return tuple(parts)

        setattr(attn, name, split)
        stack.callback(delattr, attn, name)
    return True
