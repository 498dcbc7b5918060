"""The verb `map`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cgeartheye.cli.call import Call


def map_verb(
    call: Call,
    task: Annotated[Path | None, typer.Option(help="Folder of a finished task model.", show_default=False)] = None,
    scenes: Annotated[list[Path] | None, typer.Option(help="Scene to map; may be repeated.", show_default=False)] = None,
) -> None:
    """Map whole scenes with a task model: COG, confidence, polygons."""
    call.run(["map"], {"map.task": task and task.absolute(), "map.scenes": [path.absolute() for path in scenes or ()]})
