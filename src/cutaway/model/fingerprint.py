"""What identifies a model: its configuration and its weights, wherever they lie.

1. The configuration, without where the model came from.
2. Of each tensor its name and shape, a sample of its values, and the exact sum of its bits read as
   whole numbers, so that a change of any single weight shows. Weights that a device map keeps
   elsewhere are read there.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import Tensor, nn

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_SAMPLE = 64
_CHUNK = 1 << 22


def fingerprint(hf: nn.Module, config: Any) -> str:
    """Sixteen hexadecimal digits."""
    said: dict[str, Any] = config.to_dict()
    for name in ("_name_or_path", "transformers_version"):  # say where from, not what
        said.pop(name, None)
    digest = hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode())
    for name, tensor in hf.state_dict().items():
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        values = (_kept_elsewhere(hf, name) if tensor.is_meta else tensor).detach().reshape(-1)
        step = max(1, values.numel() // _SAMPLE)
        digest.update(str(values[::step][:_SAMPLE].float().cpu().tolist()).encode())
        if type(values) is Tensor and not values.is_complex():
            digest.update(str(_sum_of_bits(values)).encode())
    return digest.hexdigest()[:16]


def _sum_of_bits(values: Tensor) -> int:
    """Whole numbers add up to the same on every machine, in whatever order."""
    whole = values.contiguous().view(_INTEGERS[values.element_size()])
    return sum(int(part.sum(dtype=torch.int64)) for part in whole.split(_CHUNK))


def _kept_elsewhere(hf: nn.Module, name: str) -> Tensor:
    """A weight that its module's hook brings only when it is needed."""
    owner, _, leaf = name.rpartition(".")
    hook: Any = getattr(hf.get_submodule(owner), "_hf_hook", None)
    for each in (hook, *getattr(hook, "hooks", ())):
        kept: Any = getattr(each, "weights_map", None)
        if kept is not None:
            return kept[leaf]
    return torch.zeros(0)
