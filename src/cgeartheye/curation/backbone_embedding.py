"""Embedding by a frozen backbone, in one process: its threads are the backbone's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cgeartheye.curation.embedding import anchor_chips, features_of, save_array
from cgeartheye.errors import InputError, ShapeError
from cgeartheye.inference.features import extract_levels
from cgeartheye.models.vit import block_numbers
from cgeartheye.progress import Progress
from cgeartheye.settings.curate import CurateSettings
from cgeartheye.settings.curate_embedding import EmbeddingSettings
from cgeartheye.training.runtime import pick_device, runtime
from cgeartheye.weights.backbone import Backbone
from cgeartheye.weights.load import load_backbone


def embed_with_backbone(
    todo: Sequence[Path], out: Path, settings: CurateSettings, *, progress: Progress, done: int
) -> dict[str, Any]:
    """Embed the pieces whose index parts are ``todo``; return what made the features (name, fingerprint, licence ...).

    Raises:
        InputError: if a level is asked for that the backbone does not have.
    """
    chosen = settings.embedding
    backbone = load_backbone(chosen.backbone)
    made = _describe(backbone, chosen)
    backbone.to(pick_device(chosen.device))
    with runtime(threads=settings.threads), progress.task("embeddings", len(todo) + done, done) as advance:
        for part in todo:
            save_array(features_of(part, out), _embed(backbone, part, chosen))
            advance(1)
    return made


def _embed(backbone: Backbone, part: Path, chosen: EmbeddingSettings) -> NDArray[np.float16]:
    """Return (places, d) float16: each readout of each level at unit length, side by side, and the whole at unit length again."""
    blocks = extract_levels(
        backbone,
        anchor_chips(part),
        layers=chosen.levels,
        readouts=chosen.readouts,
        size_px=chosen.size_px,
        batch=chosen.batch,
    )
    # lengths are taken in float32 before the rounding: float16 squares overflow from 256 on
    unit = [block / np.maximum(np.linalg.norm(block, axis=1, keepdims=True), 1e-12) for block in blocks]
    return (np.concatenate(unit, axis=1) / np.sqrt(len(unit))).astype(np.float16) if unit else np.zeros((0, 0), np.float16)


def _describe(backbone: Backbone, chosen: EmbeddingSettings) -> dict[str, Any]:
    try:
        numbers = block_numbers(chosen.levels, backbone.depth)
    except ShapeError as error:
        remedy = f"{backbone.name} has {backbone.depth} blocks"
        raise InputError(f"a level does not exist: {error}", where="curate.embedding.levels", remedy=remedy) from error
    words = {"class": "class token", "mean": "mean patch"}
    widths = backbone.level_widths(chosen.levels)
    return {
        "backbone": backbone.name,
        "fingerprint": backbone.fingerprint,
        "licence": backbone.licence,
        "readout": " + ".join(words[name] for name in chosen.readouts) + f" of block {', '.join(map(str, numbers))}",
        "blocks": [
            {"level": number, "readout": readout, "width": width}
            for number, width in zip(numbers, widths, strict=True)
            for readout in chosen.readouts
        ],
        "combine": chosen.combine,
        "size_px": chosen.size_px,
        "transform": "shorter side to size_px, bicubic with antialias; centre square; the backbone's own normalisation",
    }
