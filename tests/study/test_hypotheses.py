"""Roles of heads and MLPs: true ones are supported, wrong ones refuted, on models that we know."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import cutaway
from cutaway.behaviours import Behaviour
from cutaway.behaviours.shuffle import other_answers
from cutaway.errors import StudyError
from cutaway.model import Model
from cutaway.organisms import Organism, constructed
from cutaway.study import Hypotheses, RoleHypothesis, Settings, SkippedError, run
from cutaway.study import hypotheses as stage
from cutaway.study import tested as outcome
from cutaway.study.bench import Bench
from cutaway.study.hypotheses_section import section, summary
from cutaway.study.hypothesis import read_hypotheses
from cutaway.study.nothing import twin
from cutaway.study.role_tests import ROLES, measure
from cutaway.study.stage import Inputs
from cutaway.study.stating import Observer

FEW = Settings(discovery_examples=32, evaluation_examples=24)


def inputs(model: Model, behaviour: Behaviour, settings: Settings = FEW) -> Inputs:
    return Inputs(
        model=model, behaviour=behaviour, settings=settings, results={}, origin={},
        tick=lambda _done, _of: None,
    )  # fmt: skip


@cache
def organism(name: str) -> Organism:
    return constructed(name, n=32)


def verdicts_of(made: Organism, stated: Sequence[RoleHypothesis]) -> dict[str, str]:
    """Each hypothesis's verdict on a model whose circuit is known."""
    bench = Bench(made.model, made.behaviour)
    found: list[outcome.Tested] = []
    for each in stated:
        conditions = measure(bench, each)
        assert not isinstance(conditions, str), conditions
        found.append(outcome.Tested(hypothesis=each, origin="stated", conditions=conditions))
    verdicts, _ = outcome.decided(found, stage.present(bench), seed=0)
    return {str(each.hypothesis): each.verdict for each in verdicts}


def parts_of(made: Organism) -> dict[str, str]:
    """Every head and MLP as a hypothesis writes it, by its name in the graph."""
    layers = range(made.model.n_layers)
    heads = {f"a{layer}.h{head}": f"{layer}.{head}"
             for layer in layers for head in range(made.model.n_heads)}  # fmt: skip
    return heads | {f"m{layer}": f"mlp {layer}" for layer in layers}


# ── what is known ────────────────────────────────────────────────────────────────────────────


def test_controls_are_drawn_from_all_layers() -> None:
    model = cutaway.open()
    bench = Bench(model, cutaway.behaviour("ioi", model, n=4))
    drawn = [bench.others(("head_out.2.2",)) for bench.seed in range(20)]
    assert all(len(each) == len(set(each)) == 8 for each in drawn)
    layers = [int(part.split(".")[1]) for each in drawn for (part,) in each]
    shares = np.bincount(layers, minlength=model.n_layers) / len(layers)
    assert (np.abs(shares - 1 / model.n_layers) < 0.1).all()


@pytest.mark.parametrize("name", ["induction", "brackets", "fraction"])
def test_what_the_program_uses_is_needed_and_all_else_does_not_matter(name: str) -> None:
    made = organism(name)
    every = parts_of(made)
    found = verdicts_of(made, [RoleHypothesis(part, role) for part in every.values()
                          for role in ("needed", "does not matter")])  # fmt: skip
    for node, part in every.items():
        used = node in made.nodes
        who = str(RoleHypothesis(part, "needed")).removesuffix(" is needed")
        assert found[f"{who} is needed"] == ("supported" if used else "refuted"), who
        assert found[f"{who} does not matter"] == ("refuted" if used else "supported"), who


@pytest.mark.parametrize("name", ["induction", "brackets"])
def test_what_the_program_reads_is_fed_and_no_other_path_is(name: str) -> None:
    made = organism(name)
    every = parts_of(made)
    stated: dict[str, RoleHypothesis] = {}
    for sender, part in every.items():
        for reader, into in every.items():
            if reader[1] > sender[1] or (reader[1] == sender[1] and sender[0] + reader[0] == "am"):
                ways = [f"{reader}<{kind}>" for kind in "qkv"] if reader[0] == "a" else [reader]
                for way in ways:
                    through = f" through {way[-2]}" if reader[0] == "a" else ""
                    stated[f"{sender}->{way}"] = RoleHypothesis(part, f"feeds {into}{through}")
    found = verdicts_of(made, list(stated.values()))
    fed = {edge for edge, each in stated.items() if found[str(each)] == "supported"}
    true = set(made.edges) & set(stated)
    # in brackets, keys and values carry the same, so that one of them alone moves few pairs
    assert fed == true - ({"m0->a1.h1<k>", "m0->a1.h1<v>"} if name == "brackets" else set())
    assert fed
    refuted = {edge for edge, each in stated.items() if found[str(each)] == "refuted"}
    assert refuted == set(stated) - true


def test_the_last_part_of_the_program_writes_the_answer_and_is_enough() -> None:
    made = organism("induction")
    found = verdicts_of(made, [RoleHypothesis(part, role) for part in ("1.0", "0.1", "1.1")
                          for role in ("writes the answer", "enough")])  # fmt: skip
    assert [who for who, verdict in found.items() if verdict == "supported"] == [
        "head 1.0 writes the answer", "head 1.0 is enough",
    ]  # fmt: skip
    refuted = [who for who, verdict in found.items() if verdict == "refuted"]
    assert refuted == [
        "head 0.1 writes the answer", "head 1.1 writes the answer", "head 1.1 is enough",
    ]  # fmt: skip


def test_the_constructed_heads_attend_as_they_were_built_to() -> None:
    made = organism("induction")
    roles = "attends along previous token", "attends along induction"
    found = verdicts_of(
        made, [RoleHypothesis(part, role) for part in ("0.1", "1.0", "1.1") for role in roles]
    )
    assert found["head 0.1 attends along previous token"] == "supported"
    assert found["head 1.0 attends along induction"] == "supported"
    assert [*found.values()].count("supported") == 2


def test_the_opposite_direction_is_refuted_and_a_size_is_held_to() -> None:
    made = organism("induction")
    found = verdicts_of(made, [
        RoleHypothesis("1.0", "needed", against=True), RoleHypothesis("1.0", "needed", size=0.9),
        RoleHypothesis("1.0", "needed", size=3.0),
    ])  # fmt: skip
    assert found["head 1.0 is needed (against the behaviour)"] == "refuted"
    # the last one stated stands for its name: three times the behaviour is too much
    assert found["head 1.0 is needed"] == "refuted"
    assert verdicts_of(made, [RoleHypothesis("1.0", "needed", size=0.9)]) == {
        "head 1.0 is needed": "supported"
    }


def test_parts_are_moved_as_one() -> None:
    made = organism("sort")
    bench = Bench(made.model, made.behaviour)
    both = bench.moved(("head_out.1.1", "head_out.1.2"), "noise").mean()
    assert both > max(
        bench.moved((one,), "noise").mean() for one in ("head_out.1.1", "head_out.1.2")
    )
    assert bench.moved(("head_out.2.0",), "noise") == pytest.approx(0, abs=1e-3)


# ── the shipped model ────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def shipped() -> Model:
    return cutaway.open()


@pytest.fixture(scope="module")
def ioi(shipped: Model) -> Hypotheses:
    return stage.test(inputs(shipped, cutaway.behaviour("ioi", shipped, n=80)))


def test_who_does_ioi_is_named_and_each_role_confirmed_on_other_prompts(ioi: Hypotheses) -> None:
    supported = {str(each.hypothesis) for each in ioi.of("supported", origin="observed")}
    assert {
        "MLP 4 writes the answer", "head 2.2 writes the answer", "head 1.3 writes the answer",
        "head 2.4 writes the answer", "head 2.2 attends from end to S2",
        "MLP 0 feeds 2.2 through v", "MLP 0 feeds 1.3 through v", "head 2.2 feeds MLP 4",
    } <= supported  # fmt: skip
    assert not ioi.of("refuted", origin="observed")
    assert ioi.chosen_on == 32
    assert ioi.tested_on == 24


def test_a_deliberately_wrong_hypothesis_is_refuted(ioi: Hypotheses) -> None:
    wrong = ioi.of("supported", "undecided", "refuted", origin="wrong")
    assert [each.verdict for each in wrong] == ["refuted"]
    assert wrong[0].says.startswith("the head that writes most in ")


def test_where_the_strongest_head_writes_here_too_the_next_one_is_the_wrong_one(
    shipped: Model,
) -> None:
    pairs = cutaway.behaviour("acronyms", shipped, n=40)
    observer = Observer(shipped, pairs, followed=3, seed=0)
    wrong = next(observer.wrong())
    assert wrong.says == "a head that writes in ioi and next to nothing here"
    assert not set(wrong.hypothesis.parts) & set(observer.writers)


def test_where_it_differs_from_the_published_circuit_is_said(ioi: Hypotheses) -> None:
    assert len(ioi.of("refuted", origin="published")) == 3
    told = section(ioi).sentences
    assert any(
        "Wang et al. 2022" in each and "GPT-2 small" in each and "attends from end to IO" in each
        and "MLP 4 writes the answer too, and there only heads do" in each
        for each in told
    )  # fmt: skip
    assert any("A wrong one was tested" in each and each.endswith("refuted.") for each in told)
    assert "MLP 4 write the answer" in summary(ioi)
    assert "MLP 0 feeds the values of heads 2.2, " in summary(ioi)


def test_the_table_has_every_hypothesis_with_its_numbers(ioi: Hypotheses) -> None:
    table = section(ioi).table
    assert table is not None
    assert [row[-1] for row in table.rows] == [each.verdict for each in ioi.tested]
    assert all("asked for" in row[2] for row in table.rows)


def test_what_is_saved_comes_back(ioi: Hypotheses, tmp_path: Path) -> None:
    again = Hypotheses.load(ioi.save(tmp_path / "roles.nc"))
    for one, other in zip(ioi.tested, again.tested, strict=True):
        assert (one.hypothesis, one.verdict, one.origin) == (
            other.hypothesis, other.verdict, other.origin,
        )  # fmt: skip
        for first, second in zip(one.conditions, other.conditions, strict=True):
            np.testing.assert_array_equal(first.margins, second.margins)
            assert first.holds == second.holds


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_found_on_the_untrained_twin_or_with_shuffled_answers(
    shipped: Model, seed: int
) -> None:
    pairs = cutaway.behaviour("ioi", shipped, n=80, seed=seed)
    stated = (RoleHypothesis("2.2", "writes the answer"), RoleHypothesis("mlp 0", "needed"))
    for model, rows in (
        (twin(shipped, seed), pairs), (shipped, other_answers(pairs, random.Random(seed)))
    ):  # fmt: skip
        with pytest.raises(SkippedError, match="No part can have a role in what is not there"):
            stage.test(inputs(model, rows))
        found = stage.test(inputs(model, rows, replace(FEW, hypotheses=stated)))
        assert not found.of("supported")


def test_too_few_prompts_do_not_say_that_the_behaviour_is_not_there(shipped: Model) -> None:
    few = cutaway.behaviour("ioi", shipped, n=8)  # six to observe on: p is 1/32 at least
    with pytest.raises(SkippedError, match=r"With 6 prompts no role can be tested.*give more"):
        stage.test(inputs(shipped, few))


def test_stated_hypotheses_take_the_place_of_the_studys_own(shipped: Model, tmp_path: Path) -> None:
    pairs = cutaway.behaviour("ioi", shipped, n=40)
    stated = RoleHypothesis("2.2", "writes the answer"), RoleHypothesis("mlp 3", "needed", size=0.5)
    settings = replace(FEW, hypotheses=stated)
    done = run(shipped, pairs, tmp_path / "s", settings=settings, stages=["hypotheses"])
    verdicts = [each.verdict for each in done.hypotheses.tested if each.origin == "stated"]
    assert verdicts == ["supported", "refuted"]
    assert "observed" not in {each.origin for each in done.hypotheses.tested}
    assert summary(done.hypotheses) == "Of 2 stated hypotheses 1 supported and 1 refuted."
    # they are settings: the same ones compute nothing, and the manifest has them
    again = run(shipped, pairs, tmp_path / "s", settings=settings, stages=["hypotheses"])
    assert again.computed == ()
    assert "RoleHypothesis(parts=('head_out.2.2',)" in again.manifest.python
    assert again.manifest.settings["hypotheses"][1]["size"] == 0.5


# ── bad input ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("parts", "role", "said"),
    [
        (
            "9.0",
            "needed",
            r"names head 9\.0, which there is not: .* layers 0 to 1 with heads 0 to 3",
        ),
        ("mlp 2", "needed", "names MLP 2, which there is not"),
        ("0.4", "copies", r"names head 0\.4, which there is not"),
        ("0.0", "feeds 7.1", r"names head 7\.1, which there is not"),
        ("1.0", "feeds 0.1", r"has no path: head 1\.0 writes after"),
        ("0.0", "is clever", "There is no role 'is clever'; .*writes the answer, needed, enough"),
        ("0.0", "attends from end to IO", "names the position 'IO', and the prompts have end"),
        ("0.0", "attends along time", "names the relation 'time'; there are previous token"),
        ("mlp 0", "attends along induction", "is about an MLP, which has no attention"),
    ],
)
def test_hypotheses_about_what_is_not_there_are_refused_before_anything_runs(
    parts: str, role: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = organism("induction")
    settings = Settings(hypotheses=(RoleHypothesis(parts, role),))
    with pytest.raises(StudyError, match=said):
        stage.check(settings, made.model, made.behaviour)
    monkeypatch.setattr(Model, "run", lambda *_: pytest.fail("the model was run"))
    with pytest.raises(StudyError, match=said):
        run(made.model, made.behaviour, tmp_path / "study", settings=settings)
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"parts": "nine", "role": "needed"}, "'nine' is neither a head nor an MLP"),
        ({"parts": [], "role": "needed"}, r"names one part or several; found \[\]"),
        ({"parts": ["0.1", "head 0.1"], "role": "needed"}, "names each part once"),
        ({"parts": "0.1", "role": " "}, "has a role in words"),
        ({"parts": "0.1", "role": "needed", "size": -1}, "a size of 0 or more; found -1"),
        ({"parts": "0.1", "role": "needed", "size": True}, "a size of 0 or more; found True"),
        ({"parts": "0.1"}, "lacks 'role'; it takes parts, role, size, against"),
        ({"parts": "0.1", "role": "needed", "p": 1}, "has 'p'; it takes parts"),
    ],
)  # fmt: skip
def test_a_file_names_the_entry_at_fault(given: object, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps([{"parts": "0.0", "role": "needed"}, given]), "utf-8")
    with pytest.raises(StudyError, match=f"Hypothesis 2 of .*{said}"):
        read_hypotheses(path)


def test_toml_and_json_say_the_same(tmp_path: Path) -> None:
    toml, other = tmp_path / "mine.toml", tmp_path / "mine.json"
    toml.write_text(
        '[[hypothesis]]\nparts = ["1.3", "mlp 4"]\nrole = "writes the answer"\nsize = 0.1\n'
        '[[hypothesis]]\nparts = "head 0.0"\nrole = "needed"\nagainst = true\n', "utf-8",
    )  # fmt: skip
    other.write_text(json.dumps({"hypothesis": [
        {"parts": ["head_out.1.3", "mlp_out.4"], "role": "writes the answer", "size": 0.1},
        {"parts": "0.0", "role": "needed", "against": True},
    ]}), "utf-8")  # fmt: skip
    assert read_hypotheses(toml) == read_hypotheses(other)
    assert read_hypotheses(toml)[0].parts == ("head_out.1.3", "mlp_out.4")


def test_files_that_hold_no_hypothesis_are_refused(tmp_path: Path) -> None:
    for name, text, said in (
        ("a.toml", "", "states no hypothesis"), ("b.toml", "= 1", "neither TOML nor JSON"),
        ("c.json", "[1]", "Hypothesis 1 of .* is not a table"),
    ):  # fmt: skip
        (tmp_path / name).write_text(text, "utf-8")
        with pytest.raises(StudyError, match=said):
            read_hypotheses(tmp_path / name)
    with pytest.raises(StudyError, match="cannot be read"):
        read_hypotheses(tmp_path / "none.toml")
    with pytest.raises(StudyError, match="hypotheses are RoleHypothesis"):
        Settings(hypotheses=("2.2 writes",))  # pyright: ignore[reportArgumentType]


# ── verdicts ─────────────────────────────────────────────────────────────────────────────────


def made_up(mean: float, *, decides: bool = True, n: int = 20) -> outcome.Condition:
    each = mean + 0.1 * np.random.default_rng(0).standard_normal(n)
    return outcome.condition("x", each, each, bound=0.0, unit="logits", decides=decides)


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([made_up(1.0)], "supported"),
        ([made_up(1.0), made_up(-1.0)], "refuted"),
        ([made_up(1.0), made_up(-1.0, decides=False)], "undecided"),
        ([made_up(1.0), made_up(0.0)], "undecided"),
        ([made_up(1.0, n=4)], "undecided"),
        ([], "undecided"),
    ],
)
def test_verdicts(conditions: list[outcome.Condition], expected: str) -> None:
    one = outcome.Tested(
        hypothesis=RoleHypothesis("0.0", "needed"), origin="stated", conditions=tuple(conditions)
    )
    there = (made_up(1.0),)
    assert outcome.decided([one], there, seed=0)[0][0].verdict == expected
    # where the behaviour is not, nothing is supported
    assert outcome.decided([one], (made_up(0.0),), seed=0)[0][0].verdict != "supported"


def test_p_values_are_corrected_for_all_that_is_tested() -> None:
    barely = made_up(0.045, n=40)
    alone = outcome.Tested(
        hypothesis=RoleHypothesis("0.0", "needed"), origin="stated", conditions=(barely,)
    )
    assert outcome.decided([alone], (), seed=0)[0][0].verdict == "supported"
    among = [alone, *[replace(alone, conditions=(made_up(0.0),)) for _ in range(40)]]
    assert outcome.decided(among, (), seed=0)[0][0].verdict == "undecided"


def test_every_role_can_be_read_back_from_its_name() -> None:
    filled = {"PART": "0.1", "LABEL": "end", "RELATION": "induction"}
    for name, role in ROLES.items():
        words = " ".join(filled.get(word, word) for word in name.split())
        assert role.form.fullmatch(words), name
