import sys
from pathlib import Path

import pytest

# Sample results and the browser stand beside the tests that share them.
sys.path.insert(0, str(Path(__file__).parent))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "browser: needs a Chromium on PATH (skipped without one)")
