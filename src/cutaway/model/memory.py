"""Memory: how much is free, keeping it at hand, and running out of it said in a sentence."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from cutaway.errors import InputError
from cutaway.model.tokens import Tokens


@contextmanager
def explained(tokens: Tokens, model: Any) -> Generator[None]:
    """Turn an out-of-memory error into one that says what would fit."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        rows, width = tokens.ids.shape
        fits = rows_that_fit(width, model)
        raise InputError(
            f"Out of memory on {model.device} with {rows} prompts of {width} tokens; about "
            f"{min(fits, max(1, rows // 2))} at a time would fit, or open the model in a smaller "
            "dtype."
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on whichever device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "can't allocate memory" in text
    )


def free_memory(device: torch.device) -> int:
    """Bytes that could be taken on a device now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 4 * 2**30


def rows_that_fit(width: int, model: Any) -> int:
    """A careful estimate of how many prompts of `width` tokens one forward pass can take."""
    size = torch.empty((), dtype=model.dtype).element_size()
    each = width * (6 * model.d_model + 2 * 4 * model.d_model + 2 * model.d_vocab)
    each += 3 * model.n_heads * width * width
    return max(1, int(0.8 * free_memory(model.device) / (each * size)))


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_SMALL, _USUAL, _MOST = 2**22, 2**25, 2**30


@contextmanager
def kept_at_hand(device: torch.device) -> Generator[None]:
    """Memory that large tensors give back stays with the process until the block ends.

    On a CPU, glibc returns what large tensors took to the system and asks for it again, page by
    page, a millisecond for every few megabytes: a tenth of the time of passes over many prompts.
    Afterwards all that is free is returned. Elsewhere nothing happens.
    """
    with _thresholds(device, _MOST):
        yield


@contextmanager
def given_back(device: torch.device) -> Generator[None]:
    """Memory of large tensors goes back to the system one by one, until the block ends.

    For passes that keep some of their tensors: among those, what is freed would lie in pieces too
    small for the next layer, and the process would grow. Elsewhere than with glibc nothing happens.
    """
    with _thresholds(device, _SMALL):
        yield


@contextmanager
def _thresholds(device: torch.device, size: int) -> Generator[None]:
    """From which size on glibc asks the system for each tensor's memory by itself."""
    library = ctypes.CDLL(None) if sys.platform == "linux" and device.type == "cpu" else None
    if library is None or not hasattr(library, "mallopt"):
        yield
        return
    library.mallopt(_MMAP_THRESHOLD, size)
    library.mallopt(_TRIM_THRESHOLD, size)
    try:
        yield
    finally:  # as glibc's own adjustment leaves them
        library.mallopt(_MMAP_THRESHOLD, _USUAL)
        library.mallopt(_TRIM_THRESHOLD, 2 * _USUAL)
        give_back()


def give_back() -> None:
    """Return what is free to the system now. Elsewhere than with glibc nothing happens."""
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(ctypes.c_size_t(0))
