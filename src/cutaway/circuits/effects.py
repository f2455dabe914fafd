"""Which methods' scores are effects, and when there is a total effect at all."""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal

import numpy as np

from cutaway.behaviours.behaviour import Behaviour
from cutaway.circuits.graph import CircuitError

By = Literal["magnitude", "score"]
"""Whether edges are ranked by the size of their score, or by how much they support the behaviour:
the score itself, with its sign turned round for effects on a loss."""

RANKED_BY: MappingProxyType[str, By] = MappingProxyType(
    {
        "exact": "magnitude",
        "eap": "magnitude",
        "eap-ig": "magnitude",
        "eap-ig-activations": "magnitude",
        "clean-corrupt": "magnitude",
        "mask-gradient": "magnitude",
        "acdc": "score",
        "edge-pruning": "score",
        "subnetwork": "score",
        "atp-star": "magnitude",
        "information-flow": "score",
        "magnitude": "score",
        "random": "score",
    }
)
"""How each method's scores order its edges, the likeliest part of the circuit first.

Effects and their estimates count by their size: an edge that works against the metric is at work
too. Damage, learned masks and chance count as they are: their lowest scores are for edges that are
better off, and their size says nothing.
"""

_SMALLEST = 0.01


class NoEffectError(CircuitError):
    """A total effect of about zero, which nothing can be a fraction of."""


def check_gap(clean: np.ndarray, ablated: np.ndarray, behaviour: Behaviour | str) -> None:
    """Raise `NoEffectError` for a total effect of about zero of a behaviour, or of that name."""
    gap = float(clean.mean() - ablated.mean())
    size = float(np.abs(clean).mean() + np.abs(ablated).mean())
    if abs(gap) <= _SMALLEST * size:
        name = behaviour if isinstance(behaviour, str) else behaviour.name
        raise NoEffectError(
            f"The behaviour {name!r} has a total effect of about zero ({gap:.2g}, with "
            f"metrics of size {size / 2:.2g}), so no circuit is a fraction of it; use prompts "
            "whose clean and replaced runs differ, or another metric."
        )
