"""One fake project for all tests of the report; tests that change it copy it first."""

from __future__ import annotations

from pathlib import Path

import pytest
from stage_folders import build_project

from cgeartheye.reporting import report
from cgeartheye.settings.report import ReportSettings


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The six finished folders by the name of their setting."""
    return build_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="session")
def page(project: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The text of the whole report."""
    out = tmp_path_factory.mktemp("report") / "report"
    report(ReportSettings(title="A <b>title</b>", **project), out)
    return (out / "report.html").read_text(encoding="utf-8")
