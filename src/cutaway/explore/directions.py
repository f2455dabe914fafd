"""Directions to steer in, as long as the stream is where they are added.

Adding a direction to the residual stream is activation addition (Turner et al. 2023, "Steering
Language Models With Activation Engineering"). There the difference of two prompts' streams is
added as it is; here a direction always has the length of the stream that it is added to (the median
over the prompt's positions), so that a strength of 1 means the same for every direction, layer and
model.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from cutaway.errors import InputError
from cutaway.model.model import Model


def towards(
    model: Model, stream: Float[Tensor, "1 position d_model"], token: str | int
) -> Float[Tensor, " d_model"]:
    """The direction of the stream that raises a token's logit most, through the final norm.

    `stream` is a run's residual stream, whose length the direction is given; `token` is a text of
    one token, or its number. Raises `InputError` for anything else.
    """
    number = model.single_token(token) if isinstance(token, str) else token
    if not 0 <= number < model.d_vocab:
        raise InputError(
            f"Tokens of {model.name} are numbered 0 to {model.d_vocab - 1}; found {number}."
        )
    read = model.logit_directions(torch.tensor([number]))[0]
    return _as_long_as(stream, model.frozen_norm.pull_back(read))


def between(
    stream: Float[Tensor, "1 position d_model"],
    plus: Float[Tensor, "1 plus_position d_model"],
    minus: Float[Tensor, "1 minus_position d_model"],
) -> Float[Tensor, " d_model"]:
    """The difference of two prompts' streams at their last tokens, as long as `stream` is.

    Raises `InputError` where they do not differ.
    """
    difference = (plus[0, -1] - minus[0, -1]).float()
    if not bool(difference.any()):
        raise InputError(
            "The two prompts leave the same stream at their last tokens, so there is no direction "
            "between them; choose prompts that differ, or a later layer."
        )
    return _as_long_as(stream, difference)


def _as_long_as(stream: Tensor, direction: Tensor) -> Tensor:
    length = stream[0].float().norm(dim=-1).median()
    return direction.to(length.device) / direction.norm() * length
