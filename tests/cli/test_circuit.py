"""`cutaway circuit`: what it prints is what it saved, and what is finished is not done again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_model import save_model
from typer.testing import Result

import cutaway
from cutaway.circuits import (
    Circuit,
    Comparison,
    Curve,
    EdgeScores,
    Evaluation,
    Graph,
    discover,
    greedy,
    smallest,
    top_n,
)
from cutaway.circuits.exports import FORMATS

Command = Callable[..., Result]
Refused = Callable[..., str]
QUICK = ("--n", 8, "--seed", 1, "--quick")


def given(model: Path, *more: object) -> tuple[object, ...]:
    return ("circuit", "ioi", "-m", model, *QUICK, *more)


def test_one_method_is_what_its_functions_give(
    command: Command, model_directory: Path, tmp_path: Path
) -> None:
    formats = [word for name in FORMATS if name != "json" for word in ("--format", name)]
    result = command(*given(model_directory, "--edges", "20%", *formats))
    assert result.exit_code == 0, result.output
    out = tmp_path / result.stdout.splitlines()[-1].removeprefix("Saved: ")
    assert out == tmp_path / "cutaway-circuits/ioi-small"
    model = cutaway.open(model_directory)
    pairs = cutaway.behaviour("ioi", model, n=8, seed=1)
    expected = discover(model, pairs.split("train"), "eap-ig", seed=1)
    scores = EdgeScores.load(out / "eap-ig.scores.nc")
    np.testing.assert_allclose(scores.mean, expected.mean, rtol=1e-5, atol=1e-7)
    chosen = greedy(scores, round(0.2 * len(scores.graph)))
    for one in FORMATS.values():
        loaded = Circuit.load(out / f"eap-ig.circuit{one.endings[0]}", model=model)
        assert loaded.edges == chosen.edges
    evaluation = Evaluation.load(out / "eap-ig.evaluation.nc")
    assert evaluation.values.sizes["example"] == len(pairs.split("held-out"))
    assert evaluation.circuit.edges == chosen.edges
    assert str(evaluation.faithfulness) in result.stdout
    assert str(evaluation) in result.stdout
    curve = Curve.load(out / "eap-ig.curve.nc")
    assert str(curve.cpr) in result.stdout
    assert curve.by == "magnitude"


def test_a_split_graph_and_a_methods_steps_are_those_of_python(
    command: Command, model_directory: Path, tmp_path: Path
) -> None:
    asked = ("--positions", "S2,end", "--neurons", 1, "--steps", 2, "--edges", 9, "--out", "split")
    result = command(*given(model_directory, *asked))
    assert result.exit_code == 0, result.output
    model = cutaway.open(model_directory)
    pairs = cutaway.behaviour("ioi", model, n=8, seed=1).split("train")
    graph = Graph.of(model, positions=("S2", "end"), neurons=[1])
    expected = discover(model, pairs, "eap-ig", graph=graph, steps=2, seed=1)
    scores = EdgeScores.load(tmp_path / "split/eap-ig.scores.nc")
    assert scores.graph == graph
    np.testing.assert_allclose(scores.mean, expected.mean, rtol=1e-5, atol=1e-7)
    svg = (tmp_path / "split/eap-ig.circuit.svg").read_text(encoding="utf-8")
    assert "The circuit" in svg
    again = command(
        *given(model_directory, *asked[:-2], "--out", "split", "--granularity", "nodes")
    )
    assert again.exit_code == 0, again.output
    together = EdgeScores.load(tmp_path / "split/eap-ig.scores.nc")
    assert len(np.unique(together.mean)) < len(np.unique(scores.mean))


def test_methods_and_earlier_circuits_are_compared(
    command: Command, model_directory: Path, tmp_path: Path
) -> None:
    asked = given(model_directory, "--edges", 12, "--out", "x", "--select", "top", "--by", "score")
    first = command(*asked, "--metric", "prob_diff")
    assert first.exit_code == 0, first.output
    own = tmp_path / "x/eap-ig.circuit.json"
    earlier = Circuit.load(own).save(tmp_path / "mine.dot")
    result = command(*asked, "--metric", "prob_diff", "--method", "eap-ig", "--method", "magnitude",
                     "--compare", earlier, "--compare", own)  # fmt: skip
    assert result.exit_code == 0, result.output
    assert [line for line in result.stderr.splitlines() if "kept" in line and "eap-ig" in line]
    found = Comparison.load(tmp_path / "x/comparison.nc")
    assert found.sizes["circuit"].to_numpy().tolist() == [
        "eap-ig", "magnitude", "mine", "x/eap-ig"
    ]  # fmt: skip
    same = {"circuit": "eap-ig", "other": "mine", "level": "edges"}
    assert float(found.similarity.sel(same)) == 1
    assert str(found) in result.stdout
    rows = {line.split()[0]: line for line in result.stdout.splitlines() if line.split()}
    assert re.findall(r"\[.*?\]", rows["mine"])[0] == re.findall(r"\[.*?\]", rows["eap-ig"])[0]
    scores = EdgeScores.load(tmp_path / "x/eap-ig.scores.nc")
    assert scores.metric == "prob_diff"
    kept = Circuit.load(tmp_path / "x/eap-ig.circuit.json")
    assert kept.edges == top_n(scores, 12, by="score").edges


def test_a_comparison_does_not_outlive_its_run(
    command: Command, model_directory: Path, tmp_path: Path
) -> None:
    """Nor do earlier circuits; what another method found is kept, and said."""
    alone = given(model_directory, "--edges", 9, "--out", "x")
    earlier = tmp_path / "mine.json"
    assert "Of earlier runs" not in command(*alone).stdout
    Circuit.load(tmp_path / "x/eap-ig.circuit.json").save(earlier)
    more = command(*alone, "--method", "eap-ig", "--method", "random", "--compare", earlier)
    assert more.exit_code == 0, more.output
    files = {path.name for path in (tmp_path / "x").iterdir()}
    assert {"comparison.nc", "crossing.nc", "random.circuit.json"} <= files
    result = command(*alone)
    assert result.exit_code == 0, result.output
    left = {path.name for path in (tmp_path / "x").iterdir()}
    assert files - left == {"comparison.nc", "crossing.nc"}
    assert "Of earlier runs, perhaps with other settings: random\n" in result.stdout
    assert "crossing" not in json.loads((tmp_path / "x/circuits.json").read_text())["stages"]


def test_a_single_pair_to_evaluate_on(
    refused: Refused, model_directory: Path, tmp_path: Path
) -> None:
    given = ("circuit", "ioi", "-m", model_directory, "--n", 12, "--held-out", 0.05)
    assert "on 2 pairs or more; 1 of 12 is held out; give more" in refused(*given)


def test_only_what_depends_on_a_setting_is_done_again(
    command: Command, model_directory: Path, tmp_path: Path
) -> None:
    def kept(*more: object) -> list[str]:
        result = command(*given(model_directory, "--out", "x", *more))
        assert result.exit_code == 0, result.output
        return re.findall(r"eap-ig: (\w+) +kept", result.stderr)

    assert kept() == []
    assert kept() == ["scores", "circuit", "evaluation", "sizes"]
    assert kept("--edges", 9) == ["scores", "sizes"]
    assert kept("--edges", 9, "--by", "score") == ["scores"]
    assert kept("--edges", 9, "--by", "score", "--ablation", "zero", "--method", "eap") == []
    (tmp_path / "x/eap-ig.circuit.json").write_text("{}")
    assert kept("--edges", 9, "--by", "score") == ["scores", "evaluation", "sizes"]
    assert Circuit.load(tmp_path / "x/eap-ig.circuit.json")


def test_the_smallest_circuit_is_chosen_on_the_prompts_of_discovery(
    command: Command, model_directory: Path, tmp_path: Path
) -> None:
    asked = given(model_directory, "--edges", "smallest", "--method", "exact", "--out", "x")
    result = command(*asked)
    assert result.exit_code == 0, result.output
    found = Circuit.load(tmp_path / "x/exact.circuit.json")
    scores = EdgeScores.load(tmp_path / "x/exact.scores.nc")
    model = cutaway.open(model_directory)
    train = cutaway.behaviour("ioi", model, n=8, seed=1).split("train")
    assert found.edges == smallest(model, train, scores, seed=1).edges
    assert len(found) < len(found.graph)


# Every report of progress by discovery is told; after the one that is wanted, the process waits to
# be ended.
RUN = """
import sys, time
from cutaway.cli import main
from cutaway.circuits.discovery.setting import Setting
last, steps, done = int(sys.argv.pop(1)), 0, Setting.done
def told(setting, *given):
    global steps
    steps += 1
    done(setting, *given)
    print("step", steps, file=sys.stderr, flush=True)
    time.sleep(60 if steps == last else 0)
Setting.done = told
sys.argv[0] = "cutaway"
main()
"""


def start(last: int, *words: object, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(last), *map(str, words)], cwd=cwd, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "COLUMNS": "100"},
    )  # fmt: skip


def end(child: subprocess.Popen[str], after: int, by: signal.Signals) -> str:
    assert child.stderr is not None
    for line in child.stderr:
        if line.strip().endswith(f"step {after}"):
            child.send_signal(by)
            break
    return child.communicate(timeout=300)[1]


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT])
def test_an_ended_run_goes_on_to_the_same_files(
    command: Command, model_directory: Path, tmp_path: Path, by: signal.Signals
) -> None:
    words = given(model_directory, "--method", "eap-ig", "--method", "exact", "--edges", 15)
    whole = command(*words, "--out", "whole")
    assert whole.exit_code == 0, whole.output
    child = start(8, *words, "--out", "ended", cwd=tmp_path)
    said = end(child, 8, by)
    assert child.returncode == (-signal.SIGKILL if by == signal.SIGKILL else 130), said
    if by == signal.SIGINT:
        assert "What is finished is kept in ended; the same command goes on" in " ".join(
            said.split()
        )
        assert "Traceback" not in said
    assert not (tmp_path / "ended/exact.scores.nc").exists()
    again = command(*words, "--out", "ended")
    assert again.exit_code == 0, again.output
    assert re.findall(r"eap-ig: (\w+) +kept", again.stderr) == [
        "scores", "circuit", "evaluation", "sizes"
    ]  # fmt: skip
    assert again.stdout.replace("ended", "whole") == whole.stdout
    for name in ("eap-ig", "exact"):
        one, two = (
            EdgeScores.load(tmp_path / each / f"{name}.scores.nc") for each in ("ended", "whole")
        )
        np.testing.assert_array_equal(one.values, two.values)
    left = [path.name for path in (tmp_path / "ended").iterdir() if "unfinished" in path.name]
    assert not left


def test_two_at_once_are_refused(model_directory: Path, tmp_path: Path, command: Command) -> None:
    words = given(model_directory, "--out", "both")
    child = start(1, *words, cwd=tmp_path)
    assert child.stderr is not None
    for line in child.stderr:
        if line.strip().endswith("step 1"):
            break
    second = command(*words)
    child.kill()
    child.communicate()
    assert second.exit_code == 2
    assert "Another process is at work in both" in second.stderr


# ── what is refused ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--method", "eapig"], "no method 'eapig'; choose one of exact, eap, eap-ig,"),
        (["--positions", "S2,nope"], "no position label 'nope' to split edges by; they have IO"),
        (["--neurons", "1,x"], "--neurons takes the number of a layer; found 'x'"),
        (["--neurons", "99"], "There is no layer 99 to split into neurons"),
        (["--method", "magnitude", "--steps", "3"], "--steps was given, and magnitude has none"),
        (["--edges", "0"], "such as 5%, or 'smallest'; found '0'"),
        (["--edges", "120%"], "found '120%'"),
        (["--edges", "many"], "found 'many'"),
        (["--edges", "9999"], "has 110 edges; --edges 9999 asks for more"),
        (["--held-out", "1.5"], "between 0 and 1"),
        (["--compare", "nothing.json"], "nothing.json cannot be read"),
        (["--vary", "order"], "KEY=VALUE"),
        (["--ablation", "mean"], "there is no path from it; use counterfactual or resample"),
    ],
)
def test_options_that_cannot_be(
    refused: Refused, model_directory: Path, words: list[str], said: str
) -> None:
    assert said in refused(*given(model_directory, *words))


def test_unknown_behaviour_and_model(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "did you mean 'ioi'?" in refused("circuit", "iio")
    assert "could not be opened" in refused("circuit", "ioi", "-m", "nobody/no-such-model")


def test_a_circuit_of_another_model(
    refused: Refused, model_directory: Path, tmp_path: Path
) -> None:
    other = cutaway.open(save_model(tmp_path / "other", seed=1))
    path = Circuit.of(other, ["input->m0", "m0->logits"]).save(tmp_path / "other.json")
    said = refused(*given(model_directory, "--compare", path))
    assert "This circuit belongs to another model" in said


def test_an_effect_of_nothing(refused: Refused, model_directory: Path, tmp_path: Path) -> None:
    row = '"John and Mary went to the store, John gave a drink to"'
    lines = ["clean,corrupt,answer,wrong_answer", *[f"{row},{row}, Mary, John"] * 4]
    (tmp_path / "same.csv").write_text("\n".join(lines))
    said = refused("circuit", "--prompts", "same.csv", "-m", model_directory)
    assert "total effect of about zero" in said


def test_directories_that_cannot_be_used(
    refused: Refused, command: Command, model_directory: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    said = refused("circuit", "ioi", "-m", "nobody/no-such-model", "--out", "file/x")
    assert "file/x cannot be written" in said
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers/thesis.tex").write_text("mine")
    assert "thesis.tex" in refused(*given(model_directory, "--out", "papers"))
    made = command(*given(model_directory, "--out", "x"))
    assert made.exit_code == 0, made.output
    said = refused(
        "circuit", "ioi", "-m", model_directory, "--quick", "--n", 10, "--seed", 1, "--out", "x"
    )
    assert "circuits of another behaviour" in said
    record = json.loads((tmp_path / "x/circuits.json").read_text())
    (tmp_path / "x/circuits.json").write_text(json.dumps(record | {"format": 99}))
    assert "damaged or of another version" in refused(*given(model_directory, "--out", "x"))
