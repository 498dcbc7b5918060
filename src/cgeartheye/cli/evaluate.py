"""The verb `evaluate`."""

from __future__ import annotations

from typing import Annotated

import typer

from cgeartheye.cli.call import Call


def evaluate_verb(
    call: Call,
    backbone: Annotated[
        list[str] | None, typer.Option(help="Folder of weights, timm:NAME or hf:PATH; may be repeated.", show_default=False)
    ] = None,
) -> None:
    """Measure a frozen backbone with probes, beside its untrained self and plain colour features."""
    call.run(["evaluate"], {"evaluate.backbones": backbone})
