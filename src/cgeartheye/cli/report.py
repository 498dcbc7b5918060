"""The verb `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cgeartheye.cli.call import Call


def report_verb(
    call: Call,
    compare: Annotated[
        list[Path] | None,
        typer.Option(help="Another folder of `pretrain` whose curves are drawn too; may be repeated.", show_default=False),
    ] = None,
) -> None:
    """Write one self-contained HTML page about the stages that are finished."""
    call.run(["report"], {"report.compare": [str(path.absolute()) for path in compare or []]})
