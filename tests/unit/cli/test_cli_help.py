"""The command line: light, complete, and honest about wrong use."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from cgeartheye.cli.main import STAGE_VERBS, build_app


@pytest.mark.parametrize(
    "arguments", [["--help"], *([verb, "--help"] for verb in [*STAGE_VERBS, "plan", "export", "backbones", "demo", "doctor"])]
)
def test_help_imports_neither_torch_nor_gdal_nor_settings(arguments: list[str]) -> None:
    code = (
        "import sys; from cgeartheye.cli.main import build_app\n"
        f"try: build_app()({arguments!r})\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "bad = {'torch', 'rasterio', 'numpy', 'yaml', 'cgeartheye.settings'} & set(sys.modules)\n"
        "sys.exit(f'imported {bad}' if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_stage_verb_has_the_common_options() -> None:
    for verb in STAGE_VERBS:
        text = CliRunner().invoke(build_app(), [verb, "--help"], env={"COLUMNS": "200"}).output
        options = ("--project", "--set", "--out", "--check", "--json", "--quiet", "--redo", "--settings")
        assert all(option in text for option in options)


def test_an_unknown_verb_or_option_exits_with_2() -> None:
    assert CliRunner().invoke(build_app(), ["conjure"]).exit_code == 2
    assert CliRunner().invoke(build_app(), ["run", "--nonsense"]).exit_code == 2
