import os
import sys
from pathlib import Path

import jaxtyping
import pytest
from hypothesis import settings

# The same drawn examples every time, and none of them timed: a run says the same twice.
settings.register_profile("house", derandomize=True, deadline=None)
settings.load_profile("house")

# No test asks the hub; said before transformers is imported, which reads it once.
os.environ["HF_HUB_OFFLINE"] = "1"

HERE = Path(__file__).parent
SOURCE = HERE.parent / "src"

# The modules that name shapes have them checked; this stands before anything of them is imported.
sys.path.insert(0, str(HERE))
jaxtyping.install_import_hook(
    [
        ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        for path in SOURCE.rglob("*.py")
        if "from jaxtyping import" in path.read_text(encoding="utf-8")
    ],
    "checked_shapes.checked",
)


@pytest.fixture
def unchecked_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that pass a wrong shape to see what the package itself says of it."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
