"""Whether a model's weights fit into memory, known from their headers before any is read."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from cutaway.errors import ModelError
from cutaway.model.memory import free_memory

_BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "BF16": 2, "F16": 2, "I16": 2,
    "U16": 2,
}  # fmt: skip


def refuse_too_large(path: Path, device: torch.device, dtype: torch.dtype | None) -> None:
    """Refuse a directory whose weights, in `dtype` or their own type, are more than is free.

    Raises `ModelError`. A file that cannot be read is left for loading to name.
    """
    size = weights_size(path, dtype)
    free = free_memory(device)
    if size > free:
        raise ModelError(
            f"{str(path)!r} does not fit: its weights take {size / 2**30:.1f} GiB and "
            f"{free / 2**30:.1f} GiB are free on {device}; open a smaller model, a smaller dtype, "
            "or use a larger machine."
        )


def weights_size(path: Path, dtype: torch.dtype | None) -> int:
    """The bytes of the weights that loading a directory reads."""
    wanted = None if dtype is None else torch.empty((), dtype=dtype).element_size()
    total = 0
    for file in _weight_files(path):
        try:
            with safe_open(file, framework="pt") as weights:
                for name in weights.keys():  # noqa: SIM118 (it is no mapping)
                    part = weights.get_slice(name)
                    own = _BYTES.get(str(part.get_dtype()), 1)
                    # Quantised weights keep their type; only wider ones are made what is asked for.
                    each = own if wanted is None or own == 1 else wanted
                    total += math.prod(part.get_shape()) * each
        except (SafetensorError, OSError):
            return 0
    return total


def _weight_files(path: Path) -> set[Path]:
    """The files that are loaded: the one, or those of the index; others may lie beside them."""
    whole, index = path / "model.safetensors", path / "model.safetensors.index.json"
    if whole.exists():
        return {whole}
    try:
        listed = json.loads(index.read_text("utf-8"))["weight_map"]
        return {path / name for name in listed.values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()
