"""Who may import whom, and what importing costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from package_source import ROOT, files, imported, inside_functions, module, room, tree

# What each room of the house may use of the others: a room, or a single module of one.
MAY_USE: dict[str, set[str]] = {
    "errors": set(),
    "model": {"errors"},
    "behaviours": {"errors", "model.tokens"},
    "gallery": {"errors", "model", "behaviours"},
    "opening": {"errors", "model", "behaviours", "gallery"},
    "measure": {"errors", "model", "behaviours"},
    "observe": {"errors", "model", "behaviours", "measure", "views"},
    "patch": {"errors", "model", "behaviours", "measure", "views"},
    "views": {"errors"},
    "circuits": {"errors", "model", "behaviours", "measure", "patch", "views"},
    "mechanisms": {
        "errors",
        "model",
        "behaviours",
        "measure",
        "observe",
        "patch",
        "views",
        "circuits.overlap",
    },
    "organisms": {"errors", "model", "behaviours"},
    # It holds circuits against organisms, which do not know each other.
    "ground_truth": {"errors", "model", "behaviours", "circuits", "organisms", "patch.journal"},
    "explore": {"errors", "model", "observe", "views"},
    "study": {"errors", "model", "behaviours", "measure", "observe", "patch", "circuits", "views"},
}
# The front door names everything, and loads it when it is first used; the command line imports
# what a command needs when it runs.
ANYTHING = {"", "cli"}

# Slow or optional packages that are imported where they are used.
LAZY = {
    "model.load": {"transformers"},
}


def modules() -> list[tuple[str, Path]]:
    return [(module(path), path) for path in files()]


def own(node: ast.AST, path: Path) -> list[str]:
    """What a statement imports of ours, `cutaway.` left out."""
    named = imported(node, module(path), package=path.name == "__init__.py")
    return [name.removeprefix("cutaway").lstrip(".") for name in named if
            name == "cutaway" or name.startswith("cutaway.")]  # fmt: skip


def allowed(target: str, rooms: set[str]) -> bool:
    return any(target == name or target.startswith(f"{name}.") for name in rooms)


def test_every_room_has_a_rule() -> None:
    rooms = {room(name) for name, _ in modules()}
    assert rooms - ANYTHING == rooms & set(MAY_USE)


def test_imports_point_one_way() -> None:
    wrong = [
        f"{name} imports {target or 'the front door'}"
        for name, path in modules()
        if room(name) not in ANYTHING
        for node in ast.walk(tree(path))
        for target in own(node, path)
        if room(target) != room(name) and not allowed(target, MAY_USE[room(name)])
    ]
    assert not wrong, "\n".join(wrong)


def test_the_rules_have_no_circle() -> None:
    order = list(MAY_USE)
    for name, rooms in MAY_USE.items():
        assert {room(used) for used in rooms} <= set(order), name
    settled: set[str] = set()
    while len(settled) < len(order):
        ready = {n for n in order if {room(used) for used in MAY_USE[n]} <= settled} - settled
        assert ready, f"a circle among {set(order) - settled}"
        settled |= ready


def test_no_import_inside_a_function_dodges_the_rules() -> None:
    wrong = [
        f"{name}:{node.lineno} imports {target}"
        for name, path in modules()
        if room(name) not in ANYTHING
        for node in inside_functions(tree(path))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for target in imported(node, name, package=path.name == "__init__.py")
        if target.split(".")[0] not in LAZY.get(name, set())
    ]
    assert not wrong, "\n".join(wrong)


def test_no_star_imports() -> None:
    wrong = [
        name
        for name, path in modules()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names)
    ]
    assert not wrong


def loaded_by(code: str) -> set[str]:
    """Top-level packages in memory after some code, in a fresh interpreter."""
    printed = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    return {name.split(".")[0] for name in printed.stdout.split()}


SLOW = {"torch", "transformers", "numpy", "scipy", "pandas", "xarray", "jinja2", "rich", "typer"}


def test_importing_cutaway_loads_nothing_slow() -> None:
    assert "cutaway" in loaded_by("import cutaway")
    assert not loaded_by("import cutaway") & SLOW


def test_help_loads_no_model_code() -> None:
    pytest.importorskip("cutaway.cli", reason="the command line is not there yet")
    code = (
        "import sys; sys.argv = ['cutaway', '--help']\n"
        "import contextlib\n"
        "from cutaway.cli import main\n"
        "with contextlib.redirect_stdout(None), contextlib.suppress(SystemExit): main()"
    )
    slow = SLOW - {"rich", "typer"}
    assert not loaded_by(code) & slow
