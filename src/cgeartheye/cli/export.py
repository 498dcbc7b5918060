"""The verb `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def export_verb(  # noqa: PLR0913 - the options of a verb
    backbone: Annotated[str, typer.Argument(help="Folder or file of weights, in any layout that is known.")],
    *,
    to: Annotated[str, typer.Option("--to", help="own, dinov2, mmpretrain, timm, huggingface, onnx or torch-export.")],
    out: Annotated[Path, typer.Option("--out", help="New folder for the result.")],
    step: Annotated[
        int | None,
        typer.Option("--step", min=1, help="Of a run of yours: its teacher at a checkpoint it kept.", show_default=False),
    ] = None,
    layout: Annotated[
        str | None, typer.Option("--layout", help="Layout of the given weights, if names do not tell.", show_default=False)
    ] = None,
    heads: Annotated[
        int | None, typer.Option("--heads", min=1, help="Attention heads, for widths that are not published.", show_default=False)
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", help="Licence of the given weights, if they do not name it.", show_default=False)
    ] = None,
    add_band: Annotated[
        list[str] | None,
        typer.Option(
            "--add-band", metavar="NAME:MEAN:STD[:zero|mean]", help="Add an input band, e.g. nir:0.4:0.2.", show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Write a backbone's weights in another layout, with a model card."""
    given = {"layout": layout, "heads": heads, "licence": licence, "step": step}
    _export(backbone, to, out, given=given, bands=add_band or [], as_json=as_json)


def _export(backbone: str, to: str, out: Path, *, given: dict[str, Any], bands: list[str], as_json: bool) -> None:
    import json
    import sys

    from cgeartheye.errors import InputError
    from cgeartheye.weights.bands import add_band, parse_band
    from cgeartheye.weights.checkpoints import keep_names, load_step
    from cgeartheye.weights.export import export
    from cgeartheye.weights.foreign import LAYOUTS, Given
    from cgeartheye.weights.load import load_path

    if backbone.startswith(("timm:", "hf:")):
        raise InputError(
            "is run by its own library", where=backbone, remedy="give the folder or file of its weights, without a prefix"
        )
    if given["layout"] not in (None, *LAYOUTS):
        raise InputError(f"unknown layout {given['layout']!r}", remedy=f"one of {', '.join(LAYOUTS)}")
    step = given.pop("step")
    loaded = load_path(Path(backbone), Given(**given)) if step is None else load_step(Path(backbone), step)
    for band in bands:
        loaded = add_band(loaded, parse_band(band))
    notes = export(loaded, to, out)
    keep_names(Path(backbone), out)
    config, parent = loaded.model.config, loaded.card.get("parent") or {}
    result = {
        "out": str(out),
        "layout": to,
        "network": config.to_json(),
        "licence": loaded.licence,
        "left_out": parent.get("left_out", []),
        "notes": notes,
    }
    if as_json:
        sys.stdout.write(json.dumps(result, indent=1) + "\n")
        return
    lines = [
        f"{out}: {config.name}, width {config.width}, depth {config.depth}, {to}, licence {loaded.licence}",
        *(f"  {note}" for note in notes),
        *([f"  left out of the given file: {', '.join(result['left_out'])}"] if result["left_out"] else []),
        *(["  not for commercial use"] if loaded.card.get("restricted_by") else []),
        *(["  nobody says what its licence is: --licence names it"] if loaded.licence == "unknown" else []),
    ]
    sys.stdout.write("\n".join(lines) + "\n")
