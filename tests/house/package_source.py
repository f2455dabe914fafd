"""The package's source as syntax trees, for the tests of the house's rules."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "cutaway"


def files() -> list[Path]:
    """Every Python file of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def module(path: Path) -> str:
    """The dotted name of a file's module, `cutaway` left out: `model.sites`, `cli`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def room(dotted: str) -> str:
    """The package, or the single module, that a dotted name belongs to: `model`, `cli`."""
    return dotted.split(".")[0]


def tree(path: Path) -> ast.Module:
    """A file, parsed."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported(node: ast.AST, importer: str, *, package: bool) -> list[str]:
    """The modules that an import statement names, relative ones made absolute."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        here = ["cutaway", *importer.split(".")] if importer else ["cutaway"]
        up = node.level - 1 if package else node.level
        base = ".".join([*here[: len(here) - up], *filter(None, [node.module])])
    if base == "cutaway":
        return [f"cutaway.{alias.name}" for alias in node.names]
    return [base]


def inside_functions(root: ast.Module) -> Iterator[ast.AST]:
    """Every node that stands inside a function."""
    for node in ast.walk(root):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from ast.walk(node)
