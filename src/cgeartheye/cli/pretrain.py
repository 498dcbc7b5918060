"""The verb `pretrain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cgeartheye.cli.call import Call


def pretrain_verb(
    call: Call,
    curated: Annotated[str | None, typer.Option(help="Folder of a finished curation, or its URL.", show_default=False)] = None,
    backbone: Annotated[str | None, typer.Option(help="nano, small, base, large, huge or giant.", show_default=False)] = None,
) -> None:
    """Train a backbone on curated shards by seasonal self-distillation."""
    where = curated if curated is None or "://" in curated else Path(curated).absolute()
    call.run(["pretrain"], {"pretrain.curated": where, "pretrain.backbone": backbone})
