"""Peaks of memory, against what is known to have been taken."""

import mmap

import numpy as np
import pytest
import torch

from cutaway.ground_truth.memory import _MARK, peak  # pyright: ignore[reportPrivateUsage]

MB = 10**6

pytestmark = pytest.mark.skipif(
    not _MARK.exists(), reason="this system does not tell a process's memory"
)


def take(megabytes: int) -> None:
    """Pages straight from the system and back to it, whatever malloc keeps."""
    with mmap.mmap(-1, megabytes * MB) as pages:
        np.frombuffer(pages, np.uint8)[:] = 1


def took(megabytes: int) -> float:
    with peak() as found:
        take(megabytes)
    return found.bytes / MB


def test_a_peak_is_what_was_taken_at_once() -> None:
    took(10)
    assert took(80) == pytest.approx(80, abs=8)
    with peak() as found:
        for _ in range(4):
            take(40)
    assert found.bytes / MB == pytest.approx(40, abs=8)


def test_what_was_freed_before_is_not_for_free() -> None:
    """Small pieces stay with the process when they are freed, unless they are given back."""
    with peak() as first:
        pieces = [torch.ones(5000) for _ in range(2000)]
        del pieces
    with peak() as second:
        pieces = [torch.ones(5000) for _ in range(2000)]
        del pieces
    assert first.bytes / MB == pytest.approx(40, abs=8)
    assert second.bytes / MB == pytest.approx(40, abs=8)


def test_a_peak_is_above_what_is_held() -> None:
    held = torch.ones(20 * MB)
    assert took(30) == pytest.approx(30, abs=8)
    assert held.sum() == 20 * MB
