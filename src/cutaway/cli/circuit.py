"""`cutaway circuit`: from a behaviour to circuits by one method or several, evaluated and compared.

Edges are scored and selected on some prompts, and all that is said of a circuit is measured on
others. `circuit_stages` lists the stages, and `circuit_work` says what is kept of them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cutaway.cli import options
from cutaway.cli.boundary import Interrupted
from cutaway.cli.inputs import check_named, chosen_behaviour, opened, study_name, variations
from cutaway.cli.words import edges as edges_in
from cutaway.cli.words import listed, number

if TYPE_CHECKING:
    from pathlib import Path

    from cutaway.behaviours import Behaviour
    from cutaway.circuits import Circuit, Crossing, Masked
    from cutaway.cli.circuit_stages import Asked, Found
    from cutaway.model import Model


class FormatName(StrEnum):
    """The formats there are besides JSON (`cutaway.circuits.exports.FORMATS`)."""

    graphml = "graphml"
    dot = "dot"
    attribution = "attribution"


MethodNames = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        metavar="METHOD",
        help="How edges are scored (eap-ig, eap, exact, acdc, …); may be given several times, to "
        "compare. Left out: eap-ig.",
    ),
]
Edges = Annotated[
    str,
    typer.Option(
        "--edges",
        metavar="N|P%|smallest",
        help="How many edges the circuit has; smallest are the fewest that keep the behaviour on "
        "the prompts of discovery, 0.9 to 1.1 of it with the whole interval.",
    ),
]
Selection = Annotated[
    Literal["greedy", "top"],
    typer.Option(
        "--select",
        help="The best edges of which each leads to the logits (greedy), or the best wherever "
        "they lead (top).",
    ),
]
Ranking = Annotated[
    Literal["score", "magnitude"] | None,
    typer.Option(
        "--by",
        help="Best are the edges that support the behaviour most (score), or that move it most "
        "either way (magnitude). Left out: magnitude for effects and their estimates, score for "
        "learned masks, removal and baselines.",
    ),
]
AblationName = Annotated[
    Literal["counterfactual", "mean", "mean-by-position", "zero", "resample"],
    typer.Option("--ablation", help="What an edge carries when it is off."),
]
OneMetric = Annotated[
    options.MetricName | None,
    typer.Option("--metric", help="What an edge matters for. Left out: the behaviour's own."),
]
HeldOut = Annotated[
    float | None,
    typer.Option(
        "--held-out",
        metavar="SHARE",
        help="The share of pairs to evaluate on, drawn with the seed. Left out: those that the "
        "behaviour or the file (column held_out) marks, else half.",
    ),
]
Formats = Annotated[
    list[FormatName] | None,
    typer.Option(
        "--format", help="Write circuits like this as well as JSON; may be given several times."
    ),
]
Compare = Annotated[
    list[str] | None,
    typer.Option(
        "--compare",
        metavar="FILE",
        help="Compare with this saved circuit of the same model; may be given several times.",
    ),
]
Together = Annotated[
    Literal["edges", "nodes", "layers"] | None,
    typer.Option(
        "--granularity",
        help="What is scored together: single edges, heads and MLPs, or a layer's. Left out: what "
        "suits the method.",
    ),
]
Positions = Annotated[
    str | None,
    typer.Option(
        "--positions",
        metavar="LABELS|all",
        help="Split what is read by position: labels with commas between (S2,end), or all.",
    ),
]
Neurons = Annotated[
    str | None,
    typer.Option(
        "--neurons",
        metavar="LAYERS",
        help="Split these layers' MLPs into neurons: numbers with commas between.",
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        "--steps", min=1, metavar="N", help="Steps, for the methods that take some (eap-ig, …)."
    ),
]
Quick = Annotated[
    bool,
    typer.Option("--quick", help="Evaluate only faithfulness, beside that of random circuits."),
]
Out = Annotated[
    str | None,
    typer.Option(
        "--out",
        "-o",
        metavar="DIR",
        help="Where everything is saved. Left out: cutaway-circuits/BEHAVIOUR-MODEL.",
    ),
]


def circuit(
    behaviour: options.BehaviourName = None,
    model: options.ModelName = None,
    prompts: options.Prompts = None,
    method: MethodNames = None,
    edges: Edges = "5%",
    select: Selection = "greedy",
    by: Ranking = None,
    ablation: AblationName = "counterfactual",
    metric: OneMetric = None,
    n: options.Count = None,
    held_out: HeldOut = None,
    granularity: Together = None,
    positions: Positions = None,
    neurons: Neurons = None,
    steps: Steps = None,
    quick: Quick = False,
    format: Formats = None,
    compare: Compare = None,
    seed: options.Seed = 0,
    vary: options.Vary = None,
    out: Out = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    revision: options.Revision = None,
    trust_remote_code: options.RemoteCode = False,
) -> None:
    """Find the circuit of a behaviour, and say what it is worth.

    Scores every edge between heads and MLPs, selects a circuit, and evaluates it on prompts that
    had no part in it: faithfulness beside that of random circuits like it, completeness,
    minimality, the hypothesis tests of Shi et al. 2024, and faithfulness by size. Several methods
    are compared, with each other and with circuits saved earlier.

    Every stage is saved as it finishes: after Ctrl-C or a kill the same command goes on from there,
    and other settings compute again only what depends on them.
    """
    check_named(behaviour, prompts)
    variations(vary)
    from cutaway.cli.circuit_stages import Asked
    from cutaway.cli.circuit_work import check_directory

    asked = Asked(
        methods=_methods(method, steps), edges=edges_in(edges), select=select, by=by,
        ablation=ablation, metric=None if metric is None else metric.value, seed=seed, quick=quick,
        granularity=granularity, steps=steps, formats=[each.value for each in format or []],
    )  # fmt: skip
    directory = _directory(out, study_name(behaviour, prompts, model))
    check_directory(directory)
    loaded = opened(model, device, dtype, revision, trust_remote_code)
    pairs = chosen_behaviour(behaviour, prompts, loaded, n=n, usual=100, seed=seed, vary=vary)
    train, held = _sides(pairs, held_out, seed)
    on = _split(loaded, pairs, positions, neurons)
    earlier = _earlier(compare or [], on, asked.methods)
    _check(on, train, held, asked)
    print(f"{pairs.name}: {len(train)} pairs to discover on, {len(held)} held out, {loaded.name}")
    _run(on, train, held, asked, earlier, directory)
    print(f"Saved: {directory}")


# ── the work ─────────────────────────────────────────────────────────────────────────────────


def _run(
    on: Masked, train: Behaviour, held: Behaviour, asked: Asked, earlier: dict[str, Circuit],
    directory: Path,
) -> None:  # fmt: skip
    """Every stage, with bars; Ctrl-C says how to go on."""
    from cutaway.circuits import compare
    from cutaway.cli.bars import Bars
    from cutaway.cli.circuit_stages import by_method, crossed
    from cutaway.cli.circuit_work import Work, check_whose

    whose = {"model": on.model.fingerprint, "behaviour": f"{train.fingerprint}+{held.fingerprint}"}
    check_whose(directory, whose)
    with Bars() as bars:
        work = Work(directory, whose, bars)
        try:
            found = {
                name: by_method(name, on, train, held, asked, work, bars.advanced)
                for name in asked.methods
            }
            kept = {name: one.circuit for name, one in found.items()} | earlier
            scores = {name: one.scores for name, one in found.items()}
            crossing = crossed(earlier, on, held, asked, work) if earlier else None
            if crossing is None:
                work.remove("crossing")
            shared = compare(kept, scores=scores) if len(kept) > 1 else None
            comparison = directory / "comparison.nc"
            if shared is None:
                comparison.unlink(missing_ok=True)
            else:
                shared.save(comparison)
            others = work.others(asked.methods)
        except KeyboardInterrupt:
            raise Interrupted(
                f"Interrupted. What is finished is kept in {directory}; the same command goes on "
                "from there."
            ) from None
        finally:
            work.close()
    _print(found, earlier, crossing)
    if shared is not None:
        print(f"\nWhat they share:\n{shared}")
    if others:
        print(f"\nOf earlier runs, perhaps with other settings: {', '.join(others)}")


def _print(found: dict[str, Found], earlier: dict[str, Circuit], crossing: Crossing | None) -> None:
    """A row for each circuit, and of a single method all that the evaluation says."""
    import pandas as pd

    rows: list[dict[str, object]] = [
        {
            "circuit": name, "edges": len(one.circuit),
            "faithfulness": one.evaluation.faithfulness,
            "random, at most": f"{max(each.mean for each in one.evaluation.controls):.3f}",
            "ranked by": one.sizes.by, "CPR": one.sizes.cpr, "CMD": one.sizes.cmd,
            "passes": "yes" if one.evaluation.passes else "no",
        }
        for name, one in found.items()
    ]  # fmt: skip
    for name, circuit in earlier.items():
        assert crossing is not None
        behaviour = str(crossing.values["behaviour"].to_numpy()[0])
        kept = crossing.faithfulness(name, behaviour)
        rows.append({"circuit": name, "edges": len(circuit), "faithfulness": kept})
    print(pd.DataFrame(rows).fillna("").to_string(index=False))
    for one in found.values() if len(found) == 1 else ():
        print(f"\n{one.evaluation}\n")
        for name, check in one.evaluation.checks.items():
            print(f"{name}: {check}")


# ── refused before the work ──────────────────────────────────────────────────────────────────


def _methods(names: list[str] | None, steps: int | None) -> list[str]:
    from cutaway.circuits import METHODS, CircuitError

    chosen = list(dict.fromkeys(names or ["eap-ig"]))
    for name in chosen:
        if name not in METHODS:
            raise CircuitError(f"There is no method {name!r}; choose one of {', '.join(METHODS)}.")
    _check_steps(chosen, steps)
    return chosen


def _check_steps(methods: list[str], steps: int | None) -> None:
    from cutaway.circuits import CircuitError
    from cutaway.cli.circuit_stages import takes_steps

    if steps is not None and not any(map(takes_steps, methods)):
        raise CircuitError(
            f"--steps was given, and {' and '.join(methods)} has none; leave it out."
        )


def _directory(out: str | None, name: str) -> Path:
    from pathlib import Path

    return Path("cutaway-circuits") / name if out is None else Path(out)


def _sides(pairs: Behaviour, share: float | None, seed: int) -> tuple[Behaviour, Behaviour]:
    """The pairs to discover on, and those to evaluate on."""
    from cutaway.circuits import CircuitError

    if share is not None or not pairs.has_held_out:
        pairs = pairs.hold_out(0.5 if share is None else share, seed=seed)
    train, held = pairs.split("train"), pairs.split("held-out")
    if len(held) < 2:
        raise CircuitError(
            f"A circuit is evaluated on 2 pairs or more; {len(held)} of {len(pairs)} is held out; "
            "give more pairs (--n) or a larger share (--held-out)."
        )
    return train, held


def _split(model: Model, pairs: Behaviour, positions: str | None, neurons: str | None) -> Masked:
    """The model with its edges to switch, split as was asked."""
    from cutaway.circuits import Graph, Masked

    places = pairs.labels if positions == "all" else listed(positions)
    layers = [number("--neurons", word, "the number of a layer") for word in listed(neurons)]
    return Masked(model, Graph.of(model, positions=places, neurons=layers))


def _earlier(files: list[str], on: Masked, methods: list[str]) -> dict[str, Circuit]:
    """Saved circuits by name: the file's own, with its directory's where that is not enough."""
    from pathlib import Path

    from cutaway.circuits import Circuit, CircuitError

    found: dict[str, Circuit] = {}
    for path in map(Path, files):
        own = path.name.split(".")[0]
        names = (own, f"{path.resolve().parent.name}/{own}", str(path))
        name = next((each for each in names if each not in (*methods, *found)), None)
        if name is None:
            raise CircuitError(f"--compare names {path} several times; give each file once.")
        found[name] = Circuit.load(path, model=on.model)
    return found


def _check(on: Masked, train: Behaviour, held: Behaviour, asked: Asked) -> None:
    """Refuse too many edges, and a behaviour without an effect."""
    from cutaway.circuits import CircuitError
    from cutaway.circuits.faithfulness import check_gap, measured

    if asked.edges is not None and asked.edges > len(on.graph):
        raise CircuitError(
            f"{on.model.name} has {len(on.graph)} edges; --edges {asked.edges} asks for more."
        )
    for side in (train, held):
        whole = measured(on, side, on.graph.valid[None], **asked.measure)
        check_gap(whole.clean, whole.ablated, side)
