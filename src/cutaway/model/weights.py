"""Weights by head: the rows of each projection that are one head's, and the columns of W_O.

A projection may be fused with others and packed in any order. Which rows belong to which head is
read off its port: the same view that splits the projection's output splits the numbers 0, 1, 2, …
of its rows. So no family needs code here, and what is read is what runs.

`norm_before` finds the norm between the stream and a part by trying the layer's own norms on a
probe: the one that gives what the part was seen to read is it.
"""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cutaway.errors import ModelError
from cutaway.model.model import Model
from cutaway.model.norm import FrozenNorm, frozen
from cutaway.model.ports import Heads, Packed, Passing, Port, per_head, plain_weight
from cutaway.model.run import Run
from cutaway.model.sites import Site

_PROBE = 6


def own_rows(port: Port, width: int) -> Int[Tensor, "*own"]:
    """Which entries of a projection's output are each head's: (head, d_head), or (neuron,)."""
    codec = copy.copy(port.codec)
    if isinstance(codec, (Heads, Packed)):
        codec.clip = None
    numbers = torch.arange(width)[None, None]
    return codec.view(numbers, Passing(batch=1, width=1))[0, 0]


def picked(weight: Float[Tensor, "d_out d_in"], own: Int[Tensor, "*own"]) -> Tensor:
    """The rows of a weight, in the shape of their numbers: a view where they lie together."""
    flat = own.flatten()
    first, many = int(flat[0]), len(flat)
    if torch.equal(flat, torch.arange(first, first + many)):
        return weight[first : first + many].unflatten(0, tuple(own.shape))
    return weight[own.to(weight.device)]


def projection(model: Model, site: Site) -> Float[Tensor, "*own d_in"]:
    """The weight rows that make a site: (head, d_head, d_in) for `q`, `k` and `v`, (neuron, d_in)
    for `mlp_pre`.

    Raises `ModelError` where the projection is not a plain linear layer.
    """
    port = next(port for port in model.ports if port.site == model.check_site(site))
    weight = _plain(model, port.module, site)
    return picked(weight, own_rows(port, weight.shape[0]))


def output(model: Model, layer: int) -> Float[Tensor, "head d_head d_model"]:
    """Each head's rows of W_O: z · rows is what the head writes, before any post-norm.

    Quantised and adapted projections are asked for it, a unit of z at a time.
    """
    part, scale = model.anatomy.layers[layer], model.anatomy.multiplier
    units = torch.eye(model.d_head, dtype=model.dtype, device=model.device)
    with torch.no_grad():
        rows = per_head(part.o_proj, units[:, None, None].expand(-1, 1, model.n_heads, -1))
    return rows[:, 0].transpose(0, 1).detach() * scale


def mlp_output(model: Model, layer: int) -> Float[Tensor, "neuron d_model"]:
    """What each neuron's unit of `mlp_post` writes, before any post-norm."""
    part, scale = model.anatomy.layers[layer], model.anatomy.multiplier
    if part.down is None:
        raise ModelError(
            f"Layer {layer} of {model.name} is a mixture of experts, which has no single output "
            "matrix; choose a layer with a plain MLP."
        )
    return _plain(model, part.down, Site("mlp_post", layer)).mT * scale


def norm_before(model: Model, run: Run, stream: Site, seen: Site) -> nn.Module | None:
    """The norm of a layer that turns one site of a run into the other; None where they are equal.

    Raises `ModelError` for a layer that has no norm among its own parts.
    """
    x, y = run[stream], run[seen]
    if torch.equal(x, y):
        return None
    part = model.anatomy.layers[seen.layer or 0]
    best: tuple[float, nn.Module] | None = None
    for module in part.block.children():
        if module in (part.attn, part.mlp) or any(True for _ in module.children()):
            continue
        if "norm" not in type(module).__name__.lower():
            continue
        with torch.no_grad():
            error = float((module.forward(x) - y).float().norm() / y.float().norm())
        if best is None or error < best[0]:
            best = error, module
    if best is None or not best[0] < (1e-3 if model.dtype == torch.float32 else 5e-2):
        raise ModelError(
            f"No norm of layer {seen.layer} of {model.name} gives what {str(seen)!r} holds, so "
            "its weights cannot be read through a norm."
        )
    return best[1]


def frozen_norm_before(model: Model, seen: Site) -> FrozenNorm | None:
    """The norm before `attn_in` or `mlp_in`, as a linear map; None where there is none."""
    layer = seen.layer or 0
    middle = seen.kind == "mlp_in" and not model.parallel
    stream = Site("resid_mid" if middle else "resid_pre", layer)
    tokens = torch.arange(_PROBE).remainder(model.d_vocab)[None]
    run = model.run(tokens, keep=[stream, seen])
    norm = norm_before(model, run, stream, seen)
    return None if norm is None else frozen(norm, model.d_model, run[stream].device, model.dtype)


def _plain(model: Model, module: nn.Module, site: Site) -> Tensor:
    weight = plain_weight(module)
    if weight is None:
        raise ModelError(
            f"The weights of {str(site)!r} in {model.name} cannot be read: "
            f"{type(module).__name__} is not a plain linear layer; load the model unquantised and "
            "with its adapters merged."
        )
    return weight.detach()
