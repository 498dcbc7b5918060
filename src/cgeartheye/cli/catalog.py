"""The verb `catalog`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cgeartheye.cli.call import Call


def catalog_verb(
    call: Call,
    scenes: Annotated[
        list[str] | None,
        typer.Option(help="Folder or file of scenes, STAC catalogue or address; may be repeated.", show_default=False),
    ] = None,
    dates: Annotated[Path | None, typer.Option(help="CSV of path and date.", show_default=False)] = None,
) -> None:
    """List the scenes of an archive: footprint, date, quarter, resolution, what was left out and why."""
    call.run(
        ["catalog"], {"catalog.scenes": [_source(text) for text in scenes or ()], "catalog.dates": dates and dates.absolute()}
    )


def _source(text: str) -> Path | str:
    return text if "://" in text else Path(text).absolute()
