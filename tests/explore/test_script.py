"""The saved script: run by itself, it prints the numbers that the page shows."""

import contextlib
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from serving import OTHER, Served

CHANGES: dict[str, dict[str, Any]] = {
    "zero": {"do": "ablate", "site": "z.2.1"},
    "mean": {"do": "ablate", "site": "mlp_out.1", "mode": "mean", "position": 3},
    "neuron": {"do": "ablate", "site": "mlp_post.0.7"},
    "patch": {"do": "patch", "site": "z.1.0", "prompt": OTHER},
    "patch at": {
        "do": "patch", "site": "resid_post.1", "prompt": "Tom said 'hello' to Sue\n",
        "position": 12, "source_position": 2,
    },
    "token": {
        "do": "steer", "site": "resid_post.2", "token": " John", "strength": 0.7, "position": 14
    },
    "number": {"do": "steer", "site": "resid_pre.0", "token": 640, "strength": -0.3},
    "between": {
        "do": "steer", "site": "resid_post.3", "plus": "Mary", "minus": "John", "strength": 1.5
    },
}  # fmt: skip


def printed(script: str) -> str:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(script, "experiment.py", "exec"), {"__name__": "__main__"})
    return said.getvalue()


def assert_same(said: str, found: dict[str, Any]) -> None:
    """Row by row, the numbers of the page to the digits that are printed."""
    rows = [line.rsplit(maxsplit=5) for line in said.splitlines()[1:]]
    assert len(rows) == len(found["next"])
    for row, shown in zip(rows, found["next"], strict=True):
        before, after = shown["before"], shown["after"]
        expected = [
            before["logit"], after["logit"], after["logit"] - before["logit"],
            before["probability"], after["probability"],
        ]  # fmt: skip
        assert [float(each) for each in row[1:]] == pytest.approx(expected, abs=1.1e-4)


def asked(explorer: Served, changes: list[dict[str, Any]], **more: Any) -> str:
    status, found = explorer.post(
        "script", {"page": "s", "prompt": more.pop("prompt", OTHER), "changes": changes, **more}
    )
    assert status == 200, found
    return found["script"]


@pytest.mark.parametrize("name", CHANGES)
def test_each_change_is_reproduced(explorer: Served, name: str) -> None:
    script = asked(explorer, [CHANGES[name]], position=14)
    found = explorer.ask(prompt=OTHER, changes=[CHANGES[name]], position=14)
    moved = max(abs(each["before"]["logit"] - each["after"]["logit"]) for each in found["next"])
    assert name == "patch" or moved > 1e-3
    assert_same(printed(script), found)


def test_all_together_in_a_process_of_its_own(explorer: Served, tmp_path: Path) -> None:
    changes = list(CHANGES.values())
    script = asked(explorer, changes)
    file = tmp_path / "experiment.py"
    file.write_text(script, "utf-8")
    run = subprocess.run(
        [sys.executable, str(file)], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert_same(run.stdout, explorer.ask(prompt=OTHER, changes=changes))


@pytest.mark.parametrize(
    "prompt", ['\u202e\u2066 \\ "\'\'\'""" {x} {{y}} \x00', "\n\n# a\r\n", "</script>%s", "é 👩‍👧"]
)
def test_hostile_prompts_are_text_in_it(explorer: Served, prompt: str) -> None:
    change = {**CHANGES["patch at"], "prompt": prompt, "position": 0, "source_position": 0}
    script = asked(explorer, [change], prompt=prompt)
    unseen = [c for c in script if not c.isprintable() and c != "\n"]
    assert not unseen
    assert_same(printed(script), explorer.ask(prompt=prompt, changes=[change]))
