"""One scene from its superblocks to its finished folder."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window as RasterWindow

from cgeartheye.errors import DataError
from cgeartheye.files import read_json, write_json
from cgeartheye.geometry.windows import Window, WindowPlan, check_lattice
from cgeartheye.mapping.blocks import Job, compute_blocks
from cgeartheye.mapping.finish import Counts, Targets, assemble, block_px
from cgeartheye.mapping.previews import class_preview, scene_preview
from cgeartheye.mapping.scores import block_confusions
from cgeartheye.mapping.source import SceneSource, plan_source
from cgeartheye.metrics.segmentation import score_table
from cgeartheye.processes import Pool
from cgeartheye.progress import Progress
from cgeartheye.rasters.reader import open_raster, read_values
from cgeartheye.rasters.writer import write_cog
from cgeartheye.settings.map import MapSettings
from cgeartheye.tasks.segmentation import TaskCard, methods
from cgeartheye.vectors.geoparquet import write_polygons
from cgeartheye.vectors.polygonize import Outlines, polygonize

LOG = logging.getLogger(__name__)
RECORD: Final = "scene.json"
"""Written last: a scene's folder with it is finished."""
SUPERBLOCK_PX: Final = 1024
"""Side of a default superblock, to the next whole core [ours: 4 bytes x classes x its square are in memory]."""


@dataclass(frozen=True)
class SceneTask:
    """What is to be done with one scene."""

    scene: Path
    truth: Path | None
    folder: Path
    """Receives the products."""
    task: Path
    card: TaskCard
    settings: MapSettings


def map_scene(todo: SceneTask, pool: Pool, progress: Progress) -> dict[str, Any]:
    """Map one scene, or return the record of an earlier run.

    Returns: what ``scene.json`` says.

    Raises:
        DataError: if the scene cannot be read at all or has no georeference.
        ResourceError: if the disk is full or a worker process died; finished superblocks stay.
    """
    record_path = todo.folder / RECORD
    if record_path.exists():
        done: dict[str, Any] = read_json(record_path)
        return done
    source = plan_source(todo.scene, todo.card.gsd_m)
    plan = plan_windows(todo.card, todo.settings, source)
    state = todo.folder / ".state"
    _sweep(todo.folder)
    job = Job(todo.task, "trained", source, plan, todo.settings.batch, state / "trained")
    compute_blocks(job, pool, progress)
    counts = _rasters(job, todo, progress)
    if todo.settings.polygons.on:
        _polygons(job, todo, progress)
    scores, problem = _judge(job, todo, pool, progress)
    scene_preview(source, todo.folder / "scene_preview.png")
    class_preview(todo.folder / "classes.tif", source, todo.card.classes, todo.folder / "preview.png")
    record = {**_record(todo, source, plan, counts), "miou": None, "truth_problem": problem}
    if scores is not None:
        record["miou"] = {method: row["miou"] for method, row in scores["methods"].items()}
    shutil.rmtree(state)
    write_json(record_path, record)
    return record


def plan_windows(card: TaskCard, settings: MapSettings, source: SceneSource) -> WindowPlan:
    """Return the windows of a scene.

    Raises:
        InputError: if window and halo do not lie on the patch lattice.
    """
    window_px = settings.window_px or card.window_px
    halo_px = card.halo_px if settings.halo_px is None else settings.halo_px
    check_lattice(window_px, halo_px, card.patch_px)
    core = window_px - 2 * halo_px
    superblock = settings.superblock or max(1, -(-SUPERBLOCK_PX // core))
    return WindowPlan(source.grid.height, source.grid.width, window_px, halo_px, card.patch_px, superblock)


def _sweep(folder: Path) -> None:
    """Remove half-written files of a killed run."""
    for path in folder.glob(".*.tmp*") if folder.exists() else ():
        path.unlink(missing_ok=True)


def _rasters(job: Job, todo: SceneTask, progress: Progress) -> Counts:
    state, folder = job.state.parent, todo.folder
    confidence = state / "confidence.tif" if todo.settings.confidence else None
    counts = assemble(job, todo.card.classes, Targets(state / "classes.tif", confidence), progress=progress)
    total = len([core for block in job.plan.blocks() for core in block.cores])
    if len(counts.lost) == total:
        raise DataError("not one window can be read", where=str(todo.scene), remedy="copy or download the scene again")
    if counts.lost:
        LOG.warning("%s: %d of %d windows cannot be read and stay empty", todo.scene, len(counts.lost), total)
        progress.say(f"map: {todo.scene.name}: {len(counts.lost)} of {total} windows cannot be read; the rest is mapped")
    side = block_px(job.plan.core_px)
    write_cog(folder / "classes.tif", state / "classes.tif", categorical=True, block_px=side)
    if confidence is not None:
        write_cog(folder / "confidence.tif", confidence, categorical=False, block_px=side)
    return counts


def _polygons(job: Job, todo: SceneTask, progress: Progress) -> None:
    progress.say(f"map: outlines of {todo.scene.stem}")
    chosen, classes = todo.settings.polygons, todo.card.classes
    with open_raster(job.state.parent / "classes.tif") as raster:

        def read(window: Window) -> NDArray[np.uint8]:
            values = read_values(raster, RasterWindow(window.col, window.row, window.width, window.height))[0]
            return values.astype(np.uint8)

        outlines = Outlines(chosen.min_px, chosen.simplify_px)
        write_polygons(
            todo.folder / "polygons.parquet",
            polygonize(read, job.plan.height, job.plan.width, outlines=outlines),
            names={c.value: c.name for c in classes},
            transform=job.source.transform,
            crs=job.source.crs,
            size=(job.plan.height, job.plan.width),
        )


def _judge(job: Job, todo: SceneTask, pool: Pool, progress: Progress) -> tuple[dict[str, Any] | None, dict[str, str] | None]:
    """Return the scores, and what is wrong with the truth; a map is not lost for a bad truth."""
    if todo.truth is None:
        return None, None
    try:
        return _scores(job, todo, todo.truth, _baselines(job, todo, pool, progress)), None
    except DataError as error:
        LOG.warning("no scores: %s", error)
        progress.say(f"map: no scores of {todo.scene.stem}: {error.what}")
        return None, {"path": error.where or str(todo.truth), "reason": error.what, "remedy": error.remedy or ""}


def _baselines(job: Job, todo: SceneTask, pool: Pool, progress: Progress) -> dict[str, Path]:
    """Map the scene with each baseline, for its scores only; return their class rasters."""
    maps = {}
    state = job.state.parent
    for method in methods(todo.task) if todo.settings.baselines else ():
        if method != job.method:
            other = replace(job, method=method, state=state / method)
            compute_blocks(other, pool, progress)
            maps[method] = state / f"{method}.tif"
            assemble(other, todo.card.classes, Targets(maps[method]), progress=progress)
    return maps


def _scores(job: Job, todo: SceneTask, truth: Path, baselines: Mapping[str, Path]) -> dict[str, Any]:
    """Score the map and the baselines' maps, and write ``scores.json`` and the truth's preview."""
    settings, classes = todo.settings, todo.card.classes
    maps = {"trained": todo.folder / "classes.tif", **baselines}
    counted = {
        method: block_confusions(path, truth, job.source, classes, side_px=settings.score_block_px)
        for method, path in maps.items()
    }
    names = [c.name for c in classes]
    confusions = {method: blocks for method, (blocks, _) in counted.items()}
    scores = {
        "schema_version": 1,
        "truth": truth.name,
        "block_px": settings.score_block_px,
        "left_out_pixels": counted["trained"][1],
        "classes": names,
        "confusion": confusions["trained"].sum(0).tolist(),
        "methods": score_table(confusions, names, draws=settings.bootstrap, seed=settings.seed),
    }
    write_json(todo.folder / "scores.json", scores)
    class_preview(truth, job.source, classes, todo.folder / "truth_preview.png")
    return scores


def _record(todo: SceneTask, source: SceneSource, plan: WindowPlan, counts: Counts) -> dict[str, Any]:
    mapped = int(counts.pixels.sum())
    return {
        "schema_version": 1,
        "scene": todo.scene.name,
        "crs": source.crs,
        "transform": list(source.transform),
        "gsd_m": round(source.gsd_m, 6),
        "resampled": source.resampled,
        "height": plan.height,
        "width": plan.width,
        "window_px": plan.window_px,
        "halo_px": plan.halo_px,
        "stride_px": plan.core_px,
        "windows": plan.counts[0] * plan.counts[1],
        "lost": [list(index) for index in sorted(counts.lost)],
        "unmapped_share": round(counts.unmapped / (plan.height * plan.width), 6),
        "shares": {c.name: round(int(n) / max(mapped, 1), 6) for c, n in zip(todo.card.classes, counts.pixels, strict=True)},
    }
