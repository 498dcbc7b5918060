"""Where a backbone comes from: its card, its model card for people, and the names of the pictures it has seen."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.compute as pc

from cgeartheye.files import fingerprint
from cgeartheye.pretraining.places import Places
from cgeartheye.settings.pretrain import PretrainSettings
from cgeartheye.shards.reader import ShardReader

_RESTRICTED: Final = re.compile(r"\bnc\b|non-?commercial|research|academic|scientific", re.IGNORECASE)


def describe(reader: ShardReader, places: Places, settings: PretrainSettings, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the card: data lineage, licences, resolution, recipe, seeds, metrics."""
    table = reader.table(["gsd_m", "licence", "date"])
    gsd_m = table["gsd_m"].drop_null().to_numpy()
    licences = sorted({value or "unknown" for value in table["licence"].unique().to_pylist()})
    dates = pc.min_max(table["date"]).as_py()
    return {
        "name": f"cgeartheye-{settings.backbone}",
        "licence": "; ".join(licences),
        "restricted_by": restricted(licences),
        "data": {
            "fingerprint": fingerprint(reader.folder),
            "places": len(places),
            "chips": places.chips,
            "places_with_pairs": places.pairable(),
            "licences": licences,
            "first_date": dates["min"].isoformat() if dates["min"] else None,
            "last_date": dates["max"].isoformat() if dates["max"] else None,
        },
        "gsd_m": round(float(np.median(gsd_m)), 4) if len(gsd_m) else None,
        "recipe": settings.identity(),
        "init_seed": settings.seed,
        "parent": None,
        "metrics": dict(metrics),
    }


def restricted(licences: Iterable[str]) -> list[str]:
    """Return the licences whose names say that commercial use is not allowed; what is learned from them is marked."""
    return [licence for licence in licences if _RESTRICTED.search(licence)]


def training_names(reader: ShardReader) -> list[str]:
    """Return ``class/file name`` of every source picture of plain image folders, sorted; none for georeferenced scenes."""
    table = reader.table(["scene", "label"])
    pairs = zip(table["scene"].to_pylist(), table["label"].to_pylist(), strict=True)
    return sorted({f"{label}/{Path(scene).name}" for scene, label in pairs if scene is not None and label is not None})


def model_card(card: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Return ``MODEL_CARD.md``."""
    data, recipe, metrics = card["data"], card["recipe"], card["metrics"]
    views, season = recipe["views"], recipe["season"]
    rows = {
        "Network": f"vision transformer, patch {config['patch_px']}, width {config['width']}, depth {config['depth']}",
        "Licence of its data": card["licence"] + (" - **not for commercial use**" if card["restricted_by"] else ""),
        "Pictures": f"{data['places']} places, {data['chips']} chips, {data['places_with_pairs']} places with seasonal pairs",
        "Dates": f"{data['first_date']} to {data['last_date']}" if data["first_date"] else "none known",
        "Ground sampling distance": f"{card['gsd_m']} m" if card["gsd_m"] else "not known",
        "Input": f"RGB in [0, 1], mean {config['mean']}, deviation {config['std']} (subtracted inside the network)",
        "Training": f"{metrics['steps']} steps of {recipe['batch']}, views of {views['global_px']} and {views['local_px']} px",
        "Season": f"{season['mode']}, pairs by {season['pair']}, weight {season['weight']}",
        "Seed": card["init_seed"],
        "Fingerprint of the data": f"`{data['fingerprint']}`",
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join(
        [
            f"# {card['name']}",
            "",
            "Frozen features for overhead imagery, learned without labels by self-distillation over views, hidden patches and",
            "dates (DINOv2, arXiv 2304.07193; CGEarthEye, arXiv 2507.00356). Independent of the authors of both.",
            "",
            "| | |",
            "|---|---|",
            *lines,
            "",
            "**Use.** Frozen: patch tokens (mean and deviation) or the class token, under a linear or dense head.",
            "**Limits.** It knows the places, dates and resolution above; what it does elsewhere has to be measured. Its licence",
            "follows its data. Whether it is any good is said by an evaluation, not by this card or the loss.",
            "",
        ]
    )
