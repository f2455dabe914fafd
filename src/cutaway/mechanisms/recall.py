"""Relational recall: the argument is formed, a function is applied, the answer stays.

Merullo et al. 2023, "Language Models Implement Simple Word2Vec-style Vector Arithmetic". Read by
the model's own final norm and unembedding after every step at the last position:

1. the reciprocal rank of the argument (the token at the behaviour's label, " France") and of the
   answer (" Paris"), reading by reading, averaged over prompts;
2. *argument formation*: the first reading at which the argument's curve reaches half of its
   maximum. There is no such stage where the maximum is below 0.2: the model does not bring the
   argument to the end in a form that the unembedding reads;
3. *function application*: the reading at which (answer − argument) rises most over the one before,
   and whether that was attention's or the MLP's doing. There is none where the answer's curve ends
   below 0.2;
4. *saturation*: the median, over prompts that end with the answer on top, of the first reading from
   which on it stays there;
5. what an MLP writes there, added to other prompts (`transplant`), beside random vectors and other
   layers' MLPs. It *transplants* when it raises the other subject's own answer by more than both
   do (95 % intervals over the targets that had no say in choosing the layer).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from cutaway.behaviours.behaviour import Behaviour
from cutaway.behaviours.interval import Interval, bootstrap
from cutaway.errors import InputError
from cutaway.measure.batches import batch_size_for, batches
from cutaway.measure.finite import check_run
from cutaway.measure.result import Fields, interval, provenance
from cutaway.mechanisms.transplant import reciprocal_rank, targets, transplanted
from cutaway.model.model import Model
from cutaway.model.sites import Site
from cutaway.views.figure import Figure
from cutaway.views.lines import Series, lens_curve
from cutaway.views.text import Estimate

_SEEN = 0.2


@dataclass(frozen=True, kw_only=True, eq=False)
class Recall(Fields):
    """Reciprocal ranks by reading, the stages, and what a transplanted MLP output does.

    `reading` holds site names: "resid_pre.0", then "resid_mid.L" (where layers have it) and
    "resid_post.L".
    """

    argument: xr.DataArray
    """(example, reading): the reciprocal rank of the argument at the last position."""
    answer: xr.DataArray
    """(example, reading): of the best correct answer."""
    base: xr.DataArray
    """(target,): of the subject's own answer after a neutral text, nothing added."""
    mlp: xr.DataArray
    """(layer, target): the same with that layer's MLP output from a prompt on another subject."""
    random: xr.DataArray
    """(layer, target): with a random vector of the same norm."""
    elsewhere: xr.DataArray
    """(layer, target): with that layer's MLP output, added at the layer that was chosen."""
    layer: int
    """The layer chosen, on the first half of the targets."""
    label: str
    """The argument's label."""
    strength: float
    """What the vectors were multiplied by."""
    provenance: Mapping[str, Any] = field(repr=False)
    """Versions, model, data and settings."""

    @property
    def stages(self) -> dict[str, str | None]:
        """The reading of each stage by the module's rule, None where there is no such stage."""
        readings = [str(each) for each in self.answer["reading"].to_numpy()]
        argument, answer = (each.mean("example").to_numpy() for each in
                            (self.argument, self.answer))  # fmt: skip
        formed = applied = saturated = None
        if argument.max() >= _SEEN:
            formed = readings[int(np.argmax(argument >= argument.max() / 2))]
        if answer[-1] >= _SEEN:
            applied = readings[int(np.diff(answer - argument).argmax()) + 1]
        on_top = self.answer.transpose("example", "reading").to_numpy() == 1
        kept = np.flip(np.cumprod(np.flip(on_top[on_top[:, -1]], 1), axis=1), 1)
        if len(kept):
            saturated = readings[int(np.median(kept.argmax(axis=1)))]
        return {"argument formation": formed, "function application": applied,
                "saturation": saturated}  # fmt: skip

    @property
    def gains(self) -> pd.DataFrame:
        """What is added at the chosen layer, and by how much the own answer's reciprocal rank rises
        (over the second half of the targets): what, gain, low, high, on top."""
        held = slice(self.base.sizes["target"] // 2, None)
        best = {"layer": self.layer}
        added = {
            "this MLP's output": self.mlp.sel(best),
            "random, same norm": self.random.sel(best),
        }
        for layer in self.elsewhere["layer"].to_numpy().tolist():
            if layer != self.layer:
                added[f"MLP {layer}'s output"] = self.elsewhere.sel(layer=layer)
        rows: list[dict[str, object]] = []
        for name, values in added.items():
            found = bootstrap((values - self.base).to_numpy()[held])
            rows.append({
                "added": name, "gain": float(found.mean), "low": float(found.low),
                "high": float(found.high), "on top": float((values == 1).to_numpy()[held].mean()),
            })  # fmt: skip
        return pd.DataFrame(rows)

    def over(self, other: xr.DataArray) -> Interval:
        """How much more this MLP's output raises the answer than what gave `other` (target,)."""
        held = slice(self.base.sizes["target"] // 2, None)
        return bootstrap((self.mlp.sel(layer=self.layer) - other).to_numpy()[held])

    @property
    def transplants(self) -> bool:
        """Whether the vector does more than nothing, a random one and every other layer's."""
        rivals = [self.base, self.random.sel(layer=self.layer)]
        others = [n for n in self.elsewhere["layer"].to_numpy().tolist() if n != self.layer]
        rivals += [self.elsewhere.sel(layer=layer) for layer in others]
        return all(float(self.over(each).low) > 0 for each in rivals)

    def __str__(self) -> str:
        lines: list[str] = []
        for stage, reading in self.stages.items():
            by = ""
            if stage == "function application" and reading is not None:
                by = ", by attention" if "mid" in reading else ", by the MLP"
                by = by if any("mid" in str(r) for r in self.answer["reading"].to_numpy()) else ""
            lines.append(f"{stage}: {reading or 'no such stage at the last position'}{by}")
        curves = pd.DataFrame(
            {
                "reading": self.answer["reading"].to_numpy(),
                f"argument ({self.label})": self.argument.mean("example").to_numpy(),
                "answer": self.answer.mean("example").to_numpy(),
            }
        )
        verdict = "transplants" if self.transplants else "does not transplant"
        lines += [
            curves.to_string(index=False, float_format="{:.2f}".format),
            f"The output of MLP {self.layer}, times {self.strength:g}, {verdict}: rise of the own "
            f"answer's reciprocal rank in neutral texts, from {float(self.base.mean()):.2f}",
            self.gains.to_string(index=False, float_format="{:.2f}".format),
        ]
        return "\n".join(lines)

    def plot(self) -> Figure:
        """The two curves, with their intervals."""
        series: list[Series] = []
        for name, values in (("argument", self.argument), ("answer", self.answer)):
            found = interval(values)
            ends = zip(*(found[end].to_numpy() for end in ("mean", "low", "high")), strict=True)
            series.append(Series(name=name, estimates=tuple(Estimate(*each) for each in ends)))
        stages = "; ".join(f"{stage} at {at or 'no reading'}" for stage, at in self.stages.items())
        names = [str(each).removeprefix("resid_") for each in self.answer["reading"].to_numpy()]
        return lens_curve(
            series, names, title="Argument and answer, layer by layer", shows=f"{stages}.",
            measure="reciprocal rank at the last position", axis="reading",
            reproduce="recall(model, behaviour).plot()",
        )  # fmt: skip


def recall(
    model: Model,
    behaviour: Behaviour,
    *,
    argument: str | None = None,
    neutral: Sequence[str] | None = None,
    strength: float = 1.0,
    n_targets: int = 128,
    seed: int = 0,
) -> Recall:
    """Read argument and answer layer by layer, and transplant the function.

    `argument` is the label of the argument's token (the only one beside "end", when not given);
    `neutral` are texts with {} where a subject goes, after which the model says the subject;
    `n_targets` of them are drawn with `seed`. Raises `InputError` for labels and texts that do not
    fit, and for a model without a tokenizer.
    """
    label = _label(behaviour, argument)
    if model.tokenizer is None or n_targets < 4 or not strength > 0:
        raise InputError(
            f"Recall needs a tokenizer, four targets or more and a strength above 0; found "
            f"tokenizer={model.tokenizer is not None}, n_targets={n_targets}, strength={strength}."
        )
    middle = [] if "resid_mid" in model.missing() else ["resid_mid"]
    kinds = [*middle, "resid_post"]
    readings = [Site("resid_pre", 0)]
    readings += [Site(kind, layer) for layer in range(model.n_layers) for kind in kinds]
    outputs = [Site("mlp_out", layer) for layer in range(model.n_layers)]
    row = np.arange(len(behaviour))
    subjects = behaviour.clean.ids[row, behaviour.clean.labels[label].cpu()].tolist()
    curves = {name: np.empty((len(behaviour), len(readings))) for name in ("argument", "answer")}
    moved: list[Tensor] = []
    for where, some in batches(behaviour, batch_size_for(model, behaviour, None)):
        run = model.run(some.clean, keep=[*readings, *outputs])
        check_run(model, run, where.start, "clean")
        wanted = {"argument": [(each,) for each in subjects[where]], "answer": some.answers}
        for number, site in enumerate(readings):
            logits = _read(model, _at_end(some, run[site]))
            for name, tokens in wanted.items():
                curves[name][where, number] = reciprocal_rank(logits, tokens)
        moved.append(torch.stack([_at_end(some, run[site]) for site in outputs]))
    right = np.flatnonzero(curves["answer"][:, -1] == 1).tolist() or row.tolist()
    chosen = targets(model, behaviour, subjects, right, neutral, n_targets, random.Random(seed))
    found = transplanted(model, chosen, torch.cat(moved, dim=1), strength, seed)
    coords = {"reading": [str(site) for site in readings]}
    layers = {"layer": np.arange(model.n_layers)}
    return Recall(
        **{name: xr.DataArray(each, coords, ("example", "reading"))
           for name, each in curves.items()},
        base=xr.DataArray(found["base"], dims="target"),
        **{name: xr.DataArray(found[name], layers, ("layer", "target"))
           for name in ("mlp", "random", "elsewhere")},
        layer=int(found["layer"]), label=label, strength=strength,
        provenance=provenance(
            model, behaviour,
            {"method": "recall", "argument": label, "strength": strength, "n_targets": n_targets,
             "neutral": None if neutral is None else list(neutral), "seed": seed},
        ),
    )  # fmt: skip


def _at_end(
    rows: Behaviour, x: Float[Tensor, "batch position d_model"]
) -> Float[Tensor, "batch d_model"]:
    row = torch.arange(len(rows), device=x.device)
    return x[row, rows.clean.labels["end"].to(x.device)]


def _read(model: Model, stream: Tensor) -> Tensor:
    with torch.no_grad():
        return model.unembed(model.anatomy.final_norm(stream))


def _label(behaviour: Behaviour, argument: str | None) -> str:
    others = [label for label in behaviour.labels if label != "end"]
    if argument is None and len(others) == 1:
        return others[0]
    if argument not in others:
        found = "not named" if argument is None else repr(argument)
        raise InputError(
            f"The argument's label is {found}; {behaviour.name!r} has "
            f"{', '.join(map(repr, others)) or 'none beside end'}."
        )
    return argument
