"""The inside of attention: queries and keys after rotary, scores and pattern.

No module passes these, and fused kernels never make them. When one is wanted, the model runs with
its own eager attention for that call, and `Interior` watches the tensor functions that this
attention calls, in the layer that is running:

1. the first product of (batch, head, query, d) with (batch, head, d, key) is q · k: its operands
   are `q_rot` and `k_rot`, its result becomes `scores`;
2. a scaling by one number directly after it belongs to the scores; the next use of any other kind
   (mask, soft cap, bias, sink, softmax) reads the tapped scores;
3. the softmax's result, less the column of a sink, is `pattern`.

So each family's own arithmetic is what runs: nothing is re-implemented, and soft caps, sinks,
ALiBi and sliding windows need no code here. There are two exceptions. Bloom's fused `baddbmm` adds
its ALiBi bias inside the product, so its scores are computed beside it and changes are added on.
And where a family's eager attention is not the function that its fused kernel computes
(`Family.own_kernel`), the kernel's call itself is opened into its definition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from cutaway.errors import ModelError
from cutaway.model.ports import Passing
from cutaway.model.sites import Site

_PRODUCTS = frozenset({
    torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.bmm, torch.Tensor.bmm,
})  # fmt: skip
_BIASED_PRODUCTS = frozenset({torch.baddbmm, torch.Tensor.baddbmm})
_SCALINGS = frozenset({
    torch.mul, torch.div, torch.true_divide, torch.Tensor.mul, torch.Tensor.mul_,
    torch.Tensor.div, torch.Tensor.div_, torch.Tensor.__mul__, torch.Tensor.__rmul__,
    torch.Tensor.__imul__, torch.Tensor.__truediv__, torch.Tensor.__itruediv__,
})  # fmt: skip
_SAME = frozenset({
    torch.Tensor.view, torch.Tensor.reshape, torch.Tensor.float, torch.Tensor.to,
    torch.Tensor.type, torch.Tensor.contiguous, torch.reshape,
})  # fmt: skip
_SOFTMAXES = frozenset({torch.nn.functional.softmax, torch.softmax, torch.Tensor.softmax})

Pass = Callable[[Site, Tensor], Tensor]
"""Sends a site's tensor through the taps."""


class Interior(TorchFunctionMode):
    """Taps the inside of whichever attention `enter` last named."""

    def __init__(self, now: Passing, heads: int, kv_heads: int, tap: Pass) -> None:
        super().__init__()
        self.now, self.heads, self.kv_heads, self.tap = now, heads, kv_heads, tap
        self.layer: int | None = None
        self.paused = False
        self.product: Tensor | None = None
        self.scored = self.softened = False

    def enter(self, layer: int) -> None:
        """The attention of `layer` begins."""
        self.layer, self.product = layer, None
        self.scored = self.softened = False

    def leave(self) -> None:
        """The attention that began has ended."""
        layer, self.layer, self.product = self.layer, None, None
        if not self.softened:
            raise ModelError(
                f"The attention of layer {layer} was not materialised: no softmax over a product "
                "of queries and keys was seen, so scores and pattern cannot be read."
            )

    def unwatched(self, step: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """The same step, done without watching what it calls."""

        def quietly(x: Tensor) -> Tensor:
            before, self.paused = self.paused, True
            try:
                return step(x)
            finally:
                self.paused = before

        return quietly

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if self.layer is None or self.paused or self.softened:
            return func(*args, **kwargs)
        if func is torch.nn.functional.scaled_dot_product_attention:
            return self._fused(*args, **kwargs)
        if not self.scored:
            return self._before_scores(func, args, kwargs)
        if func in _SOFTMAXES:
            return self._pattern(func(*args, **kwargs))
        return func(*args, **kwargs)

    def _before_scores(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if self.product is None:
            if func in _PRODUCTS and self._is_attention(args[0], args[1]):
                q, k = self._operands(args[0], args[1])
                self.product = func(q, k, *args[2:], **kwargs)
                return self.product
            if func in _BIASED_PRODUCTS:
                return self._biased(func, args, kwargs)
            return func(*args, **kwargs)
        if not _mentions(self.product, args, kwargs) or _is_question(func):
            return func(*args, **kwargs)
        if func in _SAME:
            self.product = func(*args, **kwargs)
            return self.product
        if func in _SCALINGS and args[0] is self.product and _is_number(args[1]):
            return self._scores(func(*args, **kwargs))
        before = self.product
        tapped = self._scores(before)
        args = tuple(_swap(arg, before, tapped) for arg in args)
        kwargs = {name: _swap(arg, before, tapped) for name, arg in kwargs.items()}
        result = func(*args, **kwargs)
        return self._pattern(result) if func in _SOFTMAXES else result

    def _is_attention(self, left: Any, right: Any) -> bool:
        if not (isinstance(left, Tensor) and isinstance(right, Tensor)) or left.ndim < 3:
            return False
        rows = left.shape[:-2].numel()
        return left.ndim == right.ndim and rows == self.now.batch * self.heads

    def _through(self, kind: str, shaped: Tensor) -> Tensor | None:
        """The tapped value, or None when it was not changed."""
        assert self.layer is not None
        site = Site(kind, self.layer)
        new = self.unwatched(lambda x: self.tap(site, x))(shaped)
        return None if new is shaped else new

    def _operands(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        batch = self.now.batch
        q = left.reshape(batch, self.heads, *left.shape[-2:]).transpose(1, 2)
        new_q = self._through("q_rot", q)
        if new_q is not None:
            left = new_q.transpose(1, 2).reshape(left.shape)
        keys = right.transpose(-1, -2)
        keys = keys.reshape(batch, -1, *keys.shape[-2:])
        group = keys.shape[1] // self.kv_heads
        k = keys[:, ::group].transpose(1, 2)
        new_k = self._through("k_rot", k)
        if new_k is not None:
            spread = new_k.transpose(1, 2).repeat_interleave(group, dim=1)
            right = spread.transpose(-1, -2).reshape(right.shape)
        return left, right

    def _square(self, passed: Tensor) -> Tensor:
        return passed.reshape(self.now.batch, self.heads, *passed.shape[-2:])

    def _scores(self, passed: Tensor) -> Tensor:
        self.scored = True
        self.product = None
        new = self._through("scores", self._square(passed))
        return passed if new is None else new.reshape(passed.shape)

    def _biased(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        named = dict(zip(("input", "batch1", "batch2"), args, strict=False)) | kwargs
        left, right = self._operands(named["batch1"], named["batch2"])
        named["batch1"], named["batch2"] = left, right
        result: Tensor = func(named.pop("input"), **named)
        product = torch.bmm(left, right) * named.get("alpha", 1)
        shaped = self._square(product)
        new = self._through("scores", shaped)
        self.scored = True
        return result if new is None else result + (new - shaped).reshape(result.shape)

    def _fused(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
        dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:  # fmt: skip
        query, turned = self._operands(query, key.transpose(-1, -2))
        group = query.shape[1] // key.shape[1]
        turned, value = (x.repeat_interleave(group, dim=1) for x in (turned, value))
        factor = query.shape[-1] ** -0.5 if scale is None else scale
        scores = self._scores(query @ turned * factor)
        if is_causal:
            ahead = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
            scores = scores.masked_fill(ahead, -torch.inf)
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -torch.inf)
        elif attn_mask is not None:
            scores = scores + attn_mask
        return self._pattern(scores.softmax(dim=-1)) @ value

    def _pattern(self, passed: Tensor) -> Tensor:
        self.softened = True
        square = self._square(passed)
        keys = self.now.past + self.now.width
        shaped = square[..., :keys]
        new = self._through("pattern", shaped)
        if new is None:
            return passed
        sinks = square[..., keys:]
        whole = torch.cat([new, sinks], dim=-1) if sinks.shape[-1] else new
        return whole.reshape(passed.shape)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) or (isinstance(value, Tensor) and value.ndim == 0)


def _is_question(func: Callable[..., Any]) -> bool:
    """Whether a call only asks about a tensor (its size, dtype, device)."""
    return getattr(func, "__name__", "") in {"__get__", "size", "dim", "numel", "stride"}


def _mentions(tensor: Tensor, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    for value in (*args, *kwargs.values()):
        if value is tensor:
            return True
        if isinstance(value, (tuple, list)) and any(item is tensor for item in value):
            return True
    return False


def _swap(value: Any, old: Tensor, new: Tensor) -> Any:
    if value is old:
        return new
    if isinstance(value, (tuple, list)):
        return type(value)(new if item is old else item for item in value)
    return value
