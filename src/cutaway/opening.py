"""The two doors: a model, and a behaviour to study in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from cutaway import gallery
from cutaway.behaviours.behaviour import Behaviour
from cutaway.behaviours.build import build
from cutaway.errors import InputError
from cutaway.model.load import open_model
from cutaway.model.model import Model


def open(
    model: str | Path | Any | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    attention: str | None = None,
    revision: str | None = None,
    tokenizer: Any = None,
    trust_remote_code: bool = False,
    verify: bool = True,
    **loading: Any,
) -> Model:
    """Open a decoder: a hub name, a directory, a loaded model, or the shipped one (None).

    The arguments are those of `cutaway.model.load.open_model`; a name of the gallery
    (`cutaway models`) opens the model that ships under it.
    """
    options: dict[str, Any] = dict(
        device=device, dtype=dtype, attention=attention, revision=revision, tokenizer=tokenizer,
        trust_remote_code=trust_remote_code, verify=verify, **loading,
    )  # fmt: skip
    name = gallery.DEFAULT if model is None else model
    if isinstance(name, str) and (model is None or name in gallery.models()):
        opened = open_model(gallery.path(name), **options)
        opened.name = name
        return opened
    return open_model(model, **options)


def behaviour(name: str, model: Model, *, n: int = 200, seed: int = 0, **options: Any) -> Behaviour:
    """A built-in behaviour, with `n` prompt pairs in the model's own tokens.

    `options` are those of `cutaway.behaviours.build.build`: `split`, `bos`, `padding` and the
    behaviour's variations.
    """
    if model.tokenizer is None:
        raise InputError(
            f"{model.name} was opened without a tokenizer, which prompts need; open it with "
            "tokenizer=…."
        )
    return build(name, model.tokenizer, n=n, seed=seed, **options)
