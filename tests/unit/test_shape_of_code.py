"""The marks of CONTRIBUTING that no linter holds: sizes, lazy imports, import-time side effects, shapes in docstrings."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "cgeartheye"
FILES = sorted(SOURCE.rglob("*.py"))
LAZY_IMPORTS = {"weights/load.py"}
"""Files besides the command line that import inside a function: one that chooses among heavy libraries."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


def _functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text())):
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


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_imports_stand_at_the_top(path: Path) -> None:
    if _name(path).startswith("cli/") or _name(path) in LAZY_IMPORTS:
        return
    inside = [n.lineno for f in _functions(path) for n in ast.walk(f) if isinstance(n, ast.Import | ast.ImportFrom)]
    assert inside == [], f"{_name(path)} imports inside functions at lines {inside}"


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_importing_does_nothing(path: Path) -> None:
    if path.name == "__main__.py":
        return
    calls = [n.lineno for n in ast.parse(path.read_text()).body if isinstance(n, ast.Expr) and isinstance(n.value, ast.Call)]
    assert calls == [], f"{_name(path)} calls functions at import time, lines {calls}"


def _mentions_array(function: Function) -> bool:
    annotations = [a.annotation for a in (*function.args.args, *function.args.kwonlyargs) if a.annotation]
    return any("Tensor" in (text := ast.unparse(a)) or "NDArray" in text for a in annotations)


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_public_functions_of_arrays_name_shapes(path: Path) -> None:
    silent = [
        f.name
        for f in _functions(path)
        if not f.name.startswith("_") and _mentions_array(f) and "(" not in (ast.get_docstring(f) or "")
    ]
    assert silent == [], f"{_name(path)}: no shape in the docstring of {silent}"
