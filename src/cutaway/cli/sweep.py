"""`cutaway sweep`: patch a grid of places and print the strongest."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from cutaway.cli.options import (
    Count,
    Device,
    Dtype,
    ModelName,
    Prompts,
    RemoteCode,
    Revision,
    Seed,
    Vary,
    check_named,
    chosen_behaviour,
    opened,
    variations,
)


def sweep(
    behaviour: Annotated[
        str | None,
        typer.Argument(
            metavar="BEHAVIOUR",
            help="A built-in behaviour; may be left out with --prompts.",
            show_default=False,
        ),
    ] = None,
    model: ModelName = None,
    prompts: Prompts = None,
    site: Annotated[
        str,
        typer.Option(
            "--site",
            metavar="SITE",
            help="What is patched: a kind (head_out, resid_pre, mlp_out, …: every layer) or one "
            "site (head_out.2).",
        ),
    ] = "head_out",
    by: Annotated[
        str,
        typer.Option(
            "--by",
            metavar="AXES",
            help="The grid's axes with commas between: layer, head, position, neuron, …",
        ),
    ] = "layer,head",
    mode: Annotated[
        Literal["denoise", "noise", "zero", "mean", "resample"],
        typer.Option(
            "--mode",
            help="What is put in each place: the clean run's activation into the corrupt run "
            "(denoise), the corrupt run's into the clean (noise), or an ablation of the clean run.",
        ),
    ] = "denoise",
    metric: Annotated[
        Literal["logit_diff", "prob_diff", "accuracy", "kl"],
        typer.Option("--metric", help="What is measured on every example."),
    ] = "logit_diff",
    position: Annotated[
        list[str] | None,
        typer.Option(
            "--position",
            metavar="LABEL|N",
            help="Patch only here (a label such as S2, or a number, -1 the last); may be given "
            "several times.",
        ),
    ] = None,
    top: Annotated[
        int, typer.Option("--top", min=1, metavar="N", help="Print so many cells.")
    ] = 10,
    n: Count = 32,
    seed: Seed = 0,
    vary: Vary = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="Where the effects are saved (netCDF). Left out: "
            "cutaway-sweeps/BEHAVIOUR-SITE-MODE.nc.",
        ),
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    revision: Revision = None,
    trust_remote_code: RemoteCode = False,
) -> None:
    """Patch every cell of a grid in turn, print the strongest cells and save every effect.

    An effect is the change of the metric; its recovery is the share of the gap between clean and
    corrupt prompts. Effects are kept for every example, and printed with 95 % intervals.
    """
    from pathlib import Path

    check_named(behaviour, prompts)
    variations(vary)
    named = behaviour or Path(prompts or "").stem
    path = Path(out) if out else Path("cutaway-sweeps") / f"{named}-{site}-{mode}.nc"
    _check_file(path)
    loaded = opened(model, device, dtype, revision, trust_remote_code)
    examples = chosen_behaviour(behaviour, prompts, loaded, n=n, seed=seed, vary=vary)

    import cutaway
    from cutaway.cli.bars import Bars

    places = [int(p) if p.lstrip("-").isdigit() else p for p in position or []] or None
    with Bars() as bars:
        bars.started("sweep", f"{site}, {mode}")
        effects = cutaway.sweep(
            loaded, examples, site, by=tuple(axis.strip() for axis in by.split(",")), mode=mode,
            metric=metric, positions=places, seed=seed, progress=bars.advanced,
        )  # fmt: skip
    saved = effects.save(path)
    print(f"{site} by {by}, {mode}, {len(examples)} pairs of {examples.name} in {loaded.name}")
    print(f"{metric}: {float(effects.clean.mean()):+.3f} clean, "
          f"{float(effects.corrupt.mean()):+.3f} corrupt")  # fmt: skip
    print(effects.top(top).to_string(index=False, float_format=lambda value: f"{value:+.3f}"))
    print(f"Saved: {saved}")


def _check_file(path: object) -> None:
    """Refuse a file that could not be written, before the work."""
    from pathlib import Path

    from cutaway.errors import CutawayError
    from cutaway.patch import Effects

    target = Path(str(path))
    if target.is_dir():
        raise CutawayError(f"{target} is a directory; --out takes the file to write.")
    if target.exists():
        Effects.load(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        probe = target.with_name(f".{target.name}.part")
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise CutawayError(
            f"{target} cannot be written ({error.strerror or error}); name another file with --out."
        ) from error
