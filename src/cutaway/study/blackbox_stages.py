"""The stages that ask, still from outside, what the behaviour depends on.

Each is skipped, with its reason, where the prompts do not allow it: prompts given as tokens cannot
have text added, those written by hand have no slots that may be changed, and without words that
vary nothing can be said of how common they are.
"""

from __future__ import annotations

from cutaway.errors import BehaviourError
from cutaway.study.blackbox import BlackBox
from cutaway.study.blackbox_flipped import Flips
from cutaway.study.blackbox_flips import flips
from cutaway.study.blackbox_frequency import Frequency, frequency
from cutaway.study.blackbox_insertions import Insertions, insertions
from cutaway.study.stage import Inputs, SkippedError


def distract(inputs: Inputs) -> Insertions:
    """Other text around the prompts."""
    settings = inputs.settings
    try:
        return insertions(
            inputs.model, inputs.behaviour, examples=settings.distractor_examples,
            seed=settings.seed, progress=inputs.tick,
        )  # fmt: skip
    except BehaviourError as error:
        raise SkippedError(str(error)) from error


def flip(inputs: Inputs) -> Flips:
    """The smallest changes that flip the answer."""
    settings = inputs.settings
    try:
        return flips(
            inputs.model, inputs.behaviour, examples=settings.flip_examples,
            passes=max(settings.flip_passes, settings.flip_examples), seed=settings.seed,
            progress=inputs.tick,
        )  # fmt: skip
    except BehaviourError as error:
        raise SkippedError(str(error)) from error


def common(inputs: Inputs) -> Frequency:
    """Whether the behaviour is stronger for common words."""
    each = inputs.of(BlackBox).each("logit_diff")
    try:
        return frequency(inputs.model, inputs.behaviour, each, seed=inputs.settings.seed)
    except BehaviourError as error:
        raise SkippedError(str(error)) from error
