"""Baselines that a method has to beat: chance, and how much a writer's output changes.

- `random`: uniform scores, drawn with the seed, which know nothing;
- `magnitude`: ‖replacement_w − current_w‖ per example, for every edge out of w alike: it knows what
  differs between the prompts, and nothing of what the metric reads.
"""

from __future__ import annotations

import numpy as np
import torch

from cutaway.circuits.batch import Batch
from cutaway.circuits.discovery.setting import Setting, Step


def random(setting: Setting) -> np.ndarray:
    """(edge,)."""
    for done, _ in enumerate(setting.batches(), start=1):
        setting.done(done, setting.n_batches)
    unit = setting.unit[setting.graph.valid]
    return np.random.default_rng(setting.seed).random(int(unit.max()) + 1)[unit]


def magnitude(setting: Setting) -> np.ndarray:
    """(edge, example)."""

    def scores(batch: Batch, _: Step) -> torch.Tensor:
        real = batch.tokens.mask[:, batch.start :, None]
        norms: list[torch.Tensor] = []
        for change in batch.changes(batch.start):
            with torch.no_grad():
                norms.append((change.linear() * real).float().flatten(2).norm(dim=2))
        return torch.cat(norms).T[:, None].expand(-1, len(setting.graph.readers), -1)

    return setting.over_batches(scores)
