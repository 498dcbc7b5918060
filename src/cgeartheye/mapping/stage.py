"""The stage `map`: a task model over whole scenes."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any, Final

from cgeartheye.errors import DataError, InputError
from cgeartheye.files import write_json
from cgeartheye.mapping.scene import SceneTask, map_scene
from cgeartheye.processes import Pool
from cgeartheye.progress import SILENT, Progress
from cgeartheye.settings.map import MapSettings
from cgeartheye.stage import open_stage
from cgeartheye.tasks.segmentation import TaskCard, load_task

LOG = logging.getLogger(__name__)

WORTH_A_PROCESS: Final = 4
"""Fewer missing superblocks are computed without starting processes, each of which takes seconds to load [ours]."""


def map_scenes(settings: MapSettings, out: Path, *, progress: Progress = SILENT) -> Path:
    """Map whole scenes, window by window on one patch lattice, in the memory of one row of blocks and its open outlines.

    Each scene's folder receives ``classes.tif`` and ``confidence.tif`` (COG, 255 without data), ``polygons.parquet``, previews,
    ``scene.json`` and, where truth is given, ``scores.json``. Results depend neither on superblocks nor on workers; a killed
    run goes on from its finished superblocks and ends with the same bytes. A scene that cannot be used is left out and listed
    in ``left_out.json``; windows that cannot be read stay empty and are listed in the scene's record.

    Raises:
        InputError: if no task model is given, it is not usable, or the sizes leave its patch lattice.
        DataError: if no scene is usable.
        ResourceError: if the disk is full or a worker process died.
    """
    if settings.task is None:
        raise InputError("no task model is given", where="map.task", remedy="give its folder, or run `adapt` first")
    with open_stage(out, "map", settings, _inputs(settings, settings.task)) as stage:
        if stage.finished:
            return out
        _, card = load_task(settings.task)
        with Pool(settings.workers, "map.workers", worth=WORTH_A_PROCESS) as pool:
            todo = _todo(settings, settings.task, card, out)
            records, left_out = _map_all(todo, pool, progress)
        write_json(out / "left_out.json", left_out)
        if not records:
            raise DataError(
                f"no scene could be mapped; the first: {left_out[0]['reason']}",
                where=left_out[0]["path"],
                remedy=left_out[0]["remedy"],
            )
        stage.finish(_summary(records, left_out, card))
    return out


def _todo(settings: MapSettings, task: Path, card: TaskCard, out: Path) -> dict[str, SceneTask]:
    return {
        name: SceneTask(
            settings.scenes[number], settings.truth[number] if settings.truth else None, out / name, task, card, settings
        )
        for number, name in enumerate(scene_names(settings.scenes))
    }


def _map_all(
    todo: dict[str, SceneTask], pool: Pool, progress: Progress
) -> tuple[dict[str, dict[str, Any]], list[dict[str, str]]]:
    records: dict[str, dict[str, Any]] = {}
    left_out = []
    for name, scene_task in todo.items():
        try:
            records[name] = map_scene(scene_task, pool, progress)
            if records[name]["truth_problem"]:
                left_out.append(records[name]["truth_problem"])
        except DataError as error:
            LOG.warning("left out: %s", error)
            shutil.rmtree(scene_task.folder, ignore_errors=True)
            progress.say(f"map: {scene_task.scene.name} is left out: {error.what}")
            left_out.append({"path": error.where or str(scene_task.scene), "reason": error.what, "remedy": error.remedy or ""})
    return records, left_out


def scene_names(scenes: tuple[Path, ...]) -> list[str]:
    """Return a folder name for each scene: its stem, numbered where stems repeat."""
    names: list[str] = []
    for scene in scenes:
        name, number = scene.stem.lstrip(".") or "scene", 1
        while name in names:
            number += 1
            name = f"{scene.stem}_{number}"
        names.append(name)
    return names


def _inputs(settings: MapSettings, task: Path) -> dict[str, Path]:
    inputs = {"task": task}
    inputs |= {f"scene_{number}": path for number, path in enumerate(settings.scenes)}
    inputs |= {f"truth_{number}": path for number, path in enumerate(settings.truth)}
    return inputs


def _summary(records: dict[str, dict[str, Any]], left_out: list[dict[str, str]], card: TaskCard) -> dict[str, Any]:
    lost = {name: len(record["lost"]) for name, record in records.items() if record["lost"]}
    said = [
        f"{name}: mIoU {record['miou']['trained']['value']:.3f}"
        for name, record in records.items()
        if record["miou"] and record["miou"]["trained"]["value"] is not None
    ]
    scenes = f"{len(records)} scene{'s' if len(records) > 1 else ''}"
    return {
        "headline": "; ".join([scenes, *said, *([f"{len(left_out)} left out"] if left_out else [])]),
        "scenes": list(records),
        "left_out": len(left_out),
        "lost_windows": lost,
        "miou": {name: record["miou"] for name, record in records.items() if record["miou"]},
        "classes": [c.name for c in card.classes],
        "licence": card.licence,
    }
