"""Edge pruning: a mask over edges, learned (Bhaskar et al. 2024, arXiv:2406.16778).

1. Give every edge a hard-concrete mask (see `hard_concrete`), on at first.
2. Minimise the divergence from the clean run plus  λ₁ (t − s) + λ₂ (t − s)²,  where s is the
   expected share of edges that are off and t the target share, which grows from 0 to `target` over
   the first `warm_up` of the steps; λ₁ and λ₂ are learned upwards, so that the target is met.
3. The score of an edge is its log α: above 0, the edge is more likely on than off.

Deviations: masks on edges alone, where the authors also mask whole writers; examples are taken in
turn; and several masks are drawn in each step.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cutaway.circuits.discovery.hard_concrete import Learner
from cutaway.circuits.discovery.setting import Setting
from cutaway.circuits.graph import CircuitError


def edge_pruning(
    setting: Setting, *, target: float = 0.9, steps: int = 300, rate: float = 0.1,
    warm_up: float = 0.7,
) -> np.ndarray:  # fmt: skip
    """(edge,): log α of the edge, or of what it is switched together with."""
    if not 0 < target < 1 or not 0 < warm_up <= 1:
        raise CircuitError(
            "target is the share of edges to switch off, between 0 and 1, and warm_up a share of "
            f"the steps; found {target!r} and {warm_up!r}."
        )
    weights = torch.zeros(2, requires_grad=True)

    def penalty(share: Tensor, step: int) -> Tensor:
        lacking = target * min(1.0, (step + 1) / (warm_up * steps)) - (1 - share)
        return weights[0] * lacking + weights[1] * lacking.square()

    unit = torch.as_tensor(setting.unit)
    learner = Learner(
        setting=setting, unit=unit, penalty=penalty, steps=steps, rate=rate, weights=weights
    )
    return learner.learn()[unit[unit >= 0]].numpy()
