"""The shape of the house: short files, short functions, everything public described."""

import ast
from collections.abc import Iterator

from package_source import files, module, tree

LONGEST_FILE = 400
LONGEST_FUNCTION = 60
UNWANTED_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "managers"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(root: ast.AST) -> Iterator[Function]:
    return (n for n in ast.walk(root) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)))


def is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)


def test_files_are_short() -> None:
    lengths = {module(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files()}
    long = {name: length for name, length in lengths.items() if length > LONGEST_FILE}
    assert not long


def test_functions_are_short() -> None:
    long = {
        f"{module(path)}.{node.name}": node.end_lineno - node.lineno + 1
        for path in files()
        for node in functions(tree(path))
        if node.end_lineno and node.end_lineno - node.lineno + 1 > LONGEST_FUNCTION
    }
    assert not long


def test_files_are_named_for_what_they_hold() -> None:
    parts = {part for path in files() for part in module(path).split(".")}
    assert not parts & UNWANTED_NAMES


def test_everything_public_is_described() -> None:
    bare = [module(path) for path in files() if not ast.get_docstring(tree(path))]
    for path in files():
        for node in tree(path).body:
            if not isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            if not node.name.startswith("_") and not ast.get_docstring(node):
                bare.append(f"{module(path)}.{node.name}")
    assert not bare


def undescribed(node: ast.ClassDef) -> Iterator[str]:
    """Public fields of a dataclass that no docstring follows."""
    for field, after in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        described = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if not field.target.id.startswith("_") and not described:
            yield field.target.id


def test_every_field_of_a_public_dataclass_is_described() -> None:
    bare = [
        f"{module(path)}.{node.name}.{field}"
        for path in files()
        for node in tree(path).body
        if isinstance(node, ast.ClassDef) and is_dataclass(node) and not node.name.startswith("_")
        for field in undescribed(node)
    ]
    assert not bare


def is_stub(node: Function) -> bool:
    """Whether a function's whole body is a refusal to work, and it is not abstract."""
    body = [
        statement
        for statement in node.body
        if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
    ]
    refuses = len(body) == 1 and isinstance(body[0], ast.Raise)
    decorators = " ".join(ast.unparse(decorator) for decorator in node.decorator_list)
    abstract = "abstract" in decorators or "overload" in decorators
    return refuses and not abstract and "NotImplementedError" in ast.unparse(body[0])


def test_nothing_is_left_unbuilt() -> None:
    stubs = [
        f"{module(path)}.{node.name}"
        for path in files()
        for node in functions(tree(path))
        if is_stub(node)
    ]
    assert not stubs
