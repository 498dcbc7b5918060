"""The model card for people: what a backbone is, what it was made of, and what was measured of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from cgeartheye.models.vit import VitConfig

_RESTRICTED: Final = re.compile(r"\bnc\b|non-?commercial|research|academic|scientific", re.IGNORECASE)


def restricted(licences: Iterable[str]) -> list[str]:
    """Return the licences whose names say that commercial use is not allowed; what is learned from them is marked."""
    return [licence for licence in licences if _RESTRICTED.search(licence)]


def model_card(card: Mapping[str, Any], config: VitConfig, *, notes: tuple[str, ...] = ()) -> str:
    """Return a README in Markdown; what nobody knows is said to be unknown.

    Args:
        card: of ``backbone.json``.
        config: of the network.
        notes: sentences about this copy, for example of an export.
    """
    rows = {**_network(config), **_lineage(card), **_recipe(card), **_metrics(card)}
    restricted = card.get("restricted_by") or []
    licence = str(card.get("licence", "unknown")) + (" - **not for commercial use**" if restricted else "")
    lines = [f"| {name} | {_cell(value)} |" for name, value in {"Licence": licence, **rows}.items()]
    text = [
        f"# {card.get('name', config.name)}",
        "",
        "Frozen features for overhead imagery: a plain vision transformer of the DINOv2 lineage (arXiv 2304.07193; CGEarthEye,",
        "arXiv 2507.00356), written by software that is independent of the authors of both.",
        "",
        "| | |",
        "|---|---|",
        *lines,
        "",
        *(f"* {note}" for note in notes),
        *([""] if notes else []),
        "**Use.** Frozen: patch tokens (mean and deviation) or the class token, under a linear or dense head.",
        "**Limits.** It knows the places, dates and resolution above; what it does elsewhere has to be measured. Its licence",
        "follows its data and its parent. Whether it is any good is said by an evaluation, not by this card or the loss.",
        "",
    ]
    return "\n".join(text)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _network(config: VitConfig) -> dict[str, str]:
    shape = f"{config.name}: patch {config.patch_px} px, width {config.width}, depth {config.depth}, {config.heads} heads"
    scaled = f"{', '.join(config.bands)} in [0, 1], mean {list(config.mean)}, deviation {list(config.std)}"
    return {
        "Network": shape + (f", {config.registers} registers" if config.registers else ""),
        "Input": scaled,
        "Positions": f"learned at {config.position_px} px, resized to other sizes as `{config.position_interpolation}`",
    }


def _lineage(card: Mapping[str, Any]) -> dict[str, str]:
    data, parent, gsd_m = card.get("data"), card.get("parent"), card.get("gsd_m")
    rows = {"Ground sampling distance": f"{gsd_m} m" if gsd_m else "not known"}
    if data:
        rows["Pictures"] = (
            f"{data['places']} places, {data['chips']} chips, {data['places_with_pairs']} places with seasonal pairs"
        )
        rows["Dates"] = f"{data['first_date']} to {data['last_date']}" if data["first_date"] else "none known"
        rows["Fingerprint of the data"] = f"`{data['fingerprint']}`"
    for name, other in {"Parent": parent, "Distilled from": card.get("distilled_from")}.items():
        if other:
            rows[name] = f"{other['file']} ({other['layout']} layout), licence {other['licence']}, SHA-256 {other['sha256']}"
    if not data and not parent:
        rows["Data"] = "not known"
    return rows


def _recipe(card: Mapping[str, Any]) -> dict[str, str]:
    rows = {}
    if recipe := card.get("recipe"):
        views, season = recipe["views"], recipe["season"]
        steps = card.get("metrics", {}).get("steps", "?")
        locals_px = ", ".join(str(side) for side in recipe["local"]["sizes_px"])
        rows["Training"] = f"{steps} steps of {recipe['batch']}, views of {views['global_px']} and {locals_px} px"
        rows["Season"] = f"{season['mode']}, pairs by {season['pair']}, weight {season['weight']}"
    if card.get("init_seed") is not None:
        rows["Seed"] = str(card["init_seed"])
    if version := card.get("exported_by") or card.get("version"):
        rows["Written by"] = f"cgeartheye {version}"
    return rows


def _metrics(card: Mapping[str, Any]) -> dict[str, str]:
    metrics = {k: v for k, v in (card.get("metrics") or {}).items() if isinstance(v, int | float)}
    return {"Last values of the training log": ", ".join(f"{k} {v:g}" for k, v in sorted(metrics.items()))} if metrics else {}
