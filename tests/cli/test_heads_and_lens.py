"""`cutaway heads` and `cutaway lens`: what they print is what they save."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from cutaway.observe import AttentionBetween, Detected, Lens, Moved, Translators

Command = Callable[..., Result]
Refused = Callable[..., str]
TEXT = "When Mary and John went to the store, John gave a drink to"


def test_heads_are_listed_confirmed_drawn_and_saved(
    command: Command, model_directory: Path, tmp_path: Path
) -> None:
    result = command(
        "heads", "ioi", "-m", model_directory, "--n", 8, "--level", 1.0, "--confirm",
        "--plot", "end.svg", "--save", "found",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    relations = Detected.load(tmp_path / "found/relations.nc")
    roles = Detected.load(tmp_path / "found/roles.nc")
    for found in (relations, roles):
        for row in found.nearest().itertuples():
            # Named in a table, or as the nearest of those that were not found.
            assert str(row.relation) in result.stdout
            assert f"{row.score:.3f}" in result.stdout
    assert result.stdout.count("confirmed") == sum(
        not each.heads(level=1.0).empty for each in (relations, roles)
    )
    assert all(f"Not looked for: {sentence}" in result.stdout for sentence in roles.left_out)
    between = AttentionBetween.load(tmp_path / "found/attention.nc")
    assert between.values.sizes["example"] == 8
    assert (tmp_path / "end.svg").read_text("utf-8").count("<rect") > 8 * 3
    assert not (tmp_path / "found/value-or-pointer.nc").exists()


def test_roles_that_the_prompts_do_not_allow_are_named(command: Command) -> None:
    result = command("heads", "capitals", "--n", 4)
    assert result.exit_code == 0, result.output
    assert "With 4 prompts no role can have a p below 0.125." in result.stdout
    assert "no prompt of 'capitals' has its answer before its end" in result.stdout


def test_value_or_pointer_from_the_command_line(command: Command, tmp_path: Path) -> None:
    result = command(
        "heads", "ioi", "--n", 10, "--value-or-pointer", "2.2", "--value-or-pointer", "0.1",
        "--save", "found",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    moved = Moved.load(tmp_path / "found/value-or-pointer.nc")
    assert moved.verdicts["2.2"] == "value"
    line = next(each for each in result.stdout.splitlines() if each.split()[:1] == ["2.2"])
    assert f"{float(moved.values.sel(head='2.2', source='value').mean()):+.3f}" in line
    assert line.endswith("value")


def test_the_lens_of_a_behaviour(command: Command, model_directory: Path, tmp_path: Path) -> None:
    result = command(
        "lens", "ioi", "-m", model_directory, "--n", 6, "--save", "lens.nc", "--plot", "lens.svg"
    )
    assert result.exit_code == 0, result.output
    found = Lens.load(tmp_path / "lens.nc")
    for layer in found.logit_diff["layer"].to_numpy():
        mean = float(found.mean.sel(layer=layer, position="end"))
        line = next(each for each in result.stdout.splitlines() if each.split()[:1] == [layer])
        assert f"{mean:+.3f}" in line
    assert (tmp_path / "lens.svg").exists()
    mlps = command("lens", "ioi", "-m", model_directory, "--n", 6, "--site", "mlp_out")
    assert mlps.exit_code == 0, mlps.output
    rows = [line.split()[0] for line in mlps.stdout.splitlines()]
    assert rows[2:-1] == ["mlp_out.0", "mlp_out.1", "resid_post.1"]


@pytest.mark.parametrize("kind", ["tuned", "jacobian"])
def test_a_lens_is_made_saved_and_read_through(
    command: Command, model_directory: Path, tmp_path: Path, kind: str
) -> None:
    made = command("lens", "ioi", "-m", model_directory, "--n", 6, "--lens", kind, "--steps", 3)
    assert made.exit_code == 0, made.output
    file = tmp_path / f"cutaway-lenses/ioi-small-{kind}.safetensors"
    lens = Translators.load(file)
    for number in lens.kl.to_numpy().ravel():
        assert f"{number:.3f}" in made.stdout
    again = command("lens", "ioi", "-m", model_directory, "--n", 6, "--through", file)
    assert again.exit_code == 0, again.output
    assert f"{kind} lens" in again.stdout
    assert again.stdout in made.stdout


def test_the_lens_of_a_text(command: Command, model_directory: Path, tmp_path: Path) -> None:
    result = command(
        "lens", "-m", model_directory, "--text", TEXT, "--last", 3, "--save", "text.nc"
    )
    assert result.exit_code == 0, result.output
    found = Lens.load(tmp_path / "text.nc")
    answer = str(found.top_text.isel(example=0, layer=-1, position=-1).item())
    assert f"The probability of {answer!r} at the end" in result.stdout
    ends = found.probability.isel(example=0, position=-1).to_numpy()
    assert ", ".join(f"{each:.2f}" for each in ends) in result.stdout
    header = result.stdout.splitlines()[0].split()
    assert header == ["11:", "'a'", "12:", "'drink'", "13:", "'to'"]


def test_what_does_not_go_together_is_refused(
    refused: Refused, model_directory: Path, tmp_path: Path
) -> None:
    assert "name a behaviour beside --text" in refused("lens", "--text", "a", "--lens", "tuned")
    assert "There is no file 'no'" in refused("lens", "ioi", "--through", "no")
    assert "--save-lens goes with" in refused("lens", "ioi", "--save-lens", "x")
    assert "ends in .svg" in refused("heads", "ioi", "--plot", "x.png")
    assert "did you mean 'ioi'" in refused("heads", "ioii")
    (tmp_path / "file").write_text("kept", "utf-8")
    assert "is a file; --save takes a directory" in refused("heads", "ioi", "--save", "file")
    assert "not a saved result" in refused("lens", "ioi", "--save", "file")
    asked = ("lens", "ioi", "--lens", "tuned", "--save-lens", "file")
    assert "not a saved lens" in refused(*asked)
    (tmp_path / "found").mkdir()
    (tmp_path / "found/roles.nc").write_text("kept", "utf-8")
    assert "not a saved result" in refused("heads", "ioi", "--save", "found")
    said = refused("lens", "ioi", "-m", model_directory, "--through", "file", "--n", 4)
    assert "not a saved lens" in said
    said = refused("heads", "ioi", "-m", model_directory, "--n", 4, "--value-or-pointer", "9.9")
    assert "9" in said
