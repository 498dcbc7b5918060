"""What must never be drawn: pictures of benchmarks, kept only to be compared with, and footprints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cgeartheye.clustering.kmeans import assign
from cgeartheye.curation.candidates import Candidates, outside_hold_out
from cgeartheye.curation.covariates import meeting
from cgeartheye.curation.duplicates import Shown
from cgeartheye.curation.embedding import anchor_rows, embed_pieces, read_features
from cgeartheye.curation.layers import Cells
from cgeartheye.curation.pictures import cut_pictures, find_pictures
from cgeartheye.curation.pieces import LOOKED_AT, Workers, cut_pieces, gather_pieces
from cgeartheye.errors import DataError
from cgeartheye.settings.curate import CurateSettings, SplitSettings
from cgeartheye.settings.curate_checks import QualitySettings

_ANY_QUALITY = QualitySettings(max_nodata_share=1, max_saturated_share=1, min_std=0, min_entropy=0, max_reblur=1)


@dataclass(frozen=True)
class Excluded:
    """Excluded pictures as a folder of pieces.

    Args:
        shown: what places are compared with, or None where no picture could be read.
        counts: ``pictures`` that were read, ``unreadable`` ones.
    """

    shown: Shown | None
    counts: Mapping[str, int]


def read_excluded(settings: CurateSettings, work: Path, centroids: NDArray[np.float32], workers: Workers) -> Excluded | None:
    """Read, embed and assign to clusters the pictures of all excluded folders; None if there is no such folder.

    Pictures are read as those of ``source: images`` are, ``cut_px`` included, whatever their quality.

    Args:
        settings: ``exclude`` names the folders.
        work: receives pieces and features.
        centroids: (k, d) float32, mean directions of the leaves of the places' clusters.
        workers: read and embed.

    Raises:
        DataError: if a folder holds no picture.
    """
    folders = [path for path in settings.exclude if path.is_dir()]
    if not folders:
        return None
    loose: dict[str, Any] = {"include": (), "split": SplitSettings(), "quality": _ANY_QUALITY}
    tasks = [
        task for root in folders for task in find_pictures(root, settings.model_copy(update={**loose, "images": root})).tasks
    ]
    cut_pieces(cut_pictures, tasks, work / "chips", workers=workers, title="excluded pictures")
    pieces = gather_pieces(work / "chips", len(tasks))
    counts = {"pictures": len(pieces.rows), "unreadable": pieces.counts.get("unreadable", 0)}
    if counts["unreadable"]:
        workers.progress.say(f"{counts['unreadable']} excluded pictures cannot be read, so that their likes are not found")
    if not counts["pictures"]:
        return Excluded(None, counts)
    parts, rows = sorted((work / "chips" / "parts").glob("*.parquet")), anchor_rows(pieces.rows.select(LOOKED_AT))
    embed_pieces(parts, work / "features", settings, workers)
    features = read_features(parts, work / "features")
    labels, _ = assign(features, centroids)
    return Excluded(Shown(work / "chips", rows, np.ones(len(rows), np.int64), work / "features" / "features.npy", labels), counts)


def outside_excluded(candidates: Candidates, settings: CurateSettings, side_m: float) -> NDArray[np.bool_]:
    """Return (n,) bool, True where a chip keeps ``side_m`` metres away from the footprints of every excluded file."""
    away = np.ones(len(candidates.cells), bool)
    for path in settings.exclude:
        if not path.is_dir():
            away &= outside_hold_out(candidates.lon, candidates.lat, path, side_m)
    return away


def meets_excluded(cells: Cells, settings: CurateSettings) -> NDArray[np.bool_]:
    """Return (n,) bool, True where a cell's area meets the footprint of an excluded file."""
    met = np.zeros(len(cells), bool)
    for path in settings.exclude:
        met |= meeting(cells, path)
    return met


def refuse_exclusions(settings: CurateSettings) -> None:
    """Stop if footprints are to be kept away from pictures that lie nowhere, or pictures from cells that show nothing.

    Raises:
        DataError: naming the file or folder.
    """
    for path in settings.exclude:
        if settings.source == "images" and not path.is_dir():
            raise DataError(
                "plain pictures have no place on the ground to compare footprints with",
                where=str(path),
                remedy="give the folder of the pictures themselves in curate.exclude",
            )
        if settings.source == "land" and path.is_dir():
            raise DataError(
                "a draw from land alone has no pictures to compare those of a folder with",
                where=str(path),
                remedy="give a file of their footprints in curate.exclude",
            )
