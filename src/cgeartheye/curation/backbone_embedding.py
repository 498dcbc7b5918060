"""Embedding by a frozen backbone, in one process: its threads are the backbone's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cgeartheye.curation.embedding import anchor_chips, features_of, save_array
from cgeartheye.inference.features import extract
from cgeartheye.progress import Progress
from cgeartheye.settings.curate import CurateSettings
from cgeartheye.training.runtime import runtime
from cgeartheye.weights.load import load_backbone


def embed_with_backbone(
    todo: Sequence[Path], out: Path, settings: CurateSettings, *, progress: Progress, done: int
) -> dict[str, Any]:
    """Embed the pieces whose index parts are ``todo``; return what made the features (name, fingerprint, licence ...)."""
    chosen = settings.embedding
    backbone = load_backbone(chosen.backbone)
    with runtime(threads=settings.threads), progress.task("embeddings", len(todo) + done, done) as advance:
        for part in todo:
            rows = np.zeros((0, 0), np.float32)
            if images := anchor_chips(part):
                readouts = (chosen.readout,)
                found = extract(backbone, images, size_px=chosen.size_px, readouts=readouts, batch=chosen.batch)
                rows = found[chosen.readout]
                rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
            save_array(features_of(part, out), rows)
            advance(1)
    return {
        "backbone": backbone.name,
        "fingerprint": backbone.fingerprint,
        "licence": backbone.licence,
        "readout": chosen.readout,
        "size_px": chosen.size_px,
    }
