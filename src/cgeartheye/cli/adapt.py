"""The verb `adapt`."""

from __future__ import annotations

from typing import Annotated

import typer

from cgeartheye.cli.call import Call


def adapt_verb(
    call: Call,
    backbone: Annotated[str | None, typer.Option(help="Folder of weights, timm:NAME or hf:PATH.", show_default=False)] = None,
) -> None:
    """Train a task model on labels, with the backbone frozen."""
    call.run(["adapt"], {"adapt.backbone": backbone})
