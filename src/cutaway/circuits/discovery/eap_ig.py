"""EAP with integrated gradients (Hanna, Pezzelle & Belinkov 2024, arXiv:2403.17806).

The gradient at the clean prompts alone misses effects where the metric is flat there; here it is
averaged along a path on which the input goes from the replacement to the clean prompts:

1. as EAP, but in place of step 2, for each of `steps` points α of the path, run the clean prompts
   with the stream that enters the first layer at  replacement + α (clean − replacement), with a
   backward pass;
2. score each edge with the mean of the gradients, and the same differences of writers as EAP.

The scores of the edges out of `input` add up to the total effect, exactly as the number of steps
grows (completeness; Sundararajan et al. 2017), as long as the metric does not jump on the way. A
mixture of experts does, where a router changes its choice of experts: such a jump is in no
gradient, and no edge is given it. `EdgeScores.completeness` says how much of the effect the scores
share out; that what is missing is the jumps and nothing else, a test says for each such family.

Points lie in the middle of the steps, which converges faster than at their ends, where the paper
takes them; and the path is that of the whole input, positions included, which is the same wherever
positions do not differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cutaway.circuits.attribution import Attribution, Slopes
from cutaway.circuits.batch import Batch
from cutaway.circuits.checks import whole_number
from cutaway.circuits.discovery.setting import Setting, Step
from cutaway.circuits.graph import CircuitError
from cutaway.model.ports import Passing
from cutaway.model.sites import Site

INPUT = Site("resid_pre", 0)
"""The stream as it enters the first layer."""


def eap_ig(setting: Setting, *, steps: int = 5) -> np.ndarray:
    """(edge, example)."""
    steps = whole_number("steps", steps, 1)
    if setting.replacement.ablation not in ("counterfactual", "resample"):
        raise CircuitError(
            f"The ablation {setting.replacement.ablation!r} replaces the input by what no prompt "
            "leads to, so there is no path from it; use counterfactual or resample, or the method "
            "'eap-ig-activations'."
        )
    attribution = Attribution(setting.on)

    def scores(batch: Batch, step: Step) -> Tensor:
        total = torch.zeros((), device=setting.on.model.device)
        for point in middles(steps):
            tap = Between(INPUT, batch.replacement.input, batch.clean.input, point)
            part = attribution.scores(batch, Slopes(batch, taps=[tap])) / steps
            total = part + total
            step()
        return total

    return setting.over_batches(scores, steps)


def middles(steps: int) -> list[float]:
    """The middles of equal steps from 0 to 1."""
    return [(step + 0.5) / steps for step in range(steps)]


@dataclass(frozen=True)
class Between:
    """The tap that puts a site between two values."""

    site: Site
    """Where."""
    start: Tensor
    """The value at 0; axes of size 1 serve all rows or positions."""
    stop: Tensor
    """The value at 1."""
    point: float
    """How far between."""

    def wants(self, site: Site) -> bool:
        """Whether this is the place."""
        return site == self.site

    def __call__(self, site: Site, x: Tensor, now: Passing) -> Tensor:
        """The value in between."""
        return torch.lerp(self.start.to(x).expand_as(x), self.stop.to(x), self.point)
