"""The verb `run`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from cgeartheye.cli.call import Call


def run_verb(
    call: Call,
    project_file: Annotated[
        Path | None, typer.Argument(metavar="PROJECT", help="Project file (YAML).", show_default=False)
    ] = None,
) -> None:
    """Run every stage of a project that is not done yet; resume what was interrupted."""
    chosen = project_file or call.project or Path("project.yaml")
    dataclasses.replace(call, project=chosen).run(None)
