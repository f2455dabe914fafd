"""Every command does what its help says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from small_model import SHARED
from typer.testing import Result

import cutaway
from cutaway.patch import Effects
from cutaway.study.plan import PLAN

Command = Callable[..., Result]
QUICK = ("--n", 6, "--patch-examples", 2, "--heads", 1)


def test_study_ends_by_naming_the_report(
    command: Command, model_directory: Path, tmp_path: Path
) -> None:
    result = command("study", "ioi", "--model", model_directory, *QUICK)
    assert result.exit_code == 0, result.output
    path = result.stdout.splitlines()[-1].removeprefix("Report: ")
    assert path == "cutaway-studies/ioi-small/report.html"
    assert (tmp_path / path).read_text("utf-8").startswith("<!DOCTYPE html>")
    assert "of 6 clean prompts" in result.stdout

    again = command("study", "ioi", "--model", model_directory, *QUICK)
    assert again.exit_code == 0
    assert again.stdout == result.stdout
    assert again.stderr.count("kept") == len(PLAN)


def test_study_of_the_users_own_pairs(
    command: Command, model_directory: Path, tmp_path: Path
) -> None:
    rows = [
        "clean,corrupt,answer,wrong_answer,label:S2,kind",
        '"John and Mary went to the store, John gave a drink to",'
        '"John and Mary went to the store, Mary gave a drink to", Mary, John,John#2,a',
        '"Mary and John went to the park, Mary gave a drink to",'
        '"Mary and John went to the park, John gave a drink to", John, Mary,Mary#2,b',
    ]
    (tmp_path / "pairs.csv").write_text("\n".join(rows), "utf-8")
    result = command("study", "--prompts", "pairs.csv", "--model", model_directory, "--out", "x")
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith("Report: x/report.html\n")
    manifest = json.loads((tmp_path / "x/study.json").read_text("utf-8"))
    assert manifest["behaviour"]["n"] == 2
    assert "Behaviour.from_csv('pairs.csv'" in manifest["python"]


def test_stages_and_variations(command: Command, model_directory: Path, tmp_path: Path) -> None:
    result = command(
        "study", "ioi", "-m", model_directory, "--n", 4, "--stage", "blackbox",
        "--vary", "order=ABBA", "--out", "part",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith("Results: part\n")
    manifest = json.loads((tmp_path / "part/study.json").read_text("utf-8"))
    assert manifest["behaviour"]["provenance"]["variation"] == {"order": "ABBA"}
    assert set(manifest["stages"]) == {"blackbox"}


def test_behaviours_are_listed_and_shown(command: Command) -> None:
    listed = command("behaviours").stdout
    for name in ("ioi", "gendered-pronouns", "greater-than", "acronyms", "induction", "capitals"):
        assert name in listed
    shown = command("behaviours", "ioi").stdout
    assert "clean " in shown
    assert "corrupt " in shown
    assert "order: 'any', 'ABBA', 'BABA'" in shown


def test_models_are_listed(command: Command) -> None:
    from cutaway import gallery

    result = command("models")
    assert result.exit_code == 0
    for name in gallery.models():
        assert name in result.stdout
    assert "--model DIR" in result.stdout


def test_check_prints_what_was_proven(command: Command, model_directory: Path) -> None:
    result = command("check", model_directory)
    assert result.exit_code == 0
    assert "gpt2, 2 layers, 4 heads" in result.stdout
    assert "pattern · v = z" in result.stdout
    assert "✗" not in result.stdout
    assert "identities hold" in result.stdout


def test_sweep_prints_the_strongest_cells_and_saves_all(
    command: Command, model_directory: Path, tmp_path: Path
) -> None:
    result = command(
        "sweep", "ioi", "-m", model_directory, "--n", 4, "--site", "resid_pre", "--by",
        "layer,position", "--mode", "noise", "--top", 3, "--position", "S2", "--position", "end",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    saved = tmp_path / result.stdout.splitlines()[-1].removeprefix("Saved: ")
    effects = Effects.load(saved)
    assert effects.values.dims == ("layer", "position", "example")
    assert effects.values["position"].to_numpy().tolist() == ["S2", "end"]
    top = effects.top(1).to_dict("records")[0]
    assert f"{top['effect']:+.3f}" in result.stdout


def test_a_sweep_by_several_metrics_is_printed_drawn_and_saved(
    command: Command, model_directory: Path, tmp_path: Path
) -> None:
    result = command(
        "sweep", "ioi", "-m", model_directory, "--n", 4, "--metric", "prob_diff", "--metric", "kl",
        "--plot", "heads.svg", "--memory", "64 MiB", "--top", 2,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    effects = Effects.load(tmp_path / result.stdout.splitlines()[-1].removeprefix("Saved: "))
    assert (effects.metric, list(effects.also)) == ("prob_diff", ["kl"])
    for each in (effects, effects.also["kl"]):
        assert f"{each.top(1)['effect'].to_numpy()[0]:+.3f}" in result.stdout
    assert (tmp_path / "heads.svg").read_text("utf-8") == effects.plot().standalone()


def test_chosen_parts_are_swept(command: Command, model_directory: Path, tmp_path: Path) -> None:
    given = ("sweep", "ioi", "-m", model_directory, "--n", 4, "--site", "mlp_post")
    given += ("--by", "layer,neuron", "--mode", "zero", "--out", "neurons.nc")
    assert command(*given, "--part", "0.3", "--part", "1.7").exit_code == 0
    values = Effects.load(tmp_path / "neurons.nc").values
    assert values["neuron"].to_numpy().tolist() == ["0.3", "1.7"]
    assert command(*given, "--part", "5").exit_code == 0
    values = Effects.load(tmp_path / "neurons.nc").values
    assert values.dims == ("layer", "neuron", "example")
    assert values["neuron"].to_numpy().tolist() == [5]


def test_explaining_runs_and_writes_nothing(
    command: Command, model_directory: Path, tmp_path: Path
) -> None:
    from cutaway.patch import plan_sweep

    result = command(
        "sweep", "ioi", "-m", model_directory, "--n", 4, "--memory", "1GB", "--explain"
    )
    assert result.exit_code == 0, result.output
    loaded = cutaway.open(model_directory)
    pairs = cutaway.behaviour("ioi", loaded, n=4, seed=0)
    plan = plan_sweep(loaded, pairs, "head_out", metric="logit_diff", memory=10**9)
    assert result.stdout == f"{plan.explain()}\n"
    assert not list(tmp_path.iterdir())


def test_generate_shows_both_continuations(command: Command, model_directory: Path) -> None:
    plain = command("generate", "John and Mary", "-m", model_directory, "--max-new-tokens", 4)
    assert plain.exit_code == 0, plain.output
    both = command(
        "generate", "John and Mary", "-m", model_directory, "--max-new-tokens", 4,
        "--ablate", "mlp_out.0", "--ablate", "head_out.1.3", "--mode", "mean",
    )  # fmt: skip
    assert both.exit_code == 0, both.output
    assert f"unchanged: {plain.stdout}" in both.stdout
    assert "without mlp_out.0, head_out.1.3: John and Mary" in both.stdout


@pytest.mark.parametrize("name", ["study", "behaviours", "models", "check", "sweep", "generate"])
def test_every_command_has_help_with_examples(command: Command, name: str) -> None:
    result = command(name, "--help")
    assert result.exit_code == 0
    assert "Examples" in result.stdout
    assert f"cutaway {name}" in result.stdout


def test_a_study_takes_hypotheses_settings_and_a_plan(command: Command, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('[[hypothesis]]\nparts = "2.2"\nrole = "writes the answer"\n', "utf-8")
    out = tmp_path / "study"
    given = ("study", "ioi", "--n", 40, "--out", out, "--hypotheses", mine,
             "--set", "evaluation_examples=20")  # fmt: skip
    result = command(*given, "--stage", "hypotheses")
    assert result.exit_code == 0, result.output
    record = json.loads((out / "study.json").read_text("utf-8"))
    assert record["settings"]["evaluation_examples"] == 20
    assert list(record["stages"]) == ["hypotheses"]
    assert "Of 1 stated hypotheses 1 supported." in result.stdout
    again = command(*given, "--stage", "hypotheses", "--again", "hypotheses")
    assert again.stderr.count("kept") == 0
    for more, said in (
        (("--set", "speed=1"), "There is no setting 'speed'; there are seed, "),
        (("--set", "controls=many"), "The setting 'controls' is a number; found 'many'."),
        (("--set", "controls"), "--set takes NAME=VALUE"),
        (("--without", "patching"), "'attention' needs 'patching'"),
        (("--again", "nothing"), "There is no stage 'nothing'"),
        (("--hypotheses", tmp_path / "none.toml"), "cannot be read"),
    ):  # fmt: skip
        refused = command(*given, *more)
        assert refused.exit_code == 2
        assert said in refused.stderr
        assert refused.stderr.count("\n") == 1
    mine.write_text('[[hypothesis]]\nparts = "9.9"\nrole = "needed"\n', "utf-8")
    refused = command(*given)
    assert refused.exit_code == 2
    assert "names head 9.9, which there is not: septet has layers 0 to 4" in refused.stderr


def test_two_studies_are_compared(command: Command, tmp_path: Path) -> None:
    for seed in (0, 1):
        made = command("study", "ioi", "--n", 12, "--seed", seed, "--stage", "blackbox",
                       "--out", tmp_path / f"s{seed}")  # fmt: skip
        assert made.exit_code == 0, made.output
    page = tmp_path / "page.html"
    found = command("study", "compare", tmp_path / "s0", tmp_path / "s1", "--out", page)
    assert found.exit_code == 0, found.output
    assert "accuracy" in found.stdout
    assert "logit difference" in found.stdout
    assert page.read_text("utf-8").startswith("<!DOCTYPE html>")
    refused = command("study", "compare", tmp_path / "s0", tmp_path / "none")
    assert refused.exit_code == 2
    assert "holds no study" in refused.stderr
    assert "cutaway study compare" in command("study", "compare", "--help").stdout


def test_version(command: Command) -> None:
    from cutaway import __version__

    assert command("--version").stdout == f"cutaway {__version__}\n"


@pytest.mark.skipif(not SHARED.exists(), reason="the shared model and data are not here")
def test_pronouns_on_stories260k(command: Command) -> None:
    result = command(
        "study", "--prompts", SHARED / "data/pronouns_stories260k.csv", "--model",
        SHARED / "models/stories260k", "--patch-examples", 4, "--heads", 1,
        "--set", "discovery_examples=12", "--set", "evaluation_examples=8", "--set", "controls=2",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "on 95 of 100 clean prompts" in result.stdout
    assert "mean logit difference is +2.44" in result.stdout


@pytest.mark.skipif(not SHARED.exists(), reason="the shared model and data are not here")
def test_n_takes_the_first_rows_of_a_file(command: Command) -> None:
    result = command(
        "study", "--prompts", SHARED / "data/pronouns_stories260k.csv", "--model",
        SHARED / "models/stories260k", "--n", 7, "--stage", "blackbox",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "of 7 clean prompts" in result.stdout
