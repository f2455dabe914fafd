"""Following paths backwards from the logits, round by round.

As the circuit of Wang et al. 2022, "Interpretability in the Wild", section 3, was found: (1) patch
the paths from every head to the logits and take the strongest heads; (2) for the queries, the keys
and the values of those heads apart, patch the paths from every earlier head into them, and take the
strongest again; and so on. "Strongest" is the mean effect by magnitude; what is followed is for the
reader to judge, and every step keeps the effects of all heads, per example.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cutaway.behaviours.behaviour import Behaviour
from cutaway.behaviours.metrics import Metric
from cutaway.model.model import Model
from cutaway.model.sites import Site
from cutaway.patch.cells import SweepError
from cutaway.patch.effects import Effects
from cutaway.patch.paths import path_patch
from cutaway.patch.sources import Mode

Input = Literal["q", "k", "v"]
"""What a head reads the stream as."""


@dataclass(frozen=True, kw_only=True)
class PathStep:
    """One set of receivers, and the heads that reach it."""

    receivers: tuple[str, ...]
    """What the paths lead into."""
    effects: Effects
    """(layer, head, example): every head's effect along its paths into them."""
    strongest: tuple[str, ...]
    """The heads with the largest mean effect by magnitude, the largest first."""


@dataclass(frozen=True, kw_only=True)
class PathTrail:
    """The steps from the logits backwards."""

    steps: tuple[PathStep, ...]
    """The logits first; then one step for each input of each round."""

    def __str__(self) -> str:
        return "\n".join(
            f"{', '.join(step.receivers)} ← {', '.join(step.strongest)}" for step in self.steps
        )


def iterate_paths(
    model: Model,
    behaviour: Behaviour,
    *,
    rounds: int = 2,
    k: int = 3,
    inputs: Sequence[Input] = ("q", "k", "v"),
    mode: Mode = "denoise",
    metric: str | Metric | None = None,
    batch_size: int | None = None,
) -> PathTrail:
    """Path patching from the logits backwards, `rounds` times.

    Each round's receivers are one of `inputs` of the `k` strongest heads of each step of the round
    before. It ends early when no head writes before those read. The settings are those of
    `path_patch`. Raises `SweepError`.
    """
    for name, value in (("rounds", rounds), ("k", k)):
        if value < 1:
            raise SweepError(f"{name} must be a whole number of 1 or more; found {value}.")
    if not inputs or set(inputs) - {"q", "k", "v"}:
        raise SweepError(f"inputs must be some of q, k, v; found {', '.join(inputs) or 'none'}.")
    steps: list[PathStep] = []
    receivers: list[list[Site]] = [[Site("logits")]]
    for _ in range(rounds):
        last: list[PathStep] = []
        for into in receivers:
            effects = path_patch(
                model, behaviour, "head_out", into, mode=mode, metric=metric,
                batch_size=batch_size,
            )  # fmt: skip
            last.append(
                PathStep(
                    receivers=tuple(map(str, into)), effects=effects,
                    strongest=_strongest(effects, into, k),
                )
            )  # fmt: skip
        steps += last
        heads = sorted({Site.parse(name) for step in last for name in step.strongest})
        receivers = [
            into for kind in inputs if (into := _inputs(model, kind, heads))
        ]  # fmt: skip
        if not receivers:
            break
    return PathTrail(steps=tuple(steps))


def _strongest(effects: Effects, into: Sequence[Site], k: int) -> tuple[str, ...]:
    """The strongest heads among those that write before a receiver reads."""
    layers = [site.layer for site in into if site.layer is not None]
    earlier = effects.mean if not layers else effects.mean.sel(layer=slice(0, max(layers) - 1))
    ranked = abs(earlier).stack(at=("layer", "head")).to_series().sort_values(ascending=False)
    return tuple(f"head_out.{layer}.{head}" for layer, head in list(ranked.index)[:k])


def _inputs(model: Model, kind: str, heads: Sequence[Site]) -> list[Site]:
    """One input of heads: shared, for keys and values, where heads are grouped.

    Heads of layer 0 read nothing that a head has written, and are left out.
    """
    shared = kind != "q" and model.anatomy.d_key is None
    group = model.n_heads // model.n_kv_heads if shared else 1
    found = {
        Site(kind, site.layer, site.index // group)
        for site in heads
        if site.layer and site.index is not None
    }
    return sorted(found)
