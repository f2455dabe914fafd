"""Tiny random models and random pairs for reading them."""

from collections.abc import Callable
from functools import cache

import pytest
import torch

from cutaway.behaviours import Behaviour
from cutaway.model import Model, open_model
from cutaway.model.tiny import tiny

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def opened() -> Callable[[str], Model]:
    """Opens a family once per test file: transformers leaves hooks on a model that was asked for
    its hidden states, and other files check that none are there."""
    return cache(lambda family: open_model(tiny(family)))


@pytest.fixture
def pairs() -> Behaviour:
    """Five pairs of different lengths that differ from one labelled token on."""
    generator = torch.Generator().manual_seed(1)
    lengths = (7, 9, 8, 9, 6)
    clean = [torch.randint(3, 96, (n,), generator=generator).tolist() for n in lengths]
    corrupt = [[*row[:3], (row[3] + 7) % 90 + 3, *row[4:]] for row in clean]
    return Behaviour.from_tokens(
        clean,
        corrupt,
        answers=[5, (6, 7), 8, 9, 10],
        wrong_answers=[11, 12, (13, 14), 15, 16],
        labels={"there": [3] * 5, "end": [n - 1 for n in lengths]},
    )
