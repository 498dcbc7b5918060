"""The verb `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo_verb(  # noqa: PLR0913 - each is an option of the command line
    *,
    out: Annotated[Path, typer.Option(help="Folder for the world and everything made of it.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Another seed is another landscape.")] = 0,
    size_km: Annotated[float, typer.Option(help="Side of the rendered world.")] = 3.0,
    gsd: Annotated[float, typer.Option(help="Metres a pixel.")] = 0.75,
    quick: Annotated[
        bool, typer.Option("--quick", help="A smaller world and a shorter training: every step, no claims.")
    ] = False,
    archive: Annotated[
        Path | None, typer.Option(help="A folder of real GeoTIFFs instead of the rendered world.", show_default=False)
    ] = None,
    world_only: Annotated[
        bool, typer.Option("--world-only", help="Render the world and write its project file, then stop.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars, no lines but errors.")] = False,
) -> None:
    """Do the whole job on a rendered four-season world: catalogue, curation, training, evaluation, map, report."""
    import json
    import sys

    from cgeartheye.cli.console import listener
    from cgeartheye.demo import DemoRequest, demo

    request = DemoRequest(
        out=out.absolute(),
        seed=seed,
        size_m=size_km * 1000,
        gsd_m=gsd,
        quick=quick,
        archive=archive and archive.absolute(),
        world_only=world_only,
    )
    result = demo(request, progress=listener(quiet=quiet or as_json))
    if as_json:
        sys.stdout.write(json.dumps(result, indent=1, sort_keys=True, default=str) + "\n")
