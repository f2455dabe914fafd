"""What a page asks to have changed, as values.

Each is frozen, can be compared and cached, and becomes an edit of the library (`edit`), or the
Python that makes the same edit (`script` writes the lines). Runs that an edit takes values from are
asked of a `Runner`, which may know them already.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from cutaway.errors import CutawayError
from cutaway.explore.directions import between, towards
from cutaway.model.edits import Edit, ablate, add, replace
from cutaway.model.model import Model
from cutaway.model.run import Run
from cutaway.model.sites import Site

ABLATED_OR_PATCHED = (
    "z",
    "attn_out",
    "mlp_post",
    "mlp_out",
    "resid_pre",
    "resid_mid",
    "resid_post",
)
"""Kinds of site that can be ablated or patched: heads, neurons, whole layers, the stream."""
STEERED = ("resid_pre", "resid_mid", "resid_post")
"""Kinds of site that a direction can be added to."""


class ExploreError(CutawayError):
    """A request that cannot be answered, or an explorer that cannot be served."""


class Runner(Protocol):
    """Whoever runs a prompt and keeps sites of it."""

    def __call__(self, prompt: str, keep: tuple[Site, ...]) -> Run:
        """The run."""
        ...


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """A part taken away."""

    site: Site
    """Which part."""
    position: int | None
    """At which position, counted from 0; None for all."""
    mode: Literal["zero", "mean"]
    """Whether it becomes zero, or its mean over the prompt's own positions."""

    def edit(self, model: Model, prompt: str, runner: Runner) -> Edit:
        """The edit of the library."""
        over = runner(prompt, (self.site.whole,)) if self.mode == "mean" else None
        return ablate(self.site, self.mode, over=over, position=self.position)


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A part that has, in place of its own, the value of another prompt's run."""

    site: Site
    """Which part."""
    position: int | None
    """At which position, counted from 0; None for all, which needs prompts of one length."""
    prompt: str
    """The other prompt."""
    source_position: int | None
    """The other prompt's position; None for the same one."""

    def edit(self, model: Model, prompt: str, runner: Runner) -> Edit:
        """The edit of the library. Raises `ExploreError` for prompts that do not line up."""
        other = runner(self.prompt, (self.site.whole,))
        lengths = (model.tokens(prompt).ids.shape[1], other.tokens.ids.shape[1])
        if self.position is None and lengths[0] != lengths[1]:
            raise ExploreError(
                f"The prompt has {lengths[0]} tokens and the other one {lengths[1]}, so they do "
                "not line up everywhere; patch at one token, or make them as long."
            )
        return replace(
            self.site,
            from_=other,
            position=self.position,
            from_position=self.source_position,
        )


@dataclass(frozen=True, kw_only=True)
class Steering:
    """A direction added to the residual stream: towards a token, or from one prompt to another."""

    site: Site
    """Where in the stream."""
    position: int | None
    """At which position, counted from 0; None for all."""
    strength: float
    """How much of it, in lengths of the stream there."""
    token: str | int | None
    """The token whose logit it raises, as text or number; None for a difference of prompts."""
    plus: str
    """The prompt that it leads to."""
    minus: str
    """The prompt that it leads from."""

    def edit(self, model: Model, prompt: str, runner: Runner) -> Edit:
        """The edit of the library."""
        keep = (self.site,)
        stream = runner(prompt, keep)[self.site]
        if self.token is not None:
            direction = towards(model, stream, self.token)
        else:
            ends = [runner(text, keep)[self.site] for text in (self.plus, self.minus)]
            direction = between(stream, ends[0], ends[1])
        return add(self.site, self.strength * direction, position=self.position)


Change = Ablation | Patch | Steering
"""Any of them."""
