"""How well edge scores agree with a circuit that is known.

Edges are ranked as their method ranks them (`RANKED_BY`: effects by magnitude, learned masks and
damage as they are). Then

- **AUROC over edges**: the chance that a true edge is ranked above an untrue one, ties half
  (Conmy et al. 2023, arXiv:2304.14997, section 4): 1 is perfect and ½ is chance. With ranks r
  (ties their mean), P true and N untrue edges it is (Σ r(true) − P (P + 1) / 2) / (P N);
- **AUROC over nodes**: the same over heads and MLPs. A node is true when some true edge leaves it,
  and is ranked by its best edge, as it enters a growing circuit with its first;
- **precision at the true size**: of as many best edges as are true, the share that is. Where a tie
  runs across that size, it is the mean over all ways of breaking it.

`input` is no node here: it is part of every circuit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.stats import rankdata

from cutaway.circuits import RANKED_BY, CircuitError, Edge, EdgeScores


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How well scores agree with the truth; see the module."""

    edges: float
    """AUROC over edges."""
    nodes: float
    """AUROC over heads and MLPs; NaN where all or none of them are true."""
    precision: float
    """The share of true edges among as many best ones."""


def agreement(scores: EdgeScores, true: Sequence[str | Edge]) -> Agreement:
    """Compare a method's scores with the edges that are true.

    Raises `CircuitError` for an edge that the model does not have, and when all edges or none are
    true.
    """
    graph = scores.graph
    mask = graph.mask(true)
    is_true = mask[graph.valid]
    if not is_true.any() or is_true.all():
        raise CircuitError(
            f"Ground truth has true and untrue edges; found {int(is_true.sum())} of "
            f"{len(is_true)} true."
        )
    signed = RANKED_BY[scores.method] == "score"
    matrix = scores.matrix if signed else np.abs(scores.matrix)
    ranked = matrix[graph.valid]
    best = np.nanmax(matrix[:, 1:], axis=0)  # without the input
    return Agreement(
        edges=auroc(ranked, is_true),
        nodes=auroc(best, np.asarray(mask[:, 1:].any(axis=0))),
        precision=precision(ranked, is_true),
    )


def auroc(ranked: Float[ndarray, " unit"], true: Bool[ndarray, " unit"]) -> float:
    """The chance that something true is ranked above something untrue; NaN without either."""
    many, others = int(true.sum()), int((~true).sum())
    if not many or not others:
        return float("nan")
    below = float(rankdata(ranked)[true].sum()) - many * (many + 1) / 2
    return below / (many * others)


def precision(ranked: Float[ndarray, " unit"], true: Bool[ndarray, " unit"]) -> float:
    """Of the best ones, as many as are true, the share that is true."""
    many = int(true.sum())
    last = np.sort(ranked)[-many]
    above, level = ranked > last, ranked == last
    share = float(true[level].mean())
    return (float(true[above].sum()) + (many - int(above.sum())) * share) / many
