"""Gradients in the mask itself, by autograd through the masked forward.

Along the straight line on which all edges together go from off to on, the metric's slope in each
edge's mask is averaged over `steps` points in the middle of the steps. The scores of all edges then
add up to the total effect (Sundararajan et al. 2017): each edge's share of what the whole graph
does. With `steps=0` it is the slope at the clean run alone, which is EAP by another derivation.

It costs a masked forward and backward pass for each point, and the memory of all readers' inputs;
EAP and EAP-IG need neither. It is the reference for them, and the only complete method of the three
over all edges.
"""

from __future__ import annotations

import numpy as np
import torch

from cutaway.circuits.batch import Batch
from cutaway.circuits.checks import whole_number
from cutaway.circuits.discovery.eap_ig import middles
from cutaway.circuits.discovery.setting import Setting, Step


def mask_gradient(setting: Setting, *, steps: int = 5) -> np.ndarray:
    """(edge, example)."""
    points = middles(whole_number("steps", steps, 0)) or [1.0]

    def scores(batch: Batch, step: Step) -> torch.Tensor:
        total = torch.zeros(())
        for point in points:
            total = total + _slopes(setting, batch, point) / len(points)
            step()
        return total

    return setting.over_batches(scores, len(points))


def _slopes(setting: Setting, batch: Batch, point: float) -> torch.Tensor:
    """(row, reader, writer): one prompt at a time, each with a mask of its own."""
    found: list[torch.Tensor] = []
    for row in range(len(batch)):
        one = slice(row, row + 1)
        kept = torch.full((1, *setting.graph.valid.shape), point, requires_grad=True)
        logits = setting.on.end_logits(
            batch.tokens.rows(one), kept, batch.replacement.rows(one), batch.end[one]
        )
        reference = None if batch.reference is None else batch.reference[one]
        value = setting.metric(logits[0], batch.rows.rows(one), reference=reference)
        found.append(torch.autograd.grad(value.sum(), [kept])[0])
    return torch.cat(found).cpu()
