"""Clean–corrupt: EAP with the mean of the gradients at the two ends.

Hanna et al. 2024 (arXiv:2403.17806), section 4: in place of a path, the gradient is taken at the
clean and at the corrupt prompts, and averaged: the trapezium rule with two points. As they are two
prompts' gradients, it serves the counterfactual ablation alone.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from cutaway.circuits.attribution import Attribution, Slopes
from cutaway.circuits.batch import Batch
from cutaway.circuits.discovery.setting import Setting, Step
from cutaway.circuits.graph import CircuitError


def clean_corrupt(setting: Setting) -> np.ndarray:
    """(edge, example)."""
    if setting.replacement.ablation != "counterfactual":
        raise CircuitError(
            "The method 'clean-corrupt' takes gradients at the corrupt prompts, and serves the "
            f"ablation 'counterfactual' alone; found {setting.replacement.ablation!r}."
        )
    attribution = Attribution(setting.on)

    def scores(batch: Batch, _: Step) -> Tensor:
        at_clean = attribution.scores(batch, Slopes(batch))
        return (at_clean + attribution.scores(batch, Slopes(batch, batch.rows.corrupt))) / 2

    return setting.over_batches(scores)
