"""AtP*: every node's effect to first order, so that cancelling paths are seen (Kramár et al. 2024).

arXiv:2403.00745. The nodes are the input, heads and MLPs; each is patched, by estimate, with what
takes its place when all its edges are off:

1. attribution patching of every node in the clean run, all positions together;
2. GradDrop: once for each layer, the same without the gradient through what that layer adds to the
   stream, so that a direct and an indirect effect that cancel are still seen; the mean of the
   absolute values, with the sign of the estimate of step 1.

It is `cutaway.attribution_patching` with the method `atp*`, whose module says how it deviates. The
paper's other half, the fix for queries and keys, is for nodes that are not writers of this graph.

The score of an edge is its writer's, so edges out of one writer tie.
"""

from __future__ import annotations

import numpy as np
import torch

from cutaway.circuits.discovery.setting import Setting
from cutaway.circuits.graph import CircuitError
from cutaway.patch.gradients import attribution_patching_at
from cutaway.patch.sources import Mode

_MODES: dict[str, Mode] = {
    "counterfactual": "noise", "mean": "mean", "zero": "zero", "resample": "resample",
}  # fmt: skip


def atp_star(setting: Setting) -> np.ndarray:
    """(edge, example)."""
    mode = _MODES.get(setting.replacement.ablation)
    if mode is None:
        raise CircuitError(
            "The method 'atp-star' serves the ablations counterfactual, mean, zero and resample; "
            f"found {setting.replacement.ablation!r}."
        )
    for _ in setting.batches():
        pass  # both ends of the metric
    nodes = setting.kept("nodes", lambda: {"effect": _nodes(setting, mode)})["effect"]
    edges = torch.from_numpy(nodes).T[:, None].expand(-1, len(setting.graph.readers), -1)
    return setting.edges(edges)


def _nodes(setting: Setting, mode: Mode) -> np.ndarray:
    """(writer, example): how much of the metric each writer is worth."""
    found = attribution_patching_at(
        setting.on.model, setting.behaviour,
        {"resid_pre": "layer", "head_out": ("layer", "head"), "mlp_out": "layer"},
        mode=mode, method="atp*", metric=setting.metric, verify=0, seed=setting.seed,
        batch_size=setting.batch_size, progress=setting.progress,
    )  # fmt: skip
    lost = {
        site: (one.effects.clean - one.effects.values).transpose(..., "example").to_numpy()
        for site, one in found.items()
    }
    return np.stack([
        lost["resid_pre"][0] if writer.kind == "input"
        else lost["head_out"][writer.layer, writer.head] if writer.kind == "head"
        else lost["mlp_out"][writer.layer]
        for writer in setting.graph.writers
    ])  # fmt: skip
