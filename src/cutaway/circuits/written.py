"""What every writer writes: in a run, and in what takes its place.

`Written` holds one run's writers compactly: heads by their z, from which the output projection
makes what they add to the stream. That is linear, so means and differences of z are means and
differences of what heads write.

| ablation | what an edge carries when it is off |
|---|---|
| `counterfactual` | what the writer writes on the pair's corrupt prompt |
| `mean` | its mean over all the behaviour's corrupt prompts and their real tokens |
| `mean-by-position` | its mean over the corrupt prompts, position by position |
| `zero` | nothing |
| `resample` | what it writes on another pair's corrupt prompt, drawn with a seed |
| `optimal` | the constant that loses least, learned for the circuits at hand (see `optimal`) |

Counterfactual ablation is that of Syed et al. 2023 and Hanna et al. 2024; means over the corrupt
distribution are those of Wang et al. 2022 (IOI), there by position; resampling is Chan et al. 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self, cast, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from cutaway.behaviours.behaviour import Behaviour
from cutaway.circuits.graph import CircuitError
from cutaway.measure.finite import check_run
from cutaway.model.model import Model
from cutaway.model.run import Run
from cutaway.model.sites import Site
from cutaway.model.tokens import Tokens
from cutaway.patch.sources import drawn

Ablation = Literal["counterfactual", "mean", "mean-by-position", "zero", "resample", "optimal"]
"""What an edge carries when it is off; see the module's table."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """What every writer writes, for some rows; a row or position axis of 1 serves all."""

    input: Float[Tensor, "row position d_model"]
    """The stream as it enters the first layer."""
    z: tuple[Float[Tensor, "row position head d_head"], ...]
    """Each layer's heads, before the output projection."""
    mlp: tuple[Float[Tensor, "row position d_model"], ...]
    """What each layer's MLP adds to the stream."""
    post: Mapping[int, Float[Tensor, "row position neuron"]] = field(default_factory=dict)
    """The activations of the neurons of each layer whose MLP is split."""

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same with every tensor changed."""
        return type(self)(
            input=change(self.input), z=tuple(map(change, self.z)),
            mlp=tuple(map(change, self.mlp)),
            post={layer: change(x) for layer, x in self.post.items()},
        )  # fmt: skip

    def rows(self, index: slice | Tensor) -> Self:
        """Some of the rows; what serves all rows stays as it is."""
        return self.map(lambda x: x if x.shape[0] == 1 else x[index])

    def after(self, start: int) -> Self:
        """The positions from `start` on; what serves all positions stays as it is."""
        return self.map(lambda x: x if x.shape[1] == 1 else x[:, start:])

    def tensors(self) -> list[Tensor]:
        """Every tensor, in the order of the pass."""
        pairs = zip(self.z, self.mlp, strict=True)
        return [self.input, *(x for pair in pairs for x in pair), *self.post.values()]

    def holding(self, tensors: Sequence[Tensor]) -> Self:
        """The same with other tensors, in the order of `tensors`."""
        taken = iter(tensors)
        first = next(taken)
        pairs = [(next(taken), next(taken)) for _ in self.z]
        return type(self)(
            input=first, z=tuple(z for z, _ in pairs), mlp=tuple(mlp for _, mlp in pairs),
            post={layer: next(taken) for layer in self.post},
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Constants:
    """Constants that were learned to stand in for what is off (see `optimal`)."""

    written: Written
    """One constant per writer, for all rows and for all positions or each."""
    loss: float
    """What they lose on the prompts that they were learned on."""
    mean_loss: float
    """What the means lose there, from which they were learned."""


def sites(model: Model, split: Collection[int] = ()) -> list[Site]:
    """The sites that a run has to keep for `written`; `split` are layers split into neurons."""
    layers = range(model.n_layers)
    whole = [Site(kind, layer) for layer in layers for kind in ("z", "mlp_out")]
    return [Site("resid_pre", 0), *whole, *(Site("mlp_post", layer) for layer in split)]


def written(model: Model, run: Run, split: Collection[int] = ()) -> Written:
    """What every writer wrote in a run that kept `sites`."""
    layers = range(model.n_layers)
    return Written(
        input=run[Site("resid_pre", 0)],
        z=tuple(run[Site("z", layer)] for layer in layers),
        mlp=tuple(run[Site("mlp_out", layer)] for layer in layers),
        post={layer: run[Site("mlp_post", layer)] for layer in split},
    )


def named(ablation: str | Constants) -> str:
    """An ablation's name; that of learned constants is `optimal`."""
    return ablation if isinstance(ablation, str) else "optimal"


def check_ablation(ablation: str, behaviour: Behaviour) -> Ablation:
    """The ablation, when there is one of that name that these prompts can serve."""
    if ablation not in get_args(Ablation):
        known = ", ".join(get_args(Ablation))
        raise CircuitError(f"There is no ablation {ablation!r}; choose one of {known}.")
    uneven = bool((behaviour.corrupt.mask != behaviour.corrupt.mask[:1]).any())
    if uneven and ablation in ("resample", "mean-by-position"):
        raise CircuitError(
            f"These prompts have different lengths, so their positions do not line up for the "
            f"ablation {ablation!r}; choose counterfactual, mean or zero."
        )
    if ablation == "resample" and len(behaviour) < 2:
        raise CircuitError("Resampling draws other prompts, and this behaviour has a single pair.")
    return cast(Ablation, ablation)


class Replacement:
    """Gives each batch of examples what its writers are replaced by."""

    def __init__(
        self, model: Model, behaviour: Behaviour,
        ablation: str | Constants = "counterfactual", *, seed: int = 0, batch_size: int = 16,
        split: Collection[int] = (),
    ) -> None:  # fmt: skip
        """`split` are the layers that are split into neurons.

        Raises `CircuitError` for an ablation that these prompts cannot serve.
        """
        self.model, self.behaviour, self.seed, self.split = model, behaviour, seed, tuple(split)
        self.ablation = check_ablation(named(ablation), behaviour)
        self._everywhere: Written | None = None
        if isinstance(ablation, Constants):
            self._everywhere = _fitting(ablation.written, behaviour)
        elif self.ablation == "optimal":
            raise CircuitError(
                "Optimal constants are learned for the circuits that are measured, and there are "
                "none yet; learn them with optimal_constants and give these, or choose another "
                "ablation."
            )
        if self.ablation in ("mean", "mean-by-position"):
            self._everywhere = self._means(batch_size)
        if self.ablation == "zero":
            one = self._run(behaviour.corrupt.rows([0]), 0)
            self._everywhere = one.map(lambda x: torch.zeros_like(x[:, :1]))

    def __call__(self, where: slice) -> Written:
        """What replaces the writers of these examples."""
        if self._everywhere is not None:
            return self._everywhere
        if self.ablation == "resample":
            tokens = self.behaviour.corrupt.rows(drawn(self.behaviour, self.seed)[where])
        else:
            tokens = self.behaviour.corrupt.rows(where)
        return self._run(tokens, where.start)

    def _run(self, tokens: Tokens, first_row: int) -> Written:
        run = self.model.run(tokens, keep=sites(self.model, self.split))
        check_run(self.model, run, first_row, "corrupt")
        return written(self.model, run, self.split)

    def _means(self, size: int) -> Written:
        pooled = self.ablation == "mean"
        total: Written | None = None
        count = 0
        for start in range(0, len(self.behaviour), size):
            tokens = self.behaviour.corrupt.rows(slice(start, start + size))
            mask = tokens.mask.to(self.model.device)
            one = self._run(tokens, start).map(
                lambda x, real=mask: (
                    x[real].double().sum(dim=0)[None, None]
                    if pooled
                    else x.double().sum(dim=0, keepdim=True)
                )
            )
            count += int(mask.sum()) if pooled else len(tokens)
            total = one if total is None else _sum(total, one)
        assert total is not None
        return total.map(lambda x: (x / count).to(self.model.dtype))


def _fitting(constants: Written, behaviour: Behaviour) -> Written:
    """The constants, when they have as many positions as the prompts, or one for all."""
    given, width = constants.input.shape[1], behaviour.clean.ids.shape[1]
    if given not in (1, width):
        raise CircuitError(
            f"These constants are of {given} positions and the prompts have {width}; learn them "
            "without by_position, or on prompts of this length."
        )
    return constants


def _sum(one: Written, other: Written) -> Written:
    return Written(
        input=one.input + other.input,
        z=tuple(a + b for a, b in zip(one.z, other.z, strict=True)),
        mlp=tuple(a + b for a, b in zip(one.mlp, other.mlp, strict=True)),
        post={layer: x + other.post[layer] for layer, x in one.post.items()},
    )
