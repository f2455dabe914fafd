"""`cutaway mechanism`: a mechanism from the literature, looked for in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cutaway.cli import options
from cutaway.cli.files import check_picture, check_writable
from cutaway.cli.inputs import check_named, chosen_behaviour, opened, variations

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.mechanisms import Induction, Memorised, Recall, Reuse
    from cutaway.model import Model

Name = Annotated[
    str,
    typer.Argument(
        metavar="MECHANISM", help="induction, recall, memorised or reuse.", show_default=False
    ),
]
Behaviours = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="BEHAVIOUR…",
        help="Built-in behaviours: one for recall and memorised, two or more for reuse, one or "
        "none (random tokens said twice) for induction.",
        show_default=False,
    ),
]
Prompts = Annotated[
    list[str] | None,
    typer.Option(
        "--prompts",
        metavar="FILE",
        help="A behaviour of your own, a CSV or JSON file of pairs; may be given several times.",
    ),
]
Text = Annotated[
    list[str] | None,
    typer.Option(
        "--text",
        metavar="TEXT",
        help="memorised: a string to ask about; may be given several times.",
    ),
]
Other = Annotated[
    str | None,
    typer.Option(
        "--other",
        metavar="FILE",
        help="memorised: ordinary texts that should be spared, one a line. Left out: prompts of "
        "the other built-in behaviours.",
    ),
]
Suffix = Annotated[
    int | None,
    typer.Option(
        "--suffix", min=1, metavar="N", help="memorised: how many last tokens are to be known (1)."
    ),
]
Neurons = Annotated[
    int | None,
    typer.Option("--neurons", min=1, metavar="N", help="memorised: how many to take out (100)."),
]
Argument = Annotated[
    str | None,
    typer.Option(
        "--argument", metavar="LABEL", help="recall: the argument's label, where there are several."
    ),
]
Strength = Annotated[
    float | None,
    typer.Option(
        "--strength", metavar="X", help="recall: what the MLP's output is multiplied by (1)."
    ),
]
Count = Annotated[
    int | None,
    typer.Option(
        "--n", "--examples", min=1, metavar="N",
        help="How many pairs. Left out: 60 of a built-in behaviour, and every row of a file.",
    ),
]  # fmt: skip
Out = Annotated[
    str | None, typer.Option("--out", "-o", metavar="FILE.nc", help="Save every number.")
]
Plot = Annotated[str | None, typer.Option("--plot", metavar="FILE.svg", help="Draw the result.")]

_MANY: Mapping[str, tuple[int, float]] = {
    "induction": (0, 1), "recall": (1, 1), "memorised": (0, 1), "reuse": (2, float("inf")),
}  # fmt: skip
"""At least and at most how many behaviours each mechanism takes."""


def mechanism(
    name: Name,
    behaviours: Behaviours = None,
    model: options.ModelName = None,
    prompts: Prompts = None,
    text: Text = None,
    other: Other = None,
    suffix: Suffix = None,
    neurons: Neurons = None,
    argument: Argument = None,
    strength: Strength = None,
    n: Count = None,
    seed: options.Seed = 0,
    vary: options.Vary = None,
    out: Out = None,
    plot: Plot = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    revision: options.Revision = None,
    trust_remote_code: options.RemoteCode = False,
) -> None:
    """Look for a mechanism that the literature describes, with its controls.

    induction: heads that match prefixes and matter, and the previous-token heads that feed them.

    recall: argument formation, function application and saturation, and the function as a vector.

    memorised: how much prefix a string needs, what carries it, and whether the rest is spared.

    reuse: heads that serve several behaviours, and whether all of them need those heads.
    """
    given = {"suffix": suffix, "neurons": neurons, "argument": argument, "strength": strength}
    _check(name, behaviours or [], prompts or [], {"text": text, "other": other} | given, vary)
    _check_files(out, plot)
    loaded = opened(model, device, dtype, revision, trust_remote_code)
    rows = [
        chosen_behaviour(one, file, loaded, n=n, usual=60, seed=seed, vary=vary)
        for one, file in [*((one, None) for one in behaviours or []),
                          *((None, file) for file in prompts or [])]
    ]  # fmt: skip
    wanted = {key: value for key, value in given.items() if value is not None}
    found = _FOUND[name](loaded, rows, text or [], other, seed, wanted)
    print(found)
    if plot is not None:
        print(f"Drawn: {found.plot().save(plot)}")
    if out is not None:
        print(f"Saved: {found.save(out)}")


# ── the work ─────────────────────────────────────────────────────────────────────────────────


def _induction(
    model: Model, rows: list[Behaviour], texts: list[str], other: str | None, seed: int,
    wanted: dict[str, Any],
) -> Induction:  # fmt: skip
    from cutaway.mechanisms import induction

    return induction(model, rows[0] if rows else None, seed=seed)


def _recall(
    model: Model, rows: list[Behaviour], texts: list[str], other: str | None, seed: int,
    wanted: dict[str, Any],
) -> Recall:  # fmt: skip
    from cutaway.mechanisms import recall

    return recall(model, rows[0], seed=seed, **wanted)


def _memorised(
    model: Model, rows: list[Behaviour], texts: list[str], other: str | None, seed: int,
    wanted: dict[str, Any],
) -> Memorised:  # fmt: skip
    from pathlib import Path

    from cutaway.cli.bars import Bars
    from cutaway.mechanisms import memorised

    if other is None:
        rest = _others(model, rows)
    else:
        lines = Path(other).read_text("utf-8").splitlines()
        rest = [line for line in lines if line.strip()]
    with Bars() as bars:
        bars.started("memorised", "one part at a time")
        return memorised(
            model, rows[0] if rows else texts, other=rest, seed=seed, progress=bars.advanced,
            **wanted,
        )  # fmt: skip


def _reuse(
    model: Model, rows: list[Behaviour], texts: list[str], other: str | None, seed: int,
    wanted: dict[str, Any],
) -> Reuse:  # fmt: skip
    from cutaway.cli.bars import Bars
    from cutaway.mechanisms import reuse

    with Bars() as bars:
        bars.started("reuse", "behaviour by behaviour")
        return reuse(model, rows, seed=seed, progress=bars.advanced)


_FOUND: Mapping[str, Callable[..., Induction | Recall | Memorised | Reuse]] = {
    "induction": _induction, "recall": _recall, "memorised": _memorised, "reuse": _reuse,
}  # fmt: skip


def _others(model: Model, rows: list[Behaviour]) -> list[str]:
    """Prompts of the built-in behaviours that are not asked about, as far as the model has them."""
    import contextlib

    import cutaway
    from cutaway.behaviours.builtin import GENERATORS
    from cutaway.errors import CutawayError

    found: list[str] = []
    for name in GENERATORS:
        if name not in {each.name for each in rows}:
            # a tokenizer may not have a behaviour's words as single tokens
            with contextlib.suppress(CutawayError):
                found += cutaway.behaviour(name, model, n=12).clean_texts
    return found


# ── refusals before the model is opened ──────────────────────────────────────────────────────


def _check(
    name: str, behaviours: list[str], prompts: list[str], given: Mapping[str, object],
    vary: list[str] | None,
) -> None:  # fmt: skip
    from pathlib import Path

    from cutaway.errors import InputError

    if name not in _FOUND:
        raise InputError(f"There is no mechanism {name!r}; choose one of {', '.join(_FOUND)}.")
    serves = {"argument": "recall", "strength": "recall"}
    for option, value in given.items():
        if value is not None and serves.get(option, "memorised") != name:
            raise InputError(
                f"--{option} is for {serves.get(option, 'memorised')}; leave it out of {name}."
            )
    many = len(behaviours) + len(prompts)
    least, most = _MANY[name]
    if not least <= many <= most:
        amount = "two behaviours or more" if most > 1 else "one behaviour" if least else (
            "at most one behaviour"
        )  # fmt: skip
        raise InputError(f"{name} takes {amount}; found {many}.")
    if name == "memorised" and many + bool(given["text"]) != 1:
        raise InputError("memorised takes either one behaviour or strings given with --text.")
    for one in behaviours:
        check_named(one, None)
    for file in prompts:
        check_named(None, file)
    other = given["other"]
    if isinstance(other, str) and not Path(other).is_file():
        raise InputError(f"There is no file {other!r}; --other takes texts, one a line.")
    variations(vary)


def _check_files(out: str | None, plot: str | None) -> None:
    from pathlib import Path

    check_picture(plot)
    if out is not None:
        check_writable(Path(out), "--out")
