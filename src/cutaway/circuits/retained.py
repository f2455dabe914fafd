"""What a pass with gradients keeps for its backward pass, measured on the pass itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def retained(run: Callable[[], Tensor], apart: Iterable[Tensor]) -> int:
    """The bytes that autograd keeps of `run`, but for the tensors that are there anyway.

    A storage counts once, however many operations keep it.
    """
    known = {x.untyped_storage().data_ptr() for x in apart}
    found: dict[int, int] = {}

    def kept(x: Tensor) -> Tensor:
        found[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(kept, lambda x: x):
        result = run()
    total = sum(size for place, size in found.items() if place not in known)
    del result  # until here it has held what is counted, so that no storage was used twice
    return total
