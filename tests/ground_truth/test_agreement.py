"""Agreement with the truth, against pairs counted one by one and ties broken in every way."""

from itertools import combinations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from cutaway.circuits import METHODS, RANKED_BY, CircuitError, EdgeScores, Graph
from cutaway.ground_truth import agreement
from cutaway.ground_truth.agreement import auroc, precision

GRAPH = Graph(n_layers=1, n_heads=2, n_kv_heads=2, parallel=False)
TRUE = ("input->a0.h1<v>", "a0.h1->m0", "m0->logits")

units = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=12).filter(
    lambda pairs: 0 < sum(true for _, true in pairs) < len(pairs)
)


def arrays(pairs: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([float(score) for score, _ in pairs]), np.array([true for _, true in pairs])


def scores(method: str = "eap-ig", **values: float) -> EdgeScores:
    """Scores by edge, 0 where nothing is said; `W__R` stands for W->R."""
    names = [str(edge) for edge in GRAPH.edges]
    found = dict.fromkeys(names, 0.0) | values
    assert set(found) == set(names)
    both = xr.DataArray(np.zeros(2), dims="example")
    return EdgeScores(
        values=xr.DataArray(list(found.values()), {"edge": names}, ("edge",)),
        clean=both, ablated=both, graph=GRAPH, method=method, metric="logit_diff",
        ablation="counterfactual", provenance={},
    )  # fmt: skip


@given(units)
def test_auroc_is_the_share_of_pairs_in_the_right_order(pairs: list[tuple[int, bool]]) -> None:
    ranked, true = arrays(pairs)
    won = [(one > other) + 0.5 * (one == other) for one in ranked[true] for other in ranked[~true]]
    assert auroc(ranked, true) == pytest.approx(np.mean(won))


@given(units)
def test_precision_is_the_mean_over_all_ways_of_breaking_ties(
    pairs: list[tuple[int, bool]],
) -> None:
    ranked, true = arrays(pairs)
    many = int(true.sum())
    best = sorted(ranked)[-many:]
    ways = [
        true[list(chosen)].mean()
        for chosen in combinations(range(len(ranked)), many)
        if sorted(ranked[list(chosen)]) == best
    ]
    assert precision(ranked, true) == pytest.approx(np.mean(ways))


def test_perfect_scores_agree_and_their_sign_counts_only_where_it_should() -> None:
    right = dict.fromkeys(TRUE, -1.0)
    found = agreement(scores(**right), TRUE)
    assert (found.edges, found.nodes, found.precision) == (1.0, 1.0, 1.0)
    found = agreement(scores("edge-pruning", **right), TRUE)
    assert (found.edges, found.nodes, found.precision) == (0.0, 0.25, 0.0)
    assert set(RANKED_BY) == set(METHODS)


def test_nodes_by_hand() -> None:
    """True nodes are a0.h1 and m0; a0.h0, the only other one, is best but for m0."""
    found = agreement(scores(**{"m0->logits": 3.0, "a0.h0->logits": 2.0, "a0.h1->m0": 1.0}), TRUE)
    assert found.nodes == 0.5
    alone = agreement(scores(), ["input->logits"])
    assert np.isnan(alone.nodes)
    assert alone.edges == 0.5


def test_truth_that_does_not_fit_is_refused_in_a_sentence() -> None:
    with pytest.raises(CircuitError, match=r"no edge 'a0.h1->m3'.* no 'm3'; its nearest is 'm0'"):
        agreement(scores(), [*TRUE, "a0.h1->m3"])
    with pytest.raises(CircuitError, match=r"a0.h1<v> has read before m0 writes"):
        agreement(scores(), ["m0->a0.h1<v>"])
    with pytest.raises(CircuitError, match=r"true and untrue edges; found 0 of 13 true"):
        agreement(scores(), [])
    with pytest.raises(CircuitError, match=r"found 13 of 13 true"):
        agreement(scores(), GRAPH.edges)
