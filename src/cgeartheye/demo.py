"""`demo`: render a four-season world (or take a folder of real scenes), write its project file, run it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from cgeartheye.errors import InputError
from cgeartheye.files import read_json, write_text
from cgeartheye.progress import Progress
from cgeartheye.run import Request, run_project
from cgeartheye.settings.project import load_project
from cgeartheye.settings.world import WorldSettings
from cgeartheye.synthesis import render_world

QUICK_SIZE_M: Final = 1152.0
"""Side of the world in the short form: twelve cells of 96 m."""
CELL_M: Final = 96.0
"""Side of the demo's cells; a chip covers one [ours: a small world must hold hundreds of places]."""
STEPS: Final = 400
"""Steps of pre-training [ours: about four minutes on one core]."""
QUICK_STEPS: Final = 40

_HEAD = """# Written by `cgeartheye demo`. Change it and give it to `cgeartheye run`;
# `cgeartheye VERB --settings` explains every key of a section.
"""


@dataclass(frozen=True)
class DemoRequest:
    """What kind of demo: see the options of the verb."""

    out: Path
    seed: int = 0
    size_m: float = 3000.0
    gsd_m: float = 0.75
    quick: bool = False
    archive: Path | None = None
    world_only: bool = False


def demo(request: DemoRequest, progress: Progress) -> dict[str, Any]:
    """Render, write ``project.yaml`` (unless the user has one there already), run; return what `run` returns.

    Raises:
        InputError: if the archive does not exist, or the folder holds a world of other settings.
        CGEarthEyeError: whatever a stage raises.
    """
    if request.quick:
        request = dataclasses.replace(request, size_m=min(request.size_m, QUICK_SIZE_M))
    if request.archive is not None:
        if not request.archive.exists():
            raise InputError("there is no such folder", where=str(request.archive), remedy="give --archive a folder of GeoTIFFs")
        values = archive_project(request, request.archive)
    else:
        render_world(_world(request), request.out / "world", progress=progress)
        values = world_project(request, read_json(request.out / "world" / "world.json"))
    project_file = request.out / "project.yaml"
    if not project_file.exists():
        write_text(project_file, _HEAD + yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120))
    progress.say(f"project   {project_file}")
    if request.world_only:
        return {"project": str(project_file)}
    results = run_project(Request(load_project(project_file)), progress)
    progress.say(f"look at   {request.out / 'report' / 'report.html'}")
    return results


def _world(request: DemoRequest) -> WorldSettings:
    return WorldSettings(
        seed=request.seed, size_m=request.size_m, gsd_m=request.gsd_m, chip_px=round(CELL_M / request.gsd_m), workers=2
    )


def world_project(request: DemoRequest, truth: dict[str, Any]) -> dict[str, Any]:
    """Return the project of a rendered world as plain values; ``truth`` is its ``world.json``."""
    chip_px = round(CELL_M / request.gsd_m)
    return {
        "schema_version": 1,
        "name": "A rendered world in four seasons",
        "out": ".",
        "seed": request.seed,
        "threads": 1,  # nano's matrices are so small that a second thread costs more than it gives
        "catalog": {"scenes": ["world/scenes"], "licence": "CC0-1.0"},
        "curate": {
            "land_cover": "world/layers/land_cover.tif",
            "land_cover_classes": {c["value"]: c["name"] for c in truth["land_covers"]},
            "elevation": "world/layers/elevation.tif",
            "elevation_bin_m": 20.0,
            "regions": "world/layers/regions.geojson",
            "hold_out": "world/hold_out.geojson",
            "cell_m": CELL_M,
            "chip_px": chip_px,
            "gsd_m": request.gsd_m,
        },
        "pretrain": {
            "backbone": "nano",
            "steps": QUICK_STEPS if request.quick else STEPS,
            "watch": {"probe_every": 20 if request.quick else 100, "checkpoint_every": 20 if request.quick else 100},
        },
        "evaluate": {
            "datasets": [
                {
                    "name": "rendered_world",
                    "root": "world/benchmark",
                    "split": {"kind": "folders"},
                    "group": "place",
                    "place_pattern": r"^(\d+_\d+)_",
                }
            ],
            "retrieval": [{"name": "training_places", "places": 200}],
        },
        "adapt": {
            "pairs": [{"images": f"world/{truth['mosaic']}", "masks": "world/labels/cover_train.tif"}],
            "classes": [
                {"name": c["name"], "value": c["value"], "display": "#{:02X}{:02X}{:02X}".format(*c["colour"])}
                for c in truth["covers"]
            ],
            "windows": 60 if request.quick else 400,
            "head": {"steps": 60 if request.quick else 300},
        },
        "map": {
            "scenes": [f"world/{truth['mosaic']}"],
            "truth": ["world/labels/cover_test.tif"],
            "baselines": True,
        },
        "report": {"hold_out": "world/hold_out.geojson"},
    }


def archive_project(request: DemoRequest, archive: Path) -> dict[str, Any]:
    """Return the project of an archive without labels as plain values: everything that needs none."""
    return {
        "schema_version": 1,
        "name": f"The archive {archive.name}",
        "out": ".",
        "seed": request.seed,
        "threads": 1,  # nano's matrices are so small that a second thread costs more than it gives
        "catalog": {"scenes": [str(archive)]},
        "curate": {"cell_m": 100.0, "chip_px": 128},
        "pretrain": {"backbone": "nano", "season": {"pair": "date"}, "steps": QUICK_STEPS if request.quick else STEPS},
        "report": {},
    }
