"""`cutaway sweep`: patch a grid of places and print the strongest.

A sweep keeps a journal beside the file that it will write (`cutaway.patch.journal`). After Ctrl-C
or a kill, the same command goes on from there; the numbers are those of an uninterrupted run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cutaway.cli import options
from cutaway.cli.boundary import kept_beside
from cutaway.cli.files import check_picture, check_writable
from cutaway.cli.inputs import check_named, chosen_behaviour, opened, study_name, variations
from cutaway.cli.words import parts, place, size_in_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from cutaway.patch import Effects, Plan

SiteName = Annotated[
    str,
    typer.Option(
        "--site",
        metavar="SITE",
        help="What is patched: a kind (head_out, resid_pre, mlp_out, …: every layer) or one site "
        "(head_out.2).",
    ),
]
Axes = Annotated[
    str,
    typer.Option(
        "--by",
        metavar="AXES",
        help="The grid's axes with commas between: layer, head, position, neuron, …",
    ),
]
ModeName = Annotated[
    Literal["denoise", "noise", "zero", "mean", "resample"],
    typer.Option(
        "--mode",
        help="What is put in each place: the clean run's activation into the corrupt run "
        "(denoise), the corrupt run's into the clean (noise), or an ablation of the clean run.",
    ),
]
MetricNames = Annotated[
    list[options.MetricName] | None,
    typer.Option(
        "--metric",
        help="What is measured on every example; may be given several times, all on the same "
        "runs. Left out: logit_diff.",
    ),
]
Places = Annotated[
    list[str] | None,
    typer.Option(
        "--position",
        metavar="LABEL|N",
        help="Patch only here (a label such as S2, or a number, -1 the last); may be given several "
        "times.",
    ),
]
Parts = Annotated[
    list[str] | None,
    typer.Option(
        "--part",
        metavar="N|LAYER.N",
        help="Patch only this head, neuron or expert: in every layer (6) or in one (9.6); may be "
        "given several times.",
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        "--memory",
        metavar="SIZE",
        help="What the sweep may take beside the model, for example 2GB. Left out: half of what "
        "is free.",
    ),
]
Explain = Annotated[
    bool,
    typer.Option("--explain", help="Print what would be run, and what it costs; run nothing."),
]
Plot = Annotated[
    str | None,
    typer.Option("--plot", metavar="FILE.svg", help="Draw the effects, of one or two axes."),
]
Top = Annotated[int, typer.Option("--top", min=1, metavar="N", help="Print so many cells.")]
Out = Annotated[
    str | None,
    typer.Option(
        "--out",
        "-o",
        metavar="FILE",
        help="Where the effects are saved (netCDF). Left out: "
        "cutaway-sweeps/BEHAVIOUR-MODEL-SITE-MODE.nc.",
    ),
]


def sweep(
    behaviour: options.BehaviourName = None,
    model: options.ModelName = None,
    prompts: options.Prompts = None,
    site: SiteName = "head_out",
    by: Axes = "layer,head",
    mode: ModeName = "denoise",
    metric: MetricNames = None,
    position: Places = None,
    part: Parts = None,
    memory: Memory = None,
    explain: Explain = False,
    top: Top = 10,
    plot: Plot = None,
    n: options.Count = None,
    seed: options.Seed = 0,
    vary: options.Vary = None,
    out: Out = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    revision: options.Revision = None,
    trust_remote_code: options.RemoteCode = False,
) -> None:
    """Patch every cell of a grid in turn, print the strongest cells and save every effect.

    An effect is the change of the metric; its recovery is the share of the gap between clean and
    corrupt prompts. Effects are kept for every example, and printed with 95 % intervals and with
    p-values that are corrected for the number of cells.

    What is finished is kept as it goes: after Ctrl-C or a kill the same command goes on from there.
    """
    check_named(behaviour, prompts)
    variations(vary)
    budget = None if memory is None else size_in_bytes(memory)
    path = _path(out, f"{study_name(behaviour, prompts, model)}-{site}-{mode}.nc")
    if not explain:
        _check_files(path, plot)
    loaded = opened(model, device, dtype, revision, trust_remote_code)
    examples = chosen_behaviour(behaviour, prompts, loaded, n=n, usual=32, seed=seed, vary=vary)

    from cutaway.patch import plan_sweep

    first, *also = [each.value for each in metric or [options.MetricName.logit_diff]]
    made = plan_sweep(
        loaded, examples, site, by=tuple(axis.strip() for axis in by.split(",")), mode=mode,
        metric=first, also=also, positions=[place(word) for word in position or []] or None,
        parts=None if part is None else parts(part), seed=seed, memory=budget,
    )  # fmt: skip
    if explain:
        print(made.explain())
        return
    _check_plot(made, plot)
    effects = _run(made, path)
    print(f"{site} by {by}, {mode}, {len(examples)} pairs of {examples.name} in {loaded.name}")
    _print(effects, top)
    if plot is not None:
        print(f"Drawn: {effects.plot().save(plot)}")
    print(f"Saved: {path}")


def _path(out: str | None, name: str) -> Path:
    """Where the effects go."""
    from pathlib import Path

    return Path("cutaway-sweeps") / name if out is None else Path(out)


def _run(plan: Plan, path: Path) -> Effects:
    """Carry the plan out and save it, going on where an interrupted run stopped."""
    from cutaway.cli.bars import Bars
    from cutaway.patch import identity, run_plan

    with kept_beside(path, identity(plan)) as journal, Bars() as bars:
        if journal.resumed:
            bars.noted(
                f"Going on with an interrupted sweep: {journal.resumed:,} of "
                f"{_pieces(plan, journal.settings):,} pieces of work were finished earlier."
            )
        bars.started("sweep", f"{plan.experiment.site}, {plan.experiment.mode}")
        effects = run_plan(plan, journal=journal, progress=bars.advanced)
        effects.save(path)
    return effects


def _pieces(plan: Plan, settled: dict[str, int]) -> int:
    """How many pieces of work there are, under the limits of the run that began it."""
    begun = plan.under(memory=settled["memory"], batch_size=settled["batch_size"])
    return begun.count.chunks + len(begun.experiment.batches)


def _print(effects: Effects, top: int) -> None:
    """The strongest cells, metric by metric."""
    for each in (effects, *effects.also.values()):
        ends = (float(each.clean.mean()), float(each.corrupt.mean()))
        print(f"{each.metric}: {ends[0]:+.3f} on clean prompts, {ends[1]:+.3f} on corrupt ones")
        print(
            each.top(top).to_string(
                index=False,
                float_format="{:+.3f}".format,
                formatters={"p_corrected": "{:.4f}".format},
            )
        )


# ── refused before the work ──────────────────────────────────────────────────────────────────


def _check_plot(plan: Plan, plot: str | None) -> None:
    """Refuse a picture that could not be drawn, before the work."""
    from cutaway.errors import CutawayError

    axes = plan.grid.axes
    if plot is not None and len(axes) > 2:
        raise CutawayError(
            f"--plot draws one or two axes, and this sweep has {len(axes)} ({', '.join(axes)}); "
            "leave it out, and draw with Effects.load(FILE).plot(…) in Python."
        )


def _check_files(target: Path, plot: str | None) -> None:
    """Refuse files that could not be written, or hold something else."""
    from cutaway.patch import Effects

    check_writable(target, "--out")
    check_picture(plot)
    if target.exists():
        Effects.load(target)
