"""`cutaway heads`: which heads do what is known of heads, and whether it matters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cutaway.cli import options
from cutaway.cli.files import check_picture, check_writable
from cutaway.cli.inputs import check_named, chosen_behaviour, opened, variations

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from cutaway.behaviours import Behaviour
    from cutaway.cli.bars import Bars
    from cutaway.model import Model
    from cutaway.observe import AttentionBetween, Detected, Moved

Confirm = Annotated[
    bool,
    typer.Option(
        "--confirm",
        help="Also take the attention of each head that was found away, and measure the behaviour.",
    ),
]
Pointer = Annotated[
    list[str] | None,
    typer.Option(
        "--value-or-pointer",
        metavar="LAYER.HEAD|all",
        help="Also test whether this head (or all of them) hands on which token it was or where it "
        "stood; may be given several times.",
    ),
]
Level = Annotated[
    float,
    typer.Option("--level", min=0.0, max=1.0, metavar="P", help="The corrected p of a finding."),
]
Plot = Annotated[
    str | None,
    typer.Option(
        "--plot", metavar="FILE.svg", help="Draw what each head attends to from `end`, by label."
    ),
]
Save = Annotated[
    str | None,
    typer.Option(
        "--save", metavar="DIR", help="Save every score, with its chance and p, for each example."
    ),
]
_KEPT = {
    "relations": "Detected",
    "roles": "Detected",
    "attention": "AttentionBetween",
    "value-or-pointer": "Moved",
}
_TITLES = {
    "relations": "looking, on random tokens",
    "roles": "roles in the behaviour",
    "attention": "attention by label",
    "moved": "value or pointer",
}


def heads(
    behaviour: options.BehaviourName = None,
    model: options.ModelName = None,
    prompts: options.Prompts = None,
    n: options.Count = None,
    seed: options.Seed = 0,
    vary: options.Vary = None,
    level: Level = 0.01,
    confirm: Confirm = False,
    value_or_pointer: Pointer = None,
    plot: Plot = None,
    save: Save = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    revision: options.Revision = None,
    trust_remote_code: options.RemoteCode = False,
) -> None:
    """Name the heads that look along a relation, and those that play a role in a behaviour.

    Relations (previous token, induction, …) are read on random tokens said twice, roles (name
    mover, S-inhibition, copy suppression, …) on the behaviour's own prompts. Each score is held
    against chance, such as the same prompts with their tokens shuffled, and its p is corrected for
    all heads; the effect of a role is what the head does with what it sees. Roles that the prompts
    do not allow are named.
    """
    check_named(behaviour, prompts)
    variations(vary)
    check_picture(plot)
    directory = _directory(save)
    loaded = opened(model, device, dtype, revision, trust_remote_code)
    rows = chosen_behaviour(behaviour, prompts, loaded, n=n, usual=100, seed=seed, vary=vary)

    from cutaway.cli.bars import Bars

    with Bars() as bars:
        moved = _moved(loaded, rows, value_or_pointer, bars)
        relations = _relations(loaded, bars, seed)
        roles, missing = _roles(loaded, rows, bars, seed)
        between = _between(loaded, rows, bars)
    print(
        f"{loaded.name}: {loaded.n_layers} layers of {loaded.n_heads} heads; relations on "
        f"{len(relations.values)} prompts of random tokens, roles on {len(rows)} prompts of "
        f"{rows.name}."
    )
    for found in (relations, *([] if roles is None else [roles])):
        _print(found, level, _confirmed(loaded, rows, found, level) if confirm else None)
    if 2.0 ** (1 - len(rows)) >= level:
        print(f"With {len(rows)} prompts no role can have a p below {2.0 ** (1 - len(rows)):g}.")
    for sentence in (*relations.left_out, *missing):
        print(f"Not looked for: {sentence}")
    if moved is not None:
        print(moved.table().to_string(index=False, float_format="{:+.3f}".format))
    if plot is not None:
        print(f"Drawn: {between.plot().save(plot)}")
    if directory is not None:
        made = zip(_KEPT, (relations, roles, between, moved), strict=True)
        names = [each.save(directory / f"{name}.nc").name for name, each in made if each]
        print(f"Saved: {', '.join(names)} in {directory}")


# ── the work ─────────────────────────────────────────────────────────────────────────────────


def _relations(model: Model, bars: Bars, seed: int) -> Detected:
    from cutaway.observe import detect

    bars.started("relations", _TITLES["relations"])
    return detect(model, seed=seed, progress=bars.advanced)


def _roles(
    model: Model, rows: Behaviour, bars: Bars, seed: int
) -> tuple[Detected | None, tuple[str, ...]]:
    """The roles that the prompts allow, and why not the others."""
    from cutaway.errors import InputError
    from cutaway.observe import detect_roles

    bars.started("roles", _TITLES["roles"])
    try:
        found = detect_roles(model, rows, seed=seed, progress=bars.advanced)
    except InputError as error:
        return None, (str(error),)
    return found, found.left_out


def _between(model: Model, rows: Behaviour, bars: Bars) -> AttentionBetween:
    from cutaway.observe import attention_between

    bars.started("attention", _TITLES["attention"])
    return attention_between(model, rows, progress=bars.advanced)


def _moved(model: Model, rows: Behaviour, heads: list[str] | None, bars: Bars) -> Moved | None:
    from cutaway.observe import value_or_pointer

    if not heads:
        return None
    every = [f"{layer}.{head}" for layer in range(model.n_layers) for head in range(model.n_heads)]
    bars.started("moved", _TITLES["moved"])
    chosen = every if "all" in heads else heads
    return value_or_pointer(model, rows, chosen, progress=bars.advanced)


def _confirmed(model: Model, rows: Behaviour, found: Detected, level: float) -> pd.DataFrame:
    """What the behaviour loses without each head that was found."""
    import pandas as pd

    from cutaway.observe import confirm

    def row(relation: str, layer: int, head: int) -> dict[str, object]:
        lost = confirm(model, rows, (layer, head), relation)
        holds = lost.as_expected if lost.expected else lost.matters
        return {"falls by": lost.change, "low": lost.low, "high": lost.high,
                "confirmed": "yes" if holds else "no"}  # fmt: skip

    table = found.heads(level=level)[["relation", "layer", "head"]]
    return pd.DataFrame([row(*each) for each in table.to_numpy()])


# ── what is printed and written ──────────────────────────────────────────────────────────────


def _print(found: Detected, level: float, confirmed: pd.DataFrame | None) -> None:
    """The heads found, and for what else there is the one that comes nearest."""
    import pandas as pd

    table = found.heads(level=level)
    if len(table):
        shown = table.dropna(axis="columns", how="all")
        shown = shown if confirmed is None else pd.concat([shown, confirmed], axis=1)
        small = {"p": "{:.4f}".format}
        print(shown.to_string(index=False, float_format="{:+.3f}".format, formatters=small))
    near = found.nearest()
    for row in near[~near["relation"].isin(table["relation"])].to_dict("records"):
        print(
            f"No head found for {row['relation']!r}; nearest is {row['layer']}.{row['head']} with "
            f"{row['score']:.3f} of its attention ({row['chance']:.3f} by chance)."
        )


def _directory(save: str | None) -> Path | None:
    """Where results go, checked before the work."""
    from pathlib import Path

    from cutaway.errors import CutawayError
    from cutaway.measure.result import read_record

    if save is None:
        return None
    directory = Path(save)
    if directory.is_file():
        raise CutawayError(f"{directory} is a file; --save takes a directory for the results.")
    for name, kind in _KEPT.items():
        target = directory / f"{name}.nc"
        check_writable(target, "--save")
        if target.exists():
            read_record(target, kind)
    return directory
