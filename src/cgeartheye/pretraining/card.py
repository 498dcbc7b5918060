"""Where a backbone comes from: its card, and the names of the pictures it has seen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from cgeartheye.files import fingerprint, read_json
from cgeartheye.pretraining.places import Places
from cgeartheye.settings.pretrain import PretrainSettings
from cgeartheye.shards.reader import ShardReader
from cgeartheye.stage import MANIFEST
from cgeartheye.weights.card import restricted
from cgeartheye.weights.provenance import code_version


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
            "excluded": _excluded(reader.folder),
        },
        "gsd_m": round(float(np.median(gsd_m)), 4) if len(gsd_m) else None,
        "recipe": settings.identity(),
        "init_seed": settings.seed,
        "parent": None,
        "metrics": dict(metrics),
        "version": code_version(),
    }


def _excluded(curated: Path) -> dict[str, Any] | None:
    """Return the counts of what was never to be drawn: ``pictures`` compared with, ``places`` dropped; None if unknown."""
    manifest = curated / MANIFEST
    return read_json(manifest).get("summary", {}).get("excluded") if manifest.exists() else None


def training_names(reader: ShardReader) -> list[str]:
    """Return ``class/file name`` of every source picture of plain image folders, sorted; none for georeferenced scenes."""
    table = reader.table(["scene", "label"])
    pairs = zip(table["scene"].to_pylist(), table["label"].to_pylist(), strict=True)
    return sorted({f"{label}/{Path(scene).name}" for scene, label in pairs if scene is not None and label is not None})
