"""Causal scrubbing (Chan, Garriga-Alonso, Goldowsky-Dill, Greenblatt, Nitishinskaya,
Radhakrishnan, Shlegeris & Thomas 2022, "Causal scrubbing: a method for rigorously testing
interpretability hypotheses").

If a hypothesis (see `hypotheses`) is right, a part may be given any other prompt that agrees on the
feature that the part is said to be about, and the behaviour stays. All such swaps are made at once,
on the tree of all paths that the hypothesis names. For a reader, at a reference prompt x:

1. draw any other prompt r; all that the hypothesis does not name for this reader is what it is on
   r (`unimportant="together"`, the paper's), or draw an r of its own for each such writer
   (`"apart"`: the parts left out may not even rely on one another);
2. for each node that matters to it, draw a prompt x' that agrees with x on the node's feature, each
   independently, and compute the node at x': a kind of input that the node makes claims about is
   made by these two steps, with x' as the reference; any other is what it is on x';
3. the reader's input is its stream on r, with what the nodes write in place of what they write
   there.

The metric of the logits so computed, with the answers of the first x, is the scrubbed metric; the
baseline is that of the hypothesis in which nothing matters. Each claim is also put to the test
alone (every other stand-in is the reference itself), and each node taken out in turn.

Where this differs from the paper: a head's q, k and v inputs are readers of their own, each with an
r of its own; a prompt is its own stand-in only where no other agrees, and stands in only for
prompts of its length (see `stand_ins`). Attention and MLPs see whole prompts: a node is not split
by position.

A node with claims about its inputs costs, for each of its layers, one layer of the model; all else
is looked up, or a forward pass where the prompts do not fit in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from cutaway.behaviours.behaviour import Behaviour
from cutaway.behaviours.metrics import Metric
from cutaway.circuits.claims import Tree, check, depth
from cutaway.circuits.discovery.discover import checked_metric
from cutaway.circuits.faithfulness import check_gap
from cutaway.circuits.features import Feature, feature
from cutaway.circuits.graph import CircuitError
from cutaway.circuits.hypotheses import REST, Hypothesis
from cutaway.circuits.masked import Masked
from cutaway.circuits.recomputing import Recomputing
from cutaway.circuits.scrubbed import Scrubbed
from cutaway.circuits.stand_ins import StandIns
from cutaway.measure.batches import Progress, batch_size_for, whole
from cutaway.measure.result import provenance
from cutaway.model.model import Model

Unimportant = Literal["together", "apart"]
"""Whether what does not matter to a reader comes from one prompt, or each part from its own."""


def scrub(
    model: Model | Masked,
    behaviour: Behaviour,
    hypothesis: Hypothesis,
    *,
    metric: str | Metric | None = None,
    examples: int | Sequence[int] | None = None,
    samples: int = 4,
    unimportant: Unimportant = "together",
    claims: bool = True,
    batch_size: int | None = None,
    memory: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Scrubbed:
    """Test a hypothesis on the first `examples` clean prompts, or those of these rows, or all.

    Stand-ins are drawn from all of the behaviour's clean prompts, `samples` times for each example:
    have many more prompts than examples where features are fine. `claims=False` leaves out the
    tests of single claims. `metric` is the behaviour's own when not given. `memory` bounds, in
    bytes, what is held above the model and its plain passes. `progress` is called with the batches
    done and their total.

    Raises `CircuitError` for parts that do not exist, nodes that do not fit where they stand,
    features that these prompts do not have, prompts without another of their length, and a total
    effect of about zero.
    """
    on = Masked.of(model, model.graph.whole if isinstance(model, Masked) else None, memory=memory)
    chosen, graph = checked_metric(behaviour, metric), on.graph
    rows = _rows(behaviour, examples, samples)
    if unimportant not in get_args(Unimportant):
        raise CircuitError(f"unimportant is 'together' or 'apart'; found {unimportant!r}.")
    check(graph, hypothesis)
    stand_ins = StandIns(behaviour, feature(hypothesis.within), seed)
    stand_ins.check(rows)
    for node in hypothesis.nodes:
        stand_ins.others(node.feature)
    tests = _tests(hypothesis, claims=claims)
    recomputing, size = _recomputing(on, behaviour, hypothesis, batch_size)
    total = samples * len(rows)
    found = np.empty((len(tests) + 1, total))
    starts = range(0, total, size)
    for done, start in enumerate(starts, start=1):
        where = slice(start, min(start + size, total))
        references = rows.repeat(samples)[where]
        forest = [
            Tree(recomputing, tried, stand_ins, where, total, tested, unimportant)
            for tried, tested in tests
        ]
        found[:, where] = _measured(recomputing, forest, behaviour, references, chosen)
        if progress is not None:
            progress(done, len(starts))
    return _result(
        on.model, behaviour, hypothesis, chosen, stand_ins, rows,
        found.reshape(len(found), samples, len(rows)),
        {"samples": samples, "unimportant": unimportant, "seed": seed}, claims=claims,
    )  # fmt: skip


def _recomputing(
    on: Masked, behaviour: Behaviour, hypothesis: Hypothesis, batch_size: int | None
) -> tuple[Recomputing, int]:
    """Half of the memory for the prompts, and how many references the other half is enough for.

    Going down the tree, each level holds the streams and parts of up to three kinds of readers.
    """
    size, half = batch_size_for(on.model, behaviour, batch_size), on.memory // 2
    found = Recomputing(on, behaviour.clean, batch_size=size, memory=half)
    each = found.bytes_kept(behaviour.clean.ids.shape[1]) * 3 * (1 + depth(hypothesis))
    return found, min(size, max(1, half // each))


def _measured(
    on: Recomputing, forest: Sequence[Tree], behaviour: Behaviour, references: Int[Tensor, " row"],
    metric: Metric,
) -> Float[np.ndarray, "test row"]:  # fmt: skip
    """The metric of each tree, and last the model's own."""
    part = behaviour.rows(references)
    end = part.clean.labels["end"]
    own = on.logits((on.seen(references), {}), end)
    reference = own if metric.needs_reference else None

    def value(logits: Float[Tensor, "row vocab"]) -> Float[np.ndarray, " row"]:
        return _numbers(metric(logits, part, reference=reference), metric, references)

    trees = [value(on.logits(tree.source(references), end)) for tree in forest]
    return np.stack([*trees, value(own)])


def _tests(hypothesis: Hypothesis, *, claims: bool) -> list[tuple[Hypothesis, str | None]]:
    """The hypothesis, the empty one, each claim alone, and the hypothesis without each node."""
    empty = Hypothesis(
        name="nothing", description="", nodes=(), logits=(), within=hypothesis.within
    )
    names = [node.name for node in hypothesis.nodes]
    tests: list[tuple[Hypothesis, str | None]] = [(hypothesis, None), (empty, None)]
    if claims:
        tests += [(hypothesis, claim) for claim in (*names, REST)]
        tests += [(hypothesis.without(name), None) for name in names]
    return tests


def _result(
    model: Model, behaviour: Behaviour, hypothesis: Hypothesis, metric: Metric,
    stand_ins: StandIns, rows: Int[Tensor, " example"],
    found: Float[np.ndarray, "test draw example"], settings: dict[str, object], *, claims: bool,
) -> Scrubbed:  # fmt: skip
    check_gap(found[-1, 0], found[1].mean(axis=0), behaviour)
    names = [node.name for node in hypothesis.nodes] if claims else []
    listed = [*names, REST] if claims else []
    alone = found[2 : 2 + len(listed)].mean(axis=1)
    without = np.full_like(alone, np.nan)
    without[: len(names)] = found[2 + len(listed) : -1].mean(axis=1)
    features = [hypothesis.node(name).feature for name in names] + [Feature(())] * claims
    others = np.array([stand_ins.others(one)[rows] for one in features], dtype=float)
    axes = {"claim": listed, "example": rows.numpy()}
    name, dims = metric.name, ("draw", "example")
    own = {"example": rows.numpy()}
    settings = {"metric": name, "examples": len(rows), **settings}
    return Scrubbed(
        values=xr.DataArray(found[0], own, dims, name),
        baseline=xr.DataArray(found[1], own, dims, name),
        clean=xr.DataArray(found[-1, 0], own, "example", name),
        alone=xr.DataArray(alone, axes, ("claim", "example"), name),
        without=xr.DataArray(without, axes, ("claim", "example"), name),
        others=xr.DataArray(others.reshape(alone.shape), axes, ("claim", "example"), "others"),
        hypothesis=hypothesis.record(),
        provenance=provenance(model, behaviour, settings),
    )


def _rows(
    behaviour: Behaviour, examples: int | Sequence[int] | None, samples: int
) -> Int[Tensor, " example"]:
    """The rows to test on."""
    many = len(behaviour)
    given = range(many) if examples is None else examples
    listed = list(range(given)) if isinstance(given, int) else [whole(each) for each in given]
    rows = [each for each in listed if each is not None and 0 <= each < many]
    if not rows or len(rows) != len(listed) or len(set(rows)) < len(rows):
        raise CircuitError(
            f"examples are a number from 1 to the {many} prompts that there are, or a list of "
            f"different rows among them; found {examples!r}."
        )
    if whole(samples) is None or samples < 1:
        raise CircuitError(f"samples must be a whole number of 1 or more; found {samples!r}.")
    return torch.tensor(rows)


def _numbers(values: Tensor, metric: Metric, rows: Int[Tensor, " row"]) -> np.ndarray:
    """The metric's values, checked to be finite."""
    found = values.detach().double().cpu().numpy()
    if not np.isfinite(found).all():
        row = int(rows[int(np.argmin(np.isfinite(found)))])
        raise CircuitError(
            f"The metric {metric.name!r} of example {row} is not finite (NaN or infinity); open "
            "the model in float32, or choose another metric."
        )
    return found
