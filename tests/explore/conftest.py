import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import cutaway
from cutaway.model import Model

# The served explorer stands beside these tests, the browser beside those of the views.
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "views")]

from serving import Served, served  # noqa: E402


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "browser: needs a Chromium on PATH (skipped without one)")


@pytest.fixture(scope="session")
def model() -> Model:
    torch.set_num_threads(1)
    return cutaway.open()


@pytest.fixture(scope="session")
def explorer(model: Model) -> Iterator[Served]:
    with served(model) as running:
        yield running
