"""The verb `backbones`."""

from __future__ import annotations

from typing import Annotated

import typer

_NOTE = """FLOPs of one picture, matrix products, 2 a multiplication; the backward pass costs twice that.
Frozen pass: weights and the fullest moment of a forward pass. Training: weights, gradients and Adam's moments in float32, and the
activations of a batch; the teacher, heads and what the allocator keeps come on top."""


def backbones_verb(
    *,
    size_px: Annotated[int, typer.Option("--size-px", min=1, help="Side of a picture.")] = 224,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Pictures a pass, for memory.")] = 1,
    precision: Annotated[
        str, typer.Option("--precision", help="float32 or bfloat16, of activations and frozen weights.")
    ] = "float32",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """List the sizes of networks with their parameters, FLOPs and memory at a size of picture."""
    import json
    import sys

    from cgeartheye.cli.console import write_table
    from cgeartheye.errors import InputError
    from cgeartheye.models.cost import BYTES, cost
    from cgeartheye.models.sizes import SIZES

    if precision not in BYTES:
        raise InputError(f"unknown precision {precision!r}", remedy=f"one of {', '.join(BYTES)}")
    costs = {
        name: cost(
            config, height=size_px, width=size_px, batch=batch, precision="bfloat16" if precision == "bfloat16" else "float32"
        )
        for name, config in SIZES.items()
    }
    if as_json:
        told = {name: {**SIZES[name].to_json(), **vars(found)} for name, found in costs.items()}
        sys.stdout.write(json.dumps(told, indent=1) + "\n")
        return
    head = [
        "size",
        "depth",
        "width",
        "heads",
        "MLP",
        "patch",
        "parameters",
        "tokens",
        "GFLOP forward",
        "weights",
        "frozen pass",
        "training",
    ]
    rows = [
        [
            name,
            str(config.depth),
            str(config.width),
            str(config.heads),
            f"{config.hidden}{' gated' if config.ffn == 'swiglu' else ''}",
            str(config.patch_px),
            f"{costs[name].parameters:,}",
            str(costs[name].tokens),
            f"{costs[name].forward_flops / 1e9:,.1f}",
            *(
                f"{size / 2**30:,.2f} GiB"
                for size in (costs[name].weight_bytes, costs[name].frozen_bytes, costs[name].training_bytes)
            ),
        ]
        for name, config in SIZES.items()
    ]
    write_table(
        f"{size_px} x {size_px} px, batch {batch}, {precision}",
        head,
        rows,
        note=_NOTE,
    )
