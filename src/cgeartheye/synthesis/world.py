"""The rendered world as files: scenes, layers, labels, benchmark and the truth about them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import box

from cgeartheye.errors import InputError
from cgeartheye.files import read_json, write_json
from cgeartheye.processes import Pool
from cgeartheye.progress import SILENT, Advance, Progress
from cgeartheye.seeding import stream
from cgeartheye.settings.world import WorldSettings
from cgeartheye.synthesis import labels
from cgeartheye.synthesis.atmosphere import CLOUD, as_truth, expose, plan_scenes, plan_sky, veil
from cgeartheye.synthesis.benchmark import Chip, Picture, list_places, publish, write_chips
from cgeartheye.synthesis.canvas import Canvas, make_canvas
from cgeartheye.synthesis.changes import Change
from cgeartheye.synthesis.files import CRS, ORIGIN, Raster, read_pixels, write_geojson, write_raster
from cgeartheye.synthesis.holdout import Block, chip_classes, choose_blocks, covered
from cgeartheye.synthesis.layout import UNUSED, Layout, make_layout
from cgeartheye.synthesis.relief import RELIEF_M
from cgeartheye.synthesis.render import render_quarter
from cgeartheye.synthesis.seasons import DATES, sun_on
from cgeartheye.synthesis.uses import CLASSES, COVERS

SCHEMA_VERSION: Final = 1
QUARTERS: Final = tuple(f"{day.year}Q{(day.month + 2) // 3}" for day in DATES)
SUMMER: Final = 2
"""The quarter whose scenes are also written as one mosaic, to map it as a whole."""
TRUTH: Final = "world.json"
BEGUN: Final = "begun.json"


class World:
    """A landscape that is made when it is first needed; files that exist need none of it."""

    def __init__(self, settings: WorldSettings, out: Path) -> None:
        self.settings, self.out = settings, out

    @cached_property
    def layout(self) -> Layout:
        """The geometry."""
        return make_layout(self.settings)

    @cached_property
    def canvas(self) -> Canvas:
        """The layers on the pixel grid."""
        return make_canvas(self.settings, self.layout)

    @cached_property
    def classes(self) -> NDArray[np.uint8]:
        """The class of neighbourhoods (H, W)."""
        return labels.class_labels(self.canvas)

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The hold-out blocks."""
        pure, _ = chip_classes(self.classes, self.settings.chip_px, len(CLASSES))
        return choose_blocks(pure, len(CLASSES), stream(self.settings.seed, "hold-out"))


def render_world(settings: WorldSettings, out: Path, *, progress: Progress = SILENT) -> Path:
    """Render the world of ``settings`` into the folder ``out`` and return it.

    Every file is a function of the settings and is written whole or not at all; files that exist are kept, so that a killed
    call is continued by the same call. ``world.json``, the truth about everything, is written last.

    Raises:
        InputError: if ``out`` holds a world of other settings.
        ResourceError: if the disk is full or the folder may not be written.
    """
    begun = {"schema_version": SCHEMA_VERSION, "settings": settings.identity()}
    if (out / BEGUN).exists() and read_json(out / BEGUN) != begun:
        raise InputError("holds a world of other settings", where=str(out), remedy="choose another folder, or remove this one")
    if (out / TRUTH).exists():
        return out
    write_json(out / BEGUN, begun)
    for left_over in out.rglob(".*.tmp.*"):
        left_over.unlink()  # of a killed call
    world = World(settings, out)
    with progress.task("rendering the world", 6) as advance:
        _render_all(settings, out, world, advance)
        _write_labels(world)
        advance(1)
        chips = _write_benchmark(world)
        advance(1)
    write_json(out / TRUTH, _truth(world, chips))
    return out


def scene_path(out: Path, quarter: int, row: int, column: int) -> Path:
    """Return where a scene lies: its name carries the date."""
    return out / "scenes" / QUARTERS[quarter] / f"world_{DATES[quarter]:%Y%m%d}_r{row}c{column}.tif"


def _cloud_path(out: Path, quarter: int) -> Path:
    return out / "labels" / f"clouds_{QUARTERS[quarter]}.tif"


def _render_all(settings: WorldSettings, out: Path, world: World, advance: Advance) -> None:
    todo = [quarter for quarter in range(len(QUARTERS)) if not _quarter_exists(settings, out, quarter)]
    advance(len(QUARTERS) - len(todo))
    if settings.workers > 1 and len(todo) > 1:
        with Pool(min(settings.workers, len(todo)), "world.workers") as pool:
            for _ in pool.finished(_render_alone, ((settings, out, quarter) for quarter in todo), len(todo)):
                advance(1)
        return
    for quarter in todo:
        _render_one(world, quarter)
        advance(1)


def _render_alone(settings: WorldSettings, out: Path, quarter: int) -> None:
    _render_one(World(settings, out), quarter)


def _quarter_exists(settings: WorldSettings, out: Path, quarter: int) -> bool:
    scenes = [scene_path(out, quarter, plan.row, plan.column) for plan in plan_scenes(settings, quarter)]
    return all(path.exists() for path in [*scenes, _cloud_path(out, quarter)])


def _render_one(world: World, quarter: int) -> None:
    settings, out = world.settings, world.out
    picture = render_quarter(world.canvas, quarter)
    mask = veil(picture, settings, quarter, sky=plan_sky(settings, quarter), sun=sun_on(DATES[quarter]))
    write_raster(_cloud_path(out, quarter), mask, Raster(settings.gsd_m))
    tags = {"TIFFTAG_DATETIME": f"{DATES[quarter]:%Y:%m:%d} 10:30:00", "TIFFTAG_SOFTWARE": "cgeartheye rendered world"}
    for plan in plan_scenes(settings, quarter):
        scene = expose(picture, plan, stream(settings.seed, "sensor", quarter, plan.row, plan.column))
        raster = Raster(settings.gsd_m, nodata=0, at_px=(plan.window[1], plan.window[0]), tags=tags)
        write_raster(scene_path(out, quarter, plan.row, plan.column), scene, raster)


def _write_labels(world: World) -> None:
    settings, out, gsd = world.settings, world.out, world.settings.gsd_m
    size = settings.size_m
    _make(out / "layers/land_cover.tif", lambda p: write_raster(p, labels.land_cover(world.layout, size), Raster(RELIEF_M, 0)))
    _make(out / "layers/elevation.tif", lambda p: write_raster(p, world.layout.relief, Raster(RELIEF_M, -9999.0)))
    _make(out / "layers/regions.geojson", lambda p: write_geojson(p, labels.regions(world.layout, size)))
    _make(out / "labels/buildings.parquet", lambda p: labels.write_buildings(p, world.layout, QUARTERS))
    change = out / f"labels/change_{QUARTERS[0]}_{QUARTERS[-1]}.tif"
    _make(change, lambda p: write_raster(p, labels.change_labels(world.canvas), Raster(gsd)))
    mosaic = out / "mosaics" / f"{QUARTERS[SUMMER]}.tif"
    _make(mosaic, lambda p: write_raster(p, mosaic_of(settings, out, SUMMER), Raster(gsd, nodata=0)))
    _make(out / "hold_out.geojson", lambda p: write_geojson(p, _hold_out(world)))
    for name, colours in (("classes", labels.CLASS_COLOURS), ("cover", labels.COVER_COLOURS)):
        _write_class_raster(world, name, dict(enumerate(colours.values())))


def _write_class_raster(world: World, name: str, colours: dict[int, labels.Rgb]) -> None:
    """Write ``name.tif`` and its parts outside (``_train``) and inside (``_test``) of the hold-out blocks."""
    paths = [world.out / "labels" / f"{name}{part}.tif" for part in ("", "_train", "_test")]
    if all(path.exists() for path in paths):
        return
    whole = world.classes if name == "classes" else labels.cover_labels(world.canvas)
    raster = Raster(world.settings.gsd_m, nodata=UNUSED, colours=colours)
    for path, hidden in zip(paths, (None, *_hidden(world)), strict=True):
        if not path.exists():
            write_raster(path, whole if hidden is None else np.where(hidden, UNUSED, whole).astype(np.uint8), raster)


def _hidden(world: World) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the pixels (H, W) that training and that testing must not see."""
    side, chip = world.settings.side_px, world.settings.chip_px
    near, inside = np.zeros((side, side), dtype=bool), np.zeros((side, side), dtype=bool)
    for block in world.blocks:
        top, left = block.row * chip, block.column * chip
        bottom, right = top + block.rows * chip, left + block.columns * chip
        inside[top:bottom, left:right] = True
        near[max(0, top - chip) : bottom + chip, max(0, left - chip) : right + chip] = True
    return near, ~inside


def _hold_out(world: World) -> dict[str, Any]:
    chip = world.settings.chip_m
    return {
        f"block {number}": box(b.column * chip, b.row * chip, (b.column + b.columns) * chip, (b.row + b.rows) * chip)
        for number, b in enumerate(world.blocks, start=1)
    }


def _make(path: Path, write: Callable[[Path], None]) -> None:
    if not path.exists():
        write(path)


def mosaic_of(settings: WorldSettings, out: Path, quarter: int) -> NDArray[np.uint8]:
    """Return a quarter's scenes as one picture (H, W, 3) uint8; in overlaps the later scene lies on top where it has data."""
    mosaic = np.zeros((settings.side_px, settings.side_px, 3), dtype=np.uint8)
    for plan in plan_scenes(settings, quarter):
        top, left, height, width = plan.window
        view = mosaic[top : top + height, left : left + width]
        scene = read_pixels(scene_path(out, quarter, plan.row, plan.column))
        np.copyto(view, scene, where=scene.any(axis=2, keepdims=True))
    return mosaic


def _write_benchmark(world: World) -> list[Chip]:
    settings, folder = world.settings, world.out / "benchmark"
    if folder.exists():
        return [Chip(**chip) for chip in read_json(folder / "chips.json")["chips"]]
    working = world.out / ".benchmark.tmp"
    shutil.rmtree(working, ignore_errors=True)
    places = list_places(world.classes, world.blocks, settings.chip_px)
    chips: list[Chip] = []
    for quarter, name in enumerate(QUARTERS):
        mosaic = mosaic_of(settings, world.out, quarter)
        bad = (read_pixels(_cloud_path(world.out, quarter)) > 0) | ~mosaic.any(axis=2)
        chips += write_chips(working, places, Picture(name, mosaic, bad), chip_px=settings.chip_px, gsd_m=settings.gsd_m)
    publish(working, folder, chips)
    return chips


def _truth(world: World, chips: list[Chip]) -> dict[str, Any]:
    settings, out = world.settings, world.out
    side = settings.side_px // settings.chip_px
    near = covered(world.blocks, side, 1)
    folders = ("scenes", "mosaics", "layers", "labels")
    files = sorted(p.relative_to(out).as_posix() for f in folders for p in (out / f).rglob("[!.]*") if p.is_file())
    files += ["benchmark/chips.json", "hold_out.geojson"]
    counts = {part: dict.fromkeys(CLASSES, 0) for part in ("train", "test")}
    for chip in chips:
        counts[chip.part][chip.label] += 1
    return {
        "schema_version": SCHEMA_VERSION,
        "settings": settings.identity(),
        "crs": CRS,
        "mosaic": f"mosaics/{QUARTERS[SUMMER]}.tif",
        "origin": list(ORIGIN),
        "licence": "CC0-1.0",
        "classes": [{"value": i, "name": n, "colour": labels.CLASS_COLOURS[n]} for i, n in enumerate(CLASSES)],
        "covers": [{"value": i, "name": n, "colour": labels.COVER_COLOURS[n]} for i, n in enumerate(COVERS)],
        "land_covers": [{"value": i, "name": n} for i, n in enumerate(labels.LAND_COVERS, start=1)],
        "hold_out": {"share": float(covered(world.blocks, side).mean()), "cells_left": int((~near).sum()), "cells": side**2},
        "chips": counts,
        "changes": [_change_truth(change) for change in world.layout.changes.pieces],
        "quarters": [_quarter_truth(world, quarter) for quarter in range(len(QUARTERS))],
        "files": files,
    }


def _change_truth(change: Change) -> dict[str, Any]:
    return {"kind": change.kind, "since": QUARTERS[change.since], "area_m2": round(change.outline.area, 1)}


def _quarter_truth(world: World, quarter: int) -> dict[str, Any]:
    settings, out = world.settings, world.out
    sky, sun = plan_sky(settings, quarter), sun_on(DATES[quarter])
    clouds = read_pixels(_cloud_path(out, quarter))
    scenes = []
    for plan in plan_scenes(settings, quarter):
        top, left, height, width = plan.window
        path = scene_path(out, quarter, plan.row, plan.column)
        cloud = float((clouds[top : top + height, left : left + width] == CLOUD).mean())
        lost = float((~read_pixels(path).any(axis=2)).mean()) if plan.wedge[0] else 0.0
        name = path.relative_to(out).as_posix()
        scenes.append({"file": name, **as_truth(plan), "cloud_share": round(cloud, 5), "no_data_share": round(lost, 5)})
    return {
        "name": QUARTERS[quarter],
        "date": DATES[quarter].isoformat(),
        "sun_elevation_deg": round(sun.elevation_deg, 2),
        "sun_azimuth_deg": round(sun.azimuth_deg, 2),
        "haze": round(sky.haze, 4),
        "extra_haze": round(sky.extra_haze, 4),
        "clouds": [{"x": round(x, 1), "y": round(y, 1), "radius_m": round(r, 1)} for x, y, r in sky.clouds.tolist()],
        "cloud_share": round(float((clouds == CLOUD).mean()), 5),
        "scenes": scenes,
    }
