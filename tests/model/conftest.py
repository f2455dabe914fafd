from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch

from cutaway.model import Model, open_model
from cutaway.model.tiny import tiny
from tests.model.variants import VARIANTS


@cache
def _opened(name: str) -> Model:
    family, overrides = VARIANTS[name]
    return open_model(tiny(family, **overrides))


@pytest.fixture
def opened() -> Callable[[str], Model]:
    return _opened


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(3, 96, (3, 9), generator=torch.Generator().manual_seed(3))


@pytest.fixture(params=list(VARIANTS))
def model(request: Any) -> Model:
    return _opened(request.param)
