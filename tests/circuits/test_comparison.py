"""Overlap against chance: worked out by counting, by hand, and by shuffling."""

from itertools import combinations
from math import comb
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from tests.circuits.each_family import batch, masked

from cutaway.behaviours import Behaviour
from cutaway.circuits import (
    Circuit,
    CircuitError,
    Comparison,
    Crossing,
    EdgeScores,
    Graph,
    compare,
    cross,
)
from cutaway.circuits.controls import alike
from cutaway.circuits.depth import Cells
from cutaway.circuits.overlap import against_chance, holm

SMALL = Graph(n_layers=2, n_heads=4, n_kv_heads=4, parallel=False)
DEEP = Graph(n_layers=4, n_heads=2, n_kv_heads=1, parallel=False)


def scored(graph: Graph, values: np.ndarray) -> EdgeScores:
    return EdgeScores(
        values=xr.DataArray(values, {"edge": [str(edge) for edge in graph.edges]}, ("edge",)),
        clean=xr.DataArray(np.ones(2), dims="example"),
        ablated=xr.DataArray(np.zeros(2), dims="example"),
        graph=graph, method="eap-ig", metric="logit_diff", ablation="mean", provenance={},
    )  # fmt: skip


def drawn(graph: Graph, share: float, seed: int) -> Circuit:
    kept = (np.random.default_rng(seed).random(graph.valid.shape) < share) & graph.valid
    return Circuit(graph=graph, kept=kept)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 2)), min_size=1, max_size=9))
def test_chance_is_what_counting_every_set_gives(things: list[tuple[bool, bool, int]]) -> None:
    one, other, strata = (np.array(column) for column in zip(*things, strict=True))
    found = against_chance(one, other, strata)
    shared: list[int] = []
    for chosen in combinations(range(len(one)), int(other.sum())):
        held = np.isin(np.arange(len(one)), chosen)
        if all((held & (strata == s)).sum() == (other & (strata == s)).sum() for s in range(3)):
            shared.append(int((one & held).sum()))
    either = np.maximum(one.sum() + other.sum() - np.array(shared), 1)
    assert found.shared == (one & other).sum()
    assert found.expected == pytest.approx(float(np.mean(np.array(shared) / either)))
    assert found.p == pytest.approx(np.mean(np.array(shared) >= found.shared))


def test_one_stratum_is_the_hypergeometric() -> None:
    one, other = np.arange(50) < 10, (np.arange(50) >= 6) & (np.arange(50) < 18)
    found = against_chance(one, other, np.zeros(50, dtype=int))
    tail = sum(comb(10, k) * comb(40, 12 - k) for k in range(4, 11)) / comb(50, 12)
    assert (found.shared, found.jaccard) == (4, pytest.approx(4 / 18))
    assert found.p == pytest.approx(tail)


def test_chance_of_the_same_shape_is_what_shuffling_gives() -> None:
    one, other = drawn(SMALL, 0.3, 1), drawn(SMALL, 0.4, 2)
    found = compare({"a": one, "b": other})
    generator = np.random.default_rng(0)
    shared = np.array([(one.kept & alike(other, generator)).sum() for _ in range(2000)])
    jaccard = shared / (len(one) + len(other) - shared)
    at = {"circuit": "a", "other": "b", "level": "edges", "null": "shape"}
    expected, p = float(found.expected.sel(at)), float(found.p.sel(at))
    assert expected == pytest.approx(jaccard.mean(), abs=4 * jaccard.std() / np.sqrt(2000))
    own = (one.kept & other.kept).sum()
    assert p == pytest.approx((shared >= own).mean(), abs=4 * np.sqrt(p * (1 - p) / 2000))


def test_p_values_are_uniform_where_there_is_only_chance() -> None:
    one, generator = drawn(SMALL, 0.3, 0), np.random.default_rng(0)
    small = [
        float(compare({"a": one, "b": Circuit(graph=SMALL, kept=alike(one, generator))})
              .p.sel(circuit="a", other="b", level="edges", null="shape"))
        for _ in range(60)
    ]  # fmt: skip
    assert np.mean(np.array(small) <= 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 60)
    assert np.mean(small) == pytest.approx(0.55, abs=0.15)


FIRST = Circuit.of(SMALL, ["input->a0.h0<v>", "a0.h0->m1", "m1->logits", "a1.h2->logits"])
SECOND = Circuit.of(SMALL, ["a0.h0->m1", "m1->logits", "a1.h3->logits", "m0->logits"])


def test_levels_and_parts_by_hand(tmp_path: Path) -> None:
    values = np.zeros(len(SMALL))
    places = [list(map(str, SMALL.edges)).index(str(edge)) for edge in FIRST.edges]
    values[places] = [4.0, -3.0, 1.0, -2.0]
    scores = {"one": scored(SMALL, values), "two": scored(SMALL, np.arange(len(SMALL)) * 1.0)}
    found = compare({"one": FIRST, "two": SECOND}, scores=scores)
    pair = {"circuit": "one", "other": "two"}
    assert float(found.similarity.sel({**pair, "level": "edges"})) == pytest.approx(2 / 6)
    # heads and MLPs: a0.h0, m1, a1.h2 against a0.h0, m1, a1.h3, m0
    assert float(found.similarity.sel({**pair, "level": "nodes"})) == pytest.approx(2 / 5)
    assert found.sizes.sel(circuit="two").to_numpy().tolist() == [4, 4]
    assert float(found.rank_correlation.sel(pair)) == pytest.approx(
        spearmanr(values, np.arange(len(SMALL))).statistic
    )
    weights = found.parts().set_index("part")
    by_name = dict(zip(map(str, FIRST.edges), (4.0, 3.0, 1.0, 2.0), strict=True))
    assert weights.loc["m1", "one"] == pytest.approx(by_name["m1->logits"] / 10)
    assert weights["one"].sum() == pytest.approx(1)
    assert set(weights.index[weights["circuits"] == 2]) == {"a0.h0", "m1"}
    assert set(found.parts(least=2)["part"]) == {"a0.h0", "m1"}
    swapped = found.p.transpose("null", "level", "other", "circuit").to_numpy()
    np.testing.assert_array_equal(found.p.to_numpy(), swapped)
    found.save(tmp_path / "comparison.nc")
    loaded = Comparison.load(tmp_path / "comparison.nc")
    assert str(loaded) == str(found)
    assert "a0.h0 (2)" in str(found)
    assert "rank_correlation" in str(found)
    assert "rank_correlation" not in str(compare({"one": FIRST, "two": SECOND}))
    drawing = loaded.plot("nodes")
    assert "what circuits share of their nodes" in drawing.title.lower()
    assert 'data-grid="cells"' in str(drawing.svg)


def test_the_same_circuit_shares_all_and_more_than_chance() -> None:
    circuit = drawn(SMALL, 0.2, 3)
    found = compare({"a": circuit, "b": circuit, "c": drawn(SMALL, 0.2, 4)})
    table = found.table("size").set_index(["level", "circuit", "other"])
    same, other = table.loc[("edges", "a", "b")], table.loc[("edges", "a", "c")]
    assert same["similarity"] == 1
    assert same["p_corrected"] < 1e-6 < same["by_chance"]
    assert other["p"] > 0.01


def test_holm_by_hand() -> None:
    found = holm(np.array([0.01, 0.04, np.nan, 0.03, 0.9]))
    np.testing.assert_allclose(found, [0.04, 0.09, np.nan, 0.09, 0.9])


def test_models_of_other_depths_are_compared_by_depth() -> None:
    with pytest.raises(CircuitError, match=r"different graphs.*counterparts; compare by='depth'"):
        compare({"a": FIRST, "b": drawn(DEEP, 0.2, 0)})
    early = Circuit.of(SMALL, ["input->a0.h0<q>", "input->a0.h1<q>"])
    deep_early = Circuit.of(DEEP, ["input->a0.h0<q>", "input->a1.h1<q>"])
    deep_late = Circuit.of(DEEP, ["input->a2.h0<q>", "input->a3.h1<q>"])
    found = compare({"a": early, "b": deep_early, "c": deep_late}, by="depth", bins=2, draws=99)
    alike_at = found.similarity.sel(level="depth", circuit="a")
    assert alike_at.to_numpy().tolist() == [1, 1, 0]
    assert float(found.p.sel(null="size", level="depth", circuit="a", other="c")) == 1
    assert float(found.p.sel(null="size", level="depth", circuit="a", other="b")) <= 0.05
    table = found.table()
    assert set(table["level"]) == {"depth"}
    late = Circuit.of(DEEP, ["m3->logits", "a3.h0->logits"])
    parts = compare({"a": early, "b": late}, by="depth", bins=2).parts()
    assert set(parts["part"]) >= {"input", "heads at 0.5–1", "MLPs at 0.5–1"}


def test_a_random_circuit_lies_where_the_graphs_edges_do() -> None:
    cells = Cells.of(DEEP, 2)
    whole = cells.shares(DEEP.valid)
    assert whole.sum() == pytest.approx(1)
    drawn_shares = cells.drawn(10, 400, np.random.default_rng(0)).mean(axis=0)
    np.testing.assert_allclose(drawn_shares, whole, atol=0.05)


def test_cross_faithfulness_is_that_of_each_mask(pairs: Behaviour, tmp_path: Path) -> None:
    on = masked("gpt2")
    circuits = {name: drawn(on.graph, share, 5) for name, share in (("a", 0.3), ("b", 0.7))}
    behaviours = {"all": pairs, "some": pairs.rows([0, 2, 4])}
    found = cross(on, circuits, behaviours, batch_size=2)
    for name, behaviour in behaviours.items():
        at = batch(on, behaviour)
        gap = (at.ends[0] - at.ends[1]).mean()
        for circuit, one in circuits.items():
            value = at.values(one.mask[None])[0].mean()
            kept = found.faithfulness(circuit, name)
            assert kept.mean == pytest.approx((value - at.ends[1].mean()) / gap, abs=1e-3)
            assert kept.low <= kept.mean <= kept.high
    found.save(tmp_path / "crossing.nc")
    loaded = Crossing.load(tmp_path / "crossing.nc")
    assert str(loaded) == str(found)
    assert loaded.provenance["some"]["behaviour"]["examples"] == 3
    assert 'data-grid="cells"' in str(loaded.plot().svg)


def test_bad_input_is_refused_in_a_sentence() -> None:
    with pytest.raises(CircuitError, match="two circuits or more; found 1"):
        compare({"a": FIRST})
    with pytest.raises(CircuitError, match="'b' has no edge to compare"):
        compare({"a": FIRST, "b": Circuit.of(SMALL, [])})
    with pytest.raises(CircuitError, match="by 'edges' or 'depth'; found 'heads'"):
        compare({"a": FIRST, "b": SECOND}, by="heads")  # type: ignore[arg-type]
    with pytest.raises(CircuitError, match="scores 'c' belong to no circuit here"):
        compare({"a": FIRST, "b": SECOND}, scores={"c": scored(SMALL, np.zeros(len(SMALL)))})
    with pytest.raises(CircuitError, match="bins and draws count from 1; found 0 and 200"):
        compare({"a": FIRST, "b": SECOND}, by="depth", bins=0)
    found = compare({"a": FIRST, "b": SECOND})
    with pytest.raises(CircuitError, match="'size' or 'shape'; found 'kind'"):
        found.table("kind")  # type: ignore[arg-type]
    with pytest.raises(CircuitError, match="no level 'layers' here; choose of edges, nodes"):
        found.plot("layers")
    with pytest.raises(CircuitError, match="Give circuits and behaviours; found 1 and 0"):
        cross(masked("gpt2"), {"a": FIRST}, {})
    with pytest.raises(CircuitError, match="built otherwise"):
        cross(masked("gpt2"), {"a": drawn(DEEP, 0.5, 0)}, {"b": None})  # type: ignore[dict-item]
