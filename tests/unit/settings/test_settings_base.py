"""Paths as users write them, and strictness."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from cgeartheye.settings.base import Settings, UserPath


class _Example(Settings):
    path: UserPath = Path("a")
    several: tuple[UserPath, ...] = ()


def test_paths_expand_variables_and_start_at_the_base(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SOME_FOLDER", "/data")
    values = {"path": "${SOME_FOLDER}/x", "several": ["b", "/c"]}
    example = _Example.model_validate(values, context={"base": tmp_path})
    assert example.path == Path("/data/x")
    assert example.several == (tmp_path / "b", Path("/c"))


def test_an_unset_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOWHERE_SET", raising=False)
    with pytest.raises(ValidationError, match="NOWHERE_SET is not set"):
        _Example.model_validate({"path": "${NOWHERE_SET}/x"})


def test_settings_are_frozen_and_strict() -> None:
    with pytest.raises(ValidationError):
        _Example.model_validate({"paht": "x"})
    with pytest.raises(ValidationError):
        _Example().path = Path("b")  # type: ignore[misc]  # the very thing that is refused
