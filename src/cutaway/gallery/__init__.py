"""The small trained models that ship with the package, and how they were made."""

from __future__ import annotations

from pathlib import Path

from cutaway.errors import ModelError

__all__ = ["DEFAULT", "models", "path"]

DEFAULT = "septet"
"""The model that Cutaway opens when none is named."""

_SHELF = Path(__file__).parent / "models"


def models() -> list[str]:
    """The names of the models that ship."""
    return sorted(at.parent.name for at in _SHELF.glob("*/config.json"))


def path(name: str = DEFAULT) -> Path:
    """A shipped model's directory, which transformers can load."""
    if name not in models():
        raise ModelError(
            f"No model named {name!r} ships with Cutaway; there is {', '.join(models()) or 'none'}."
        )
    return _SHELF / name
