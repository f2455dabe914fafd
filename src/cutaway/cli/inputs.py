"""Opening the model that was named, and making the behaviour."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.model import Model


def opened(
    model: str | None,
    device: str | None = None,
    dtype: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Model:
    """Open the model that was named, without the chatter of transformers and the hub's client."""
    import logging

    from rich.console import Console

    with Console(stderr=True).status(f"Opening {model or 'the shipped model'}…"):
        import transformers

        import cutaway

        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        # each try to reach the hub would be told; the last one's outcome is our sentence
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        return cutaway.open(
            model, device=device, dtype=dtype, revision=revision,
            trust_remote_code=trust_remote_code,
        )  # fmt: skip


def chosen_behaviour(
    name: str | None,
    prompts: str | None,
    model: Model,
    *,
    n: int | None,
    usual: int,
    seed: int,
    vary: list[str] | None,
) -> Behaviour:
    """The behaviour that was named (`n` pairs, or the usual number), or that of a file (its first
    `n` rows, or all).
    """
    from pathlib import Path

    import cutaway
    from cutaway.behaviours import Behaviour
    from cutaway.errors import BehaviourError, InputError

    if prompts is None:
        assert name is not None
        return cutaway.behaviour(name, model, n=n or usual, seed=seed, **variations(vary))
    if vary:
        raise BehaviourError("--vary is for built-in behaviours; --prompts brings its own rows.")
    if model.tokenizer is None:
        raise InputError(f"{model.name} has no tokenizer beside it, which prompts need.")
    path = Path(prompts)
    read = Behaviour.from_json if path.suffix.lower() == ".json" else Behaviour.from_csv
    behaviour = read(path, model.tokenizer, name=name)
    return behaviour if n is None else behaviour.rows(slice(n))


def variations(vary: list[str] | None) -> dict[str, str]:
    """`--vary KEY=VALUE` as keywords."""
    from cutaway.errors import BehaviourError

    found: dict[str, str] = {}
    for item in vary or []:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise BehaviourError(f"--vary takes KEY=VALUE, for example order=ABBA; found {item!r}.")
        found[key] = value
    return found


def check_named(name: str | None, prompts: str | None) -> None:
    """Refuse a command without a behaviour, or with an unknown one, before a model is opened."""
    import difflib
    from pathlib import Path

    from cutaway.behaviours.builtin import GENERATORS
    from cutaway.errors import BehaviourError

    if prompts is not None:
        if not Path(prompts).is_file():
            raise BehaviourError(f"There is no file {prompts!r}; give a CSV or JSON file of pairs.")
        return
    known = ", ".join(GENERATORS)
    if name is None:
        raise BehaviourError(
            f"Name a behaviour ({known}), or give your own pairs with --prompts FILE."
        )
    if name not in GENERATORS:
        near = difflib.get_close_matches(name, GENERATORS, n=1, cutoff=0.3)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise BehaviourError(
            f"There is no built-in behaviour {name!r}; {meant}There are: {known}. "
            "Your own pairs go in with --prompts FILE."
        )


def study_name(name: str | None, prompts: str | None, model: str | None) -> str:
    """BEHAVIOUR-MODEL as one word that can name a file or a directory."""
    import re
    from pathlib import Path

    from cutaway import gallery

    source = model or gallery.DEFAULT
    short = Path(source).resolve().name if Path(source).is_dir() else source
    named = f"{name or Path(prompts or '').stem}-{short}"
    return re.sub(r"[^\w.-]+", "-", named).strip(".-") or "study"
