"""`run`: every stage of a project that is not done yet, in order, each in its folder."""

from __future__ import annotations

import importlib
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from cgeartheye.errors import DataError, InputError, ResourceError, StaleStageError
from cgeartheye.progress import Progress
from cgeartheye.settings.base import StageSettings
from cgeartheye.settings.project import SECTIONS, Project
from cgeartheye.stage import BEGUN, MANIFEST, read_manifest, retire

MINIMUM_FREE_BYTES: Final = 200 * 10**6
"""Less free disk than this is refused before any work."""


@dataclass(frozen=True)
class StageSpec:
    """Where a stage's function, folder and inputs are.

    Attributes:
        module: package whose attribute ``function`` is the stage; imported when the stage runs, so that `--check` and a
            catalogue need no torch.
        folder: name of its folder below the project's ``out``.
        feeds: settings field -> name of the earlier stage whose folder fills it when the user gave none.
    """

    module: str
    function: str
    folder: str
    feeds: dict[str, str]


STAGES: Final[dict[str, StageSpec]] = {
    "catalog": StageSpec("cgeartheye.catalog", "catalog", "catalog", {}),
    "curate": StageSpec("cgeartheye.curation", "curate", "curated", {"catalog": "catalog"}),
    "pretrain": StageSpec("cgeartheye.pretraining", "pretrain", "pretrained", {"curated": "curate"}),
    "evaluate": StageSpec("cgeartheye.evaluation", "evaluate", "evaluated", {"backbones": "pretrain"}),
    "adapt": StageSpec("cgeartheye.adaptation", "adapt", "adapted", {"backbone": "pretrain"}),
    "map": StageSpec("cgeartheye.mapping", "map_scenes", "maps", {"task": "adapt"}),
    "report": StageSpec(
        "cgeartheye.reporting",
        "report",
        "report",
        {
            "catalog": "catalog",
            "curated": "curate",
            "pretrained": "pretrain",
            "evaluated": "evaluate",
            "adapted": "adapt",
            "maps": "map",
        },
    ),
}


@dataclass(frozen=True)
class Request:
    """What to run: a project, some of its stages (None: all), and those to make again."""

    project: Project
    stages: Sequence[str] | None = None
    redo: tuple[str, ...] = ()


def run_project(request: Request, progress: Progress) -> dict[str, Any]:
    """Run what is not done and return {stage: {folder, seconds, summary}}.

    Raises:
        InputError: if nothing is asked for or ``redo`` names no stage.
        CGEarthEyeError: whatever a stage raises; what earlier stages made stays.
    """
    _check_free_disk(request.project.out)
    for name in _redone(request):
        folder = _folder(request.project, name)
        if folder.exists():
            progress.say(f"{name:9s} kept aside as {retire(folder).name}")
    results: dict[str, Any] = {}
    for name in _wanted(request):
        results[name] = _run_stage(name, request.project, progress)
        if not (_folder(request.project, name) / MANIFEST).exists():
            break  # a part of a stage was asked for, and what follows needs the whole
    return results


def _run_stage(name: str, project: Project, progress: Progress) -> dict[str, Any]:
    spec, folder = STAGES[name], _folder(project, name)
    settings = resolve(project, name)
    before = (folder / MANIFEST).exists()
    if not before:
        progress.say(f"{name:9s} {'goes on' if (folder / BEGUN).exists() else 'begins'} in {folder}")
    clock = time.monotonic()
    stage = getattr(importlib.import_module(spec.module), spec.function)
    try:
        stage(settings, folder, progress=progress)
    except StaleStageError:
        if name != "report":
            raise
        progress.say(f"report    kept aside as {retire(folder).name}: it shows stages that have changed since")
        before = False
        stage(settings, folder, progress=progress)
    seconds = time.monotonic() - clock
    if not (folder / MANIFEST).exists():
        return {"folder": str(folder), "seconds": seconds, "summary": {"headline": "a part was made"}}
    manifest = read_manifest(folder, name)
    state = "was done" if before else f"{seconds:.1f} s"
    progress.say(f"{name:9s} {manifest['summary'].get('headline', 'done')} ({state})")
    return {"folder": str(folder), "seconds": manifest["seconds"], "summary": manifest["summary"]}


def resolve(project: Project, name: str) -> StageSettings:
    """Return a stage's settings with every input that the user left open filled from the earlier stages' folders."""
    settings: StageSettings | None = getattr(project, name)
    if settings is None:
        raise InputError(f"the project has no section {name!r}", remedy=f"add `{name}:` to the project file")
    filled: dict[str, Any] = {}
    for field, source in STAGES[name].feeds.items():
        if getattr(settings, field, None) is not None:
            continue
        folder = _folder(project, source)
        if (folder / MANIFEST).exists():
            filled[field] = (folder,) if field == "backbones" else folder
    if name == "evaluate":
        filled["retrieval"] = _own_places(settings, _folder(project, "curate"))
    if name == "report" and "title" in type(settings).model_fields and "title" not in settings.model_fields_set:
        filled["title"] = project.name
    return settings.model_copy(update=filled)


def _own_places(settings: StageSettings, curated: Path) -> tuple[BaseModel, ...]:
    """Return the retrieval sets of `evaluate`, with the project's own shards where a set names none."""
    sets: tuple[BaseModel, ...] = getattr(settings, "retrieval", ())
    own = {"curated": curated} if (curated / MANIFEST).exists() else {}
    return tuple(one if getattr(one, "curated", None) else one.model_copy(update=own) for one in sets)


def _folder(project: Project, name: str) -> Path:
    return Path(project.out) / STAGES[name].folder


def _wanted(request: Request) -> list[str]:
    asked = [name for name in STAGES if request.stages is None or name in request.stages]
    wanted = [name for name in asked if getattr(request.project, name) is not None]
    if not wanted:
        raise InputError("the project asks for no stage", remedy=f"add at least one section: {', '.join(SECTIONS)}")
    return wanted


def _redone(request: Request) -> tuple[str, ...]:
    unknown = [name for name in request.redo if name not in STAGES]
    if unknown:
        raise InputError(f"no stage is called {unknown[0]!r}", where="--redo", remedy=f"choose from {', '.join(STAGES)}")
    return request.redo


def _check_free_disk(out: Path) -> None:
    place = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if free < MINIMUM_FREE_BYTES:
        raise ResourceError(
            f"only {free / 1e6:.0f} MB are free", where=str(place), remedy="free some space or choose another folder with --out"
        )


def check_project(request: Request, progress: Progress) -> dict[str, Any]:
    """Validate without working: every path of every wanted stage exists and can be read, the disk has room.

    Raises:
        DataError: naming all missing or unreadable paths at once.
    """
    _check_free_disk(request.project.out)
    states: dict[str, Any] = {}
    faults: list[str] = []
    for name in _wanted(request):
        folder = _folder(request.project, name)
        states[name] = "done" if (folder / MANIFEST).exists() else "interrupted" if (folder / BEGUN).exists() else "to do"
        for key, path in user_paths(getattr(request.project, name), name):
            faults += _path_faults(key, path)
        progress.say(f"{name:9s} {states[name]}")
    if faults:
        raise DataError(f"{len(faults)} of the paths cannot be used\n" + "\n".join(f"  {fault}" for fault in faults))
    progress.say("the settings are valid and every path can be read")
    return states


def user_paths(settings: BaseModel, prefix: str) -> Iterator[tuple[str, Path]]:
    """Yield (dotted key, path) of every path in a section."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        for index, item in enumerate(value if isinstance(value, tuple | list) else (value,)):
            key = f"{prefix}.{name}" + (f".{index}" if isinstance(value, tuple | list) else "")
            if isinstance(item, Path):
                yield key, item
            elif isinstance(item, BaseModel):
                yield from user_paths(item, key)


def _path_faults(key: str, path: Path) -> list[str]:
    try:
        if path.is_dir():
            next(path.iterdir(), None)
        else:
            path.open("rb").close()
    except FileNotFoundError:
        return [f"{key}: there is nothing at {path}"]
    except OSError as error:
        return [f"{key}: {path} cannot be read ({error.strerror})"]
    return []
