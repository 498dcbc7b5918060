"""`plan`: what each stage of a project will take, before anything is spent."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from cgeartheye.errors import InputError, ResourceError
from cgeartheye.pretraining.calibration import Measured, calibrate
from cgeartheye.pretraining.forecast import Forecast, Machine, Material, assumed, forecast, material, resident_bytes
from cgeartheye.progress import Progress
from cgeartheye.run import STAGES, resolve
from cgeartheye.settings.adapt import AdaptSettings
from cgeartheye.settings.catalog import CatalogSettings
from cgeartheye.settings.curate import CurateSettings
from cgeartheye.settings.evaluate import EvaluateSettings
from cgeartheye.settings.map import MapSettings
from cgeartheye.settings.pretrain import PretrainSettings
from cgeartheye.settings.project import Project
from cgeartheye.shards.reader import ShardReader
from cgeartheye.stage import BEGUN, MANIFEST, read_manifest
from cgeartheye.training.runtime import pick_device

PICTURES: Final = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".jp2")
CHIP_BYTES_A_PIXEL: Final = 0.37
"""Of a JPEG of quality 90 [measured on 512-px aerial chips]."""


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """What to plan for.

    Args:
        project: with at least one section.
        steps: run a few steps of pre-training to learn this machine's speed.
        processes: that will share a batch of pre-training.
    """

    project: Project
    steps: bool = False
    processes: int = 1


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """What is known of one stage; None is unknown, not nothing.

    Args:
        state: ``done``, ``interrupted`` or ``to do``.
        images: scenes, pictures or chips that it reads.
        places: that it makes or reads.
        input_bytes: of those images.
        disk_bytes: of what it writes, or wrote.
        flops: matrix products.
        memory_bytes: of one process, at most.
        seconds: it took or will take.
        note: what the numbers rest on.
    """

    state: str
    images: int | None = None
    places: int | None = None
    input_bytes: int | None = None
    disk_bytes: int | None = None
    flops: int | None = None
    memory_bytes: int | None = None
    seconds: float | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The whole project.

    Args:
        stages: name -> what is known, in the order of `run`.
        pretrain: the forecast of that stage, if the project has it and its places are known.
        measured: by phase, if steps were run.
        flops_a_second: that they reached.
    """

    stages: dict[str, StagePlan]
    pretrain: Forecast | None = None
    measured: tuple[Measured, ...] = ()
    flops_a_second: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def plan_project(request: PlanRequest, progress: Progress) -> Plan:
    """Forecast every stage that a project has a section for.

    Raises:
        InputError: if it has none, or steps are asked for and there are no shards.
        ResourceError: if memory does not suffice for the steps.
    """
    project = request.project
    wanted = [name for name in STAGES if getattr(project, name) is not None]
    if not wanted:
        raise InputError("the project asks for no stage", remedy="add at least one section, for example `pretrain:`")
    stages = {name: _stage(project, name) for name in wanted if name != "report"}
    settings = resolve(project, "pretrain") if "pretrain" in stages else None
    if not isinstance(settings, PretrainSettings):
        return Plan(stages=stages)
    if settings.distil.teacher is not None:
        note = "what distillation costs is not forecast"
        return Plan(stages={**stages, "pretrain": replace(stages["pretrain"], note=note)})
    found = _material(settings, project)
    if found is None:
        note = "places are unknown before curate is done or curate.places is given"
        return Plan(stages={**stages, "pretrain": replace(stages["pretrain"], note=note)})
    return _with_pretraining(request, stages, settings, found, progress=progress)


def _with_pretraining(
    request: PlanRequest, stages: dict[str, StagePlan], settings: PretrainSettings, found: Material, *, progress: Progress
) -> Plan:
    machine = Machine(processes=request.processes, device=_device(settings), base_bytes=resident_bytes())
    told = forecast(settings, found, machine)
    measured: tuple[Measured, ...] = ()
    if request.steps:
        measured = calibrate(settings, prototypes=told.prototypes, processes=request.processes, progress=progress)
        # a process of its own holds nothing but what it loads, whatever this one holds by now
        machine = replace(machine, base_bytes=measured[0].base_bytes)
        told = forecast(settings, found, machine, tuple(each.seconds_a_step for each in measured))
    known = stages["pretrain"]
    if known.state != "done":
        stages["pretrain"] = replace(
            known,
            images=told.chips,
            places=told.places,
            disk_bytes=told.disk_bytes,
            flops=told.flops,
            memory_bytes=told.memory_bytes,
            seconds=told.seconds,
            note="" if settings.curated else "places and dates as the settings promise them",
        )
    once = sum(phase.step_flops.total for phase in told.phases)
    rate = once / sum(each.seconds_a_step for each in measured) if measured else None
    return Plan(stages=stages, pretrain=told, measured=measured, flops_a_second=rate)


def _device(settings: PretrainSettings) -> str:
    """Return where it would train; a machine that only plans need not have the GPU that is asked for."""
    try:
        return pick_device(settings.device).type
    except ResourceError:
        return settings.device


def _material(settings: PretrainSettings, project: Project) -> Material | None:
    """Return what finished shards hold, or what the settings of curation promise, or None if they do not say."""
    if settings.curated is not None:
        return material(settings, ShardReader(settings.curated))
    curate = project.curate
    if curate is None:
        return None
    if curate.source == "images" and curate.images is not None:
        share = {"all": 1.0, "test": curate.split.test_share, "train": 1 - curate.split.test_share}[curate.split.part]
        count = round(len(list(_files([curate.images], PICTURES))) * share * curate.clusters.keep_share)
        return assumed(settings, places=count, dates=1, chip_px=curate.cut_px or curate.max_px) if count else None
    if curate.places is None:
        return None
    kept = curate.clusters.keep_places or round(curate.places * curate.clusters.keep_share)
    return assumed(settings, places=kept, dates=_dates(project, curate), chip_px=curate.chip_px)


def _dates(project: Project, curate: CurateSettings) -> int:
    """Return the dates that a place has at most: days of a finished catalogue, or else one for each seasonal view and one."""
    folder = curate.catalog or project.out / STAGES["catalog"].folder
    if (folder / MANIFEST).exists():
        return max(1, min(curate.max_dates, int(read_manifest(folder, "catalog")["summary"]["kept"])))
    return min(4, curate.max_dates)


def _stage(project: Project, name: str) -> StagePlan:
    folder = project.out / STAGES[name].folder
    if (folder / MANIFEST).exists():
        return _finished(folder, name)
    state = "interrupted" if (folder / BEGUN).exists() else "to do"
    count = _INPUTS.get(name)
    return StagePlan(state=state) if count is None else replace(count(getattr(project, name)), state=state)


def _finished(folder: Path, name: str) -> StagePlan:
    manifest = read_manifest(folder, name)
    summary = manifest["summary"]
    images = {"catalog": "kept", "curate": "chips", "pretrain": "chips"}.get(name)
    return StagePlan(
        state="done",
        images=summary.get(images) if images else None,
        places=summary.get("places"),
        disk_bytes=sum(output["bytes"] for output in manifest["outputs"].values()),
        seconds=manifest["seconds"],
        note=str(summary.get("headline", "")),
    )


def _of_catalog(settings: CatalogSettings) -> StagePlan:
    return _counted(_files([Path(s) for s in settings.scenes if "://" not in str(s)], settings.extensions))


def _of_curate(settings: CurateSettings) -> StagePlan:
    if settings.source == "images":
        found = _counted(_files([settings.images] if settings.images else [], PICTURES))
        return replace(found, disk_bytes=found.input_bytes, note="at most the pictures' own size")
    if settings.places is None:
        return StagePlan(state="", note="places are counted once the catalogue is read")
    pixels = settings.places * settings.chip_px**2
    note = "disk of one date a place"
    return StagePlan(state="", places=settings.places, disk_bytes=round(pixels * CHIP_BYTES_A_PIXEL), note=note)


def _of_evaluate(settings: EvaluateSettings) -> StagePlan:
    return _counted(_files([folder.root for folder in settings.datasets], PICTURES))


def _of_adapt(settings: AdaptSettings) -> StagePlan:
    found = _counted(_files([pair.images for pair in settings.pairs], PICTURES))
    return replace(found, note=f"{settings.windows} windows, {settings.head.steps} steps of the head")


def _of_map(settings: MapSettings) -> StagePlan:
    return _counted(_files(settings.scenes, PICTURES))


_INPUTS: Final[dict[str, Callable[[Any], StagePlan]]] = {
    "catalog": _of_catalog,
    "curate": _of_curate,
    "evaluate": _of_evaluate,
    "adapt": _of_adapt,
    "map": _of_map,
}


def _counted(files: Iterable[Path]) -> StagePlan:
    sizes = [path.stat().st_size for path in files]
    return StagePlan(state="", images=len(sizes), input_bytes=sum(sizes))


def _files(roots: Sequence[Path], endings: Sequence[str]) -> Iterator[Path]:
    """Yield single files, and those in folders and below that have one of the endings and are not hidden."""
    for root in roots:
        if root.is_file():
            yield root
        for base, folders, names in os.walk(root):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                if name.lower().endswith(tuple(endings)) and not name.startswith("."):
                    yield Path(base) / name
