"""Hypotheses as values, known circuits, the shipped model, and what is refused."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.circuits.test_scrubbing import MIXED, WHOLE, hypothesis, prompts

import cutaway
from cutaway.circuits import Case, CircuitError, Graph, Hypothesis, Masked, Node, Scrubbed, scrub
from cutaway.circuits.features import Function, case_of, feature
from cutaway.circuits.hypotheses import REST
from cutaway.circuits.septet import HYPOTHESES, INDUCTION, IOI
from cutaway.circuits.septet import prompts as recurring
from cutaway.circuits.stand_ins import StandIns
from cutaway.model import Model, open_model
from cutaway.model.tiny import tiny
from cutaway.organisms import Organism, constructed


@cache
def organism(name: str) -> Organism:
    return constructed(name, n=400)


@cache
def gpt2() -> Masked:
    return Masked(open_model(tiny("gpt2")))


@cache
def septet() -> Model:
    return cutaway.open()


def changed(one: Hypothesis, name: str, **fields: Any) -> Hypothesis:
    """The hypothesis with one node different."""
    nodes = tuple(replace(n, **fields) if n.name == name else n for n in one.nodes)
    return replace(one, nodes=nodes)


def recovered(found: Organism, tried: Hypothesis, **options: Any) -> float:
    options = {"examples": 32, "samples": 2, "claims": False, **options}
    return scrub(found.model, found.behaviour, tried, **options).recovered.mean


# ── circuits that are known ───────────────────────────────────────────────────────────────────────


def earlier(case: Case) -> int:
    """Where the last token was first."""
    return case.tokens.index(case.tokens[-1])


def following(case: Case) -> int:
    """What came after it there."""
    return case.tokens[earlier(case) + 1]


def last(case: Case) -> int:
    return case.tokens[-1]


INDUCES = hypothesis(
    Node(name="copies", parts=("a1.h0",), agrees=following,
         reads={"q": ("last",), "k": ("previous",), "v": ("following",)}),
    Node(name="last", parts=("input",), agrees=last),
    Node(name="following", parts=("input",), agrees=feature(earlier) & following),
    Node(name="previous", parts=("a0.h1",), agrees=feature(earlier) & last,
         reads={"q": ("positions",), "k": ("positions",), "v": ("token",)}),
    Node(name="positions", parts=("input",), agrees="anything"),
    Node(name="token", parts=("input",), agrees=feature(earlier) & last),
)  # fmt: skip


@pytest.mark.parametrize("unimportant", ["together", "apart"])
def test_the_hypothesis_that_a_model_was_built_from_recovers_all(unimportant: str) -> None:
    assert recovered(organism("induction"), INDUCES, unimportant=unimportant) == pytest.approx(
        1, abs=1e-3
    )


@pytest.mark.parametrize(
    ("node", "fields"),
    [
        ("last", {"agrees": "anything"}),
        ("following", {"agrees": earlier}),
        ("previous", {"agrees": "anything"}),
        ("previous", {"parts": ("a0.h0",)}),
        ("copies", {"parts": ("a1.h1",)}),
        ("copies", {"agrees": last}),
    ],
)
def test_a_wrong_hypothesis_scores_low(node: str, fields: dict[str, object]) -> None:
    assert recovered(organism("induction"), changed(INDUCES, node, **fields)) < 0.3


def test_a_model_that_answers_from_one_part_needs_it_and_nothing_else() -> None:
    """Two other built models: their true parts as one node, or all the idle ones."""
    for name in ("histogram", "fraction"):
        found = organism(name)
        idle = tuple(
            str(writer) for writer in Graph.of(found.model).writers
            if str(writer) not in (*found.nodes, "input")
        )  # fmt: skip
        true = hypothesis(Node(name="true", parts=found.nodes, agrees=WHOLE))
        wrong = hypothesis(Node(name="idle", parts=idle, agrees=WHOLE))
        assert recovered(found, true) == pytest.approx(1, abs=0.02), name
        assert recovered(found, wrong) < 0.2, name


def test_claims_alone_and_nodes_taken_out() -> None:
    tried = changed(INDUCES, "last", agrees="anything")
    found = organism("induction")
    result = scrub(found.model, found.behaviour, tried, examples=32, samples=2)
    table: dict[str, dict[str, Any]] = {
        str(row["claim"]): {str(key): value for key, value in row.items()}
        for row in result.claims.to_dict("records")
    }
    assert list(table) == [*(node.name for node in tried.nodes), REST]
    for claim, row in table.items():
        assert row["alone_low"] <= row["alone"] <= row["alone_high"]
        assert (
            (row["alone"] < 0.3) if claim == "last" else row["alone"] == pytest.approx(1, abs=1e-3)
        )
    assert table["copies"]["without"] == 0
    assert np.isnan(table[REST]["without"])
    assert "alone" in str(result)
    without = scrub(
        found.model, found.behaviour, INDUCES.without("last"), examples=32, samples=2, claims=False
    )
    full = scrub(found.model, found.behaviour, INDUCES, examples=32, samples=2)
    np.testing.assert_allclose(
        full.without.sel(claim="last"), without.values.mean("draw"), atol=1e-4
    )


# ── the shipped model ─────────────────────────────────────────────────────────────────────────────

AS_IN_GPT2 = Hypothesis(
    name="as in GPT-2", description="The heads copy the name from where it stands.",
    nodes=(
        IOI.node("saying"),
        replace(IOI.node("copying"), reads={"v": ("name",)}),
        Node(name="name", parts=("input",), agrees="token at IO & place of IO"),
    ),
    logits=IOI.logits, within=IOI.within,
)  # fmt: skip


def of_septet(name: str, tried: Hypothesis) -> float:
    found = scrub(septet(), shared(name), tried, examples=48, samples=2, claims=False)
    return found.recovered.mean


@cache
def shared(name: str) -> cutaway.Behaviour:
    return recurring(name, septet(), n=300)


def test_the_built_in_hypotheses_hold_on_the_shipped_model() -> None:
    assert 0.8 < of_septet("ioi", IOI) < 1.3
    assert 0.9 < of_septet("induction", INDUCTION) < 1.15
    for name, tried in HYPOTHESES.items():
        draws = StandIns(shared(name), feature(tried.within), 0)
        for node in tried.nodes:  # every claim is put to the test
            assert float((draws.others(node.feature) == 0).mean()) < 0.1


@pytest.mark.parametrize(
    ("name", "tried"),
    [
        ("ioi", AS_IN_GPT2),
        ("ioi", changed(IOI, "copying", parts=("a1.h1", "a1.h4", "a2.h0", "a2.h1", "a3.h0"))),
        ("ioi", changed(IOI, "subject", agrees="token at IO")),
        ("induction", changed(INDUCTION, "saying", agrees="token at A1")),
        ("induction", changed(INDUCTION, "working out", agrees="token at A1")),
        ("induction", changed(INDUCTION, "gathering", parts=("a0.h2",))),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_wrong_hypotheses_about_the_shipped_model_score_low(name: str, tried: Hypothesis) -> None:
    assert of_septet(name, tried) < 0.35


# ── values ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("tried", [MIXED, IOI, INDUCTION], ids=lambda one: one.name)
def test_a_hypothesis_is_printed_and_saved(tried: Hypothesis, tmp_path: Path) -> None:
    again = Hypothesis.load(tried.save(tmp_path / "claims" / "one.json"))
    assert again == tried
    text = str(tried)
    assert all(node.name in text and str(node.agrees) in text for node in tried.nodes)


def test_functions_are_saved_by_name(tmp_path: Path) -> None:
    path = INDUCES.save(tmp_path / "one.json")
    functions = {"earlier": earlier, "following": following, "last": last}
    assert Hypothesis.load(path, functions) == INDUCES
    with pytest.raises(CircuitError, match=r"functions=\{'following'"):
        Hypothesis.load(path)
    for agrees in (lambda case: 0, feature(earlier) & Function("earlier", last)):
        with pytest.raises(CircuitError, match="is not the name of one alone"):
            one(agrees=agrees).save(path)


def test_features_see_tokens_labels_columns_answers_and_functions() -> None:
    pairs = prompts(6)
    both = feature("token at two & column parity") & Function(
        "length", lambda case: len(case.tokens)
    )
    assert str(both) == "token at two & column parity & function length"
    table = {
        "token at three": [20, 21, 22] * 2,
        "place of end": [5] * 6,
        "column parity": ["0", "1"] * 3,
        "the answer": [(5,), (6,), (7,)] * 2,
        "anything": [None] * 6,
    }
    cases = [case_of(pairs, row) for row in range(6)]
    for text, expected in table.items():
        assert [feature(text).of(case)[0] for case in cases] == expected
    assert len({feature(WHOLE).of(case) for case in cases}) == 6
    assert both.of(cases[1]) == (11, "1", 6)


def test_a_result_is_saved_with_what_was_claimed(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    found = scrub(
        gpt2(), prompts(12), MIXED, examples=[3, 0, 7], samples=2, batch_size=4, seed=1,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    again = Scrubbed.load(found.save(tmp_path / "scrubbed.nc"))
    assert str(again) == str(found)
    assert Hypothesis.of_record(again.hypothesis) == MIXED
    assert again.provenance["configuration"]["seed"] == 1
    assert list(again.values["example"].to_numpy()) == [3, 0, 7]
    assert again.claims.equals(found.claims)
    assert seen == [(1, 2), (2, 2)]


# ── what is refused ───────────────────────────────────────────────────────────────────────────────


def one(**fields: Any) -> Hypothesis:
    given: dict[str, Any] = {"name": "one", "parts": ("a1.h0",), "agrees": WHOLE, **fields}
    return hypothesis(Node(**given))


def nodes(*listed: tuple[str, str, dict[Any, tuple[str, ...]]], logits: str) -> Hypothesis:
    made = (Node(name=n, parts=(p,), agrees=WHOLE, reads=r) for n, p, r in listed)
    return hypothesis(*made, logits=(logits,))


WRONG: dict[str, tuple[Callable[[], Hypothesis], str]] = {
    "an unknown head": (lambda: one(parts=("a9.h0",)), r"'a9\.h0', which this model does not have"),
    "no part": (lambda: one(parts=()), "needs a tuple of at least one part"),
    "a text for parts": (lambda: one(parts="a0.h1"), "needs a tuple of at least one part"),
    "a part twice": (lambda: one(parts=("a1.h0", "a1.h0")), "names 'a1.h0' twice"),
    "no such label": (lambda: one(agrees="token at S3"), "no label 'S3'; they have two, three"),
    "no such column": (lambda: one(agrees="column order"), "no variation 'order'; they have p"),
    "no feature": (lambda: one(agrees="the mood"), "'the mood' is not a feature; give"),
    "a number": (lambda: one(agrees=3), "3 is not a feature; give"),
    "an unhashable value": (lambda: one(agrees=lambda case: [case]), "let it give something hash"),
    "a failing function": (lambda: one(agrees=lambda case: case.labels["x"]), "KeyError: 'x'"),
    "an unknown kind": (lambda: one(reads={"query": ()}), "some of q, k, v, mlp"),
    "a head's mlp": (lambda: one(reads={"mlp": ()}), "but has no MLP; leave 'mlp' out"),
    "an unknown node": (lambda: one(reads={"q": ("two",)}), "read 'two', which is no node of it"),
    "itself": (lambda: one(reads={"q": ("one",)}), r"goes in a circle \(one → one\)"),
    "a circle": (
        lambda: nodes(("a", "a1.h0", {"q": ("b",)}), ("b", "m0", {"mlp": ("a",)}), logits="a"),
        r"goes in a circle \(a → b → a\)",
    ),
    "an idle node": (
        lambda: nodes(("a", "a1.h0", {}), ("b", "m0", {}), logits="a"),
        "No path leads from the logits to the node 'b'",
    ),
    "a later part": (
        lambda: nodes(("a", "a0.h0", {"q": ("b",)}), ("b", "m1", {}), logits="a"),
        "m1 writes after it has read",
    ),
    "a part in two nodes": (
        lambda: hypothesis(
            Node(name="a", parts=("m0",), agrees=WHOLE),
            Node(name="b", parts=("m0",), agrees=WHOLE),
            logits=("a", "b"),
        ),
        "m0 stands twice among what the logits reads",
    ),
    "two of a name": (
        lambda: nodes(("a", "m0", {}), ("a", "m1", {}), logits="a"), "Two nodes are called 'a'",
    ),
    "a reserved name": (lambda: one(name=REST), "cannot be called 'everything else'"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(WRONG))
def test_what_does_not_fit_is_refused_in_a_sentence(name: str) -> None:
    make, message = WRONG[name]
    with pytest.raises(CircuitError, match=message) as refused:
        scrub(gpt2(), prompts(6), make())
    assert not re.search(r"[.;]\s+[A-Z]\w+.*\.\s+[A-Z]", str(refused.value))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"examples": 0}, "a number from 1 to the 6 prompts"),
        ({"examples": 7}, "found 7"),
        ({"examples": [1, 1]}, r"found \[1, 1\]"),
        ({"examples": [9]}, r"found \[9\]"),
        ({"samples": 0}, "samples must be a whole number of 1 or more; found 0"),
        ({"unimportant": "none"}, "unimportant is 'together' or 'apart'; found 'none'"),
        ({"metric": "luck"}, "There is no metric 'luck'"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(CircuitError, match=message):
        scrub(gpt2(), prompts(6), one(), **options)


def test_prompts_without_another_of_their_kind_are_refused() -> None:
    with pytest.raises(CircuitError, match="1 of the 1 prompts of 'tokens' have no other"):
        scrub(gpt2(), prompts(1), one())
    within = replace(one(), within="token at two & token at three")
    with pytest.raises(CircuitError, match="with the same token at two & token at three"):
        scrub(gpt2(), prompts(5), within)


def test_a_baseline_as_good_as_the_model_is_refused() -> None:
    same = prompts(2)
    twice = same.rows([0, 0])
    with pytest.raises(CircuitError, match="total effect of about zero"):
        scrub(gpt2(), twice, one())


def test_what_is_no_saved_hypothesis_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    with pytest.raises(CircuitError, match="is not a saved hypothesis"):
        Hypothesis.load(path)
    path.write_text('{"format": 1, "name": "x"}')
    with pytest.raises(CircuitError, match="not a saved hypothesis"):
        Hypothesis.load(path)
    path.write_text('{"format": 9}')
    with pytest.raises(CircuitError, match="has the format 9"):
        Hypothesis.load(path)


def test_built_in_prompts_say_what_there_is() -> None:
    with pytest.raises(
        CircuitError, match="no built-in hypothesis for 'capitals'; there are ioi, in"
    ):
        recurring("capitals", septet())
    with pytest.raises(CircuitError, match="n goes from 2 to 2000; found 1"):
        recurring("ioi", septet(), n=1)
