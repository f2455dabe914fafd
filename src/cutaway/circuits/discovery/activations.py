"""EAP with gradients integrated along activations.

Integrated gradients of what the writers write, instead of the input (Marks et al. 2024,
arXiv:2403.19647; `EAP-IG (activations)` in Hanna et al. 2024 and in the MIB benchmark):

1. for the input, each layer's attention (all its heads together) and each MLP, one at a time, run
   the clean prompts with that part's output at  replacement + α (clean − replacement)  for each of
   `steps` points α in the middle of the steps, with a backward pass;
2. the edges that start in that part are scored with the mean of those gradients.

So the scores of a part's edges add up to the effect of patching that part alone. It costs
(2 · layers + 1) · steps backward passes. Deviation: the authors' code adds all parts' gradients up
for all edges alike; here each edge is scored along its own writer's path. Unlike the path of
inputs, it serves every kind of ablation.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from cutaway.circuits.attribution import Attribution, Slopes
from cutaway.circuits.batch import Batch
from cutaway.circuits.checks import whole_number
from cutaway.circuits.discovery.eap_ig import INPUT, Between, middles
from cutaway.circuits.discovery.setting import Setting, Step
from cutaway.circuits.graph import Graph
from cutaway.model.sites import Site


def eap_ig_activations(setting: Setting, *, steps: int = 5) -> np.ndarray:
    """(edge, example)."""
    steps = whole_number("steps", steps, 1)
    attribution = Attribution(setting.on)

    def scores(batch: Batch, step: Step) -> Tensor:
        total = torch.zeros((), device=setting.on.model.device)
        for site, columns, replaced, clean in parts(setting.graph, batch):
            for point in middles(steps):
                slopes = Slopes(batch, taps=[Between(site, replaced, clean, point)])
                total = total + attribution.scores(batch, slopes, columns) / steps
                step()
        return total

    return setting.over_batches(scores, steps * (2 * setting.graph.n_layers + 1))


def parts(graph: Graph, batch: Batch) -> Iterator[tuple[Site, slice, Tensor, Tensor]]:
    """Each part's site, its columns, what replaces its output, and its clean output."""
    other, clean = batch.replacement, batch.clean
    yield INPUT, slice(0, 1), other.input, clean.input
    for layer in range(graph.n_layers):
        yield Site("z", layer), graph.columns(layer, "head"), other.z[layer], clean.z[layer]
        mlp = graph.columns(layer, "mlp")
        if layer in graph.alone:
            yield Site("mlp_post", layer), mlp, other.post[layer], clean.post[layer]
        else:
            yield Site("mlp_out", layer), mlp, other.mlp[layer], clean.mlp[layer]
