"""`demo`: render a four-season world (or take a folder of real scenes), write its project file, run it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from cgeartheye.errors import InputError
from cgeartheye.files import write_text
from cgeartheye.progress import Progress
from cgeartheye.run import Request, run_project
from cgeartheye.settings.project import load_project
from cgeartheye.settings.world import WorldSettings
from cgeartheye.synthesis import render_world

QUICK_SIZE_M: Final = 1152.0
"""Side of the world in the short form: twelve cells of 96 m."""
CELL_M: Final = 96.0
CHIP_PX: Final = 128


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
        InputError: if the archive does not exist.
        CGEarthEyeError: whatever a stage raises.
    """
    if request.quick:
        request = dataclasses.replace(request, size_m=min(request.size_m, QUICK_SIZE_M))
    request.out.mkdir(parents=True, exist_ok=True)
    values = archive_project(request) if request.archive else _world_project(request, progress)
    project_file = request.out / "project.yaml"
    if not project_file.exists():
        write_text(project_file, _HEAD + yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
    progress.say(f"project   {project_file}")
    if request.world_only:
        return {"project": str(project_file)}
    results = run_project(Request(load_project(project_file)), progress)
    progress.say(f"look at   {request.out / 'report' / 'report.html'}")
    return results


_HEAD = """# Written by `cgeartheye demo`; change it and give `cgeartheye run` this file. `cgeartheye VERB --settings` explains every key.
"""
