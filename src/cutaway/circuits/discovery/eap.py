"""Edge attribution patching (Syed, Rager & Conmy 2023, arXiv:2310.10348).

The first-order effect of switching each edge off, from two forward passes and one backward pass:

1. run the clean prompts and the replacement, and keep what every writer writes;
2. run the clean prompts with a backward pass, for the gradient at every reader's input;
3. score(w → r) = Σ (current_w − replacement_w) · gradient_r, per example (see `attribution`).

Deviations: the sign, so that positive scores support the metric; readers' gradients pass the
reader's own norm, so that an edge ends in the residual stream.
"""

from __future__ import annotations

import numpy as np

from cutaway.circuits.attribution import Attribution, Slopes
from cutaway.circuits.discovery.setting import Setting


def eap(setting: Setting) -> np.ndarray:
    """(edge, example)."""
    attribution = Attribution(setting.on)
    return setting.over_batches(lambda batch, _: attribution.scores(batch, Slopes(batch)))
