"""The marks of CONTRIBUTING that no linter holds: sizes, lazy imports, import-time side effects, shapes in docstrings."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "cgeartheye"
FILES = sorted(SOURCE.rglob("*.py"))
LAZY_IMPORTS = {"weights/load.py"}
"""Files besides the command line that import inside a function: one that chooses among heavy libraries."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(_tree(path)):
        if isinstance(node, Function):
            yield node


def _net_length(function: Function) -> int:
    first = function.body[1] if ast.get_docstring(function) and len(function.body) > 1 else function.body[0]
    return (function.end_lineno or 0) - first.lineno + 1


def _name(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def test_functions_are_short() -> None:
    lengths = {f"{_name(path)}:{f.name}": _net_length(f) for path in FILES for f in _functions(path)}
    ordered = sorted(lengths.values())
    assert statistics.median(ordered) <= 12
    assert ordered[int(0.95 * len(ordered))] <= 45
    assert {name: n for name, n in lengths.items() if n > 80} == {}


def test_files_have_one_subject_and_fit_a_screenful_of_screens() -> None:
    assert {_name(path): n for path in FILES if (n := len(path.read_text().splitlines())) > 500} == {}


def test_imports_stand_at_the_top() -> None:
    held = [path for path in FILES if not _name(path).startswith("cli/") and _name(path) not in LAZY_IMPORTS]
    imports = (ast.Import, ast.ImportFrom)
    assert [f"{_name(p)}:{n.lineno}" for p in held for f in _functions(p) for n in ast.walk(f) if isinstance(n, imports)] == []


def test_importing_does_nothing() -> None:
    held = [path for path in FILES if path.name != "__main__.py"]
    nodes = [(p, n) for p in held for n in _tree(p).body if isinstance(n, ast.Expr) and isinstance(n.value, ast.Call)]
    assert [f"{_name(path)}:{node.lineno}" for path, node in nodes] == []


def _mentions_array(function: Function) -> bool:
    annotations = [a.annotation for a in (*function.args.args, *function.args.kwonlyargs) if a.annotation]
    return any("Tensor" in (text := ast.unparse(a)) or "NDArray" in text for a in annotations)


def test_public_functions_of_arrays_name_shapes() -> None:
    public = [(p, f) for p in FILES for f in _functions(p) if not f.name.startswith("_") and _mentions_array(f)]
    assert [f"{_name(path)}:{f.name}" for path, f in public if "(" not in (ast.get_docstring(f) or "")] == []
