"""The verb `curate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cgeartheye.cli.call import Call


def curate_verb(
    call: Call,
    catalog: Annotated[Path | None, typer.Option(help="Folder of a finished catalogue.", show_default=False)] = None,
    images: Annotated[Path | None, typer.Option(help="Plain image folders instead of a catalogue.", show_default=False)] = None,
    part: Annotated[
        str | None, typer.Option(metavar="I/N", help="Make every N-th piece, from the I-th on, then stop.", show_default=False)
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Make the pieces on this Ray cluster.", show_default=False)
    ] = None,
) -> None:
    """Draw places over cells and strata, cut aligned chips of every date, balance them, write shards."""
    call.run(
        ["curate"],
        {
            "curate.source": "images" if images else None,
            "curate.images": images and images.absolute(),
            "curate.catalog": catalog and catalog.absolute(),
            "curate.work.part": part,
            "curate.work.cluster": cluster,
        },
    )
