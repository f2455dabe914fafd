"""Subnetwork probing on heads and MLPs (Cao, Sanh & Rush 2021, arXiv:2104.03514).

A hard-concrete mask (see `hard_concrete`) for each writer: off, all edges out of it are off. The
loss is the divergence from the clean run plus `penalty` times the expected share of writers that
are on. As in the comparison of Conmy et al. 2023, masks are on nodes, replaced activations are the
setting's (not zero), and no weights are learned.

The score of an edge is its writer's log α, so edges out of one writer tie.
"""

from __future__ import annotations

import numpy as np
import torch

from cutaway.circuits.discovery.hard_concrete import Learner
from cutaway.circuits.discovery.setting import Setting
from cutaway.circuits.graph import CircuitError


def subnetwork(
    setting: Setting, *, penalty: float = 0.5, steps: int = 200, rate: float = 0.1
) -> np.ndarray:
    """(edge,): log α of the writer, or of its part of the layer."""
    if not penalty >= 0:
        raise CircuitError(f"The penalty must be 0 or more; found {penalty!r}.")
    unit = torch.as_tensor(setting.unit)
    found = Learner(
        setting=setting, unit=unit, penalty=lambda share, _: penalty * share, steps=steps, rate=rate
    ).learn()
    return found[unit[unit >= 0]].numpy()
