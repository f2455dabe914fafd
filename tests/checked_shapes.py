"""Checks, while tests run, the shape that every jaxtyping annotation of the package names.

Only those annotations are checked: tests of bad input pass values of the wrong type on purpose, and
what the package says about them is the point.
"""

import inspect
import re
from collections.abc import Callable
from typing import Any, get_args

from beartype import beartype
from jaxtyping import AbstractArray

_SHAPED = re.compile(r"\b(Bool|Float|Int|Shaped)\[")


def _names_a_shape(hint: Any) -> bool:
    if isinstance(hint, str):
        return bool(_SHAPED.search(hint))
    parts = get_args(hint)
    return any(map(_names_a_shape, parts)) or (
        inspect.isclass(hint) and issubclass(hint, AbstractArray)
    )


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its shapes checked at every call, and nothing else."""
    hints = getattr(function, "__annotations__", None)
    if inspect.isclass(function) or not hints:
        return function
    shaped = {name: hint for name, hint in hints.items() if _names_a_shape(hint)}
    if not shaped:
        return function
    function.__annotations__ = shaped
    return beartype(function)
