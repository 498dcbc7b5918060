"""What a run of pre-training will cost, from its settings and its places, before any step is made.

B samples of a pass, R hidden patches of a pass, K prototypes.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cgeartheye.errors import DataError
from cgeartheye.models.cost import Precision, cost, parameters
from cgeartheye.models.sizes import SIZES
from cgeartheye.models.step_cost import (
    FLOAT,
    GLOBALS,
    HeadShape,
    StepFlops,
    StepMemory,
    StepShape,
    View,
    learner_parameters,
    step_flops,
    step_memory,
)
from cgeartheye.models.vit import VitConfig, patch_grid
from cgeartheye.pretraining.anchor import acts_from, anchor_px
from cgeartheye.pretraining.build import pieces_of, steps_of
from cgeartheye.pretraining.chips import decoded_bytes
from cgeartheye.pretraining.phases import config_of
from cgeartheye.pretraining.places import Places
from cgeartheye.pretraining.probe import LARGEST_PX, PROBE_ZOOM
from cgeartheye.pretraining.prototypes import prototypes_for
from cgeartheye.settings.pretrain import PretrainSettings
from cgeartheye.shards.reader import ShardReader
from cgeartheye.transforms.masks import MaskPolicy, mask_counts
from cgeartheye.units import BYTES_PER_MB

LINE_BYTES: Final = 700
"""A line of ``metrics.jsonl`` [measured]."""
BASE_BYTES: Final = 760 * BYTES_PER_MB
"""Resident memory of the interpreter with PyTorch and this package loaded, before any tensor [measured, Linux, CUDA build]."""
FIRST_STEPS_BYTES: Final = 90 * BYTES_PER_MB
"""What libraries ask for on a CPU when they first compute, whatever the network [measured]."""
HEAP_SHARE: Final = 0.07
"""Of activations and working memory, what the C library's heap loses between blocks of many sizes [measured: 0.01 to 0.14]."""


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a run learns from.

    Args:
        places: number of places.
        chips: of all their dates.
        pairs: seasonal views a sample is expected to have, by phase.
        decoded_bytes: of all chips as the run keeps them decoded; infinite where a size is unknown.
        probed: pictures of a probe at most.
    """

    places: int
    chips: int
    pairs: tuple[float, ...]
    decoded_bytes: float
    probed: int = 0


@dataclass(frozen=True, kw_only=True)
class PhaseForecast:
    """One phase of a run. FLOPs are of all processes, memory is of one.

    Args:
        phase: number, from 0.
        steps: of the phase.
        batch: samples a step.
        samples: of the whole phase.
        passes: microbatches a step that each process takes one after the other.
        slots: season slots of a pass.
        tokens: of the student's pass.
        step_flops: of one step, by part; the anchor's where there is one, whether or not it acts in every step.
        flops: of the phase, without its probes.
        probe_flops: of all probes of the phase.
        memory: of one process at the fullest moment of a step.
        memory_bytes: that; on a CPU also the process itself, chips kept decoded, and the copy that a checkpoint is written from.
        seconds_a_step: as calibrated, with the anchor acting where there is one, or None.
        seconds: of the phase, or None.
    """

    phase: int
    steps: int
    batch: int
    samples: int
    passes: int
    slots: int
    tokens: int
    step_flops: StepFlops
    flops: int
    probe_flops: int
    memory: StepMemory
    memory_bytes: int
    seconds_a_step: float | None = None
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """A whole run.

    Args:
        backbone: size.
        places: number of places.
        chips: of all their dates.
        prototypes: K.
        parameters: of the backbone.
        trained_parameters: of backbone and heads.
        phases: one after the other.
        flops: of all phases and processes.
        memory_bytes: of the fullest phase, in one process.
        disk_bytes: of the finished folder.
        disk_peak_bytes: while a checkpoint is written.
        seconds: of all phases, or None where nothing was calibrated.
    """

    backbone: str
    places: int
    chips: int
    prototypes: int
    parameters: int
    trained_parameters: int
    phases: tuple[PhaseForecast, ...]
    flops: int
    memory_bytes: int
    disk_bytes: int
    disk_peak_bytes: int
    seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where a run takes place.

    Args:
        processes: that share a batch.
        device: ``cpu`` or ``cuda``.
        base_bytes: resident memory of a process that has loaded everything and holds nothing.
    """

    processes: int = 1
    device: str = "cpu"
    base_bytes: int = BASE_BYTES


def material(settings: PretrainSettings, reader: ShardReader) -> Material:
    """Count what finished shards hold.

    Raises:
        DataError: if there is no place.
    """
    phases = [settings.phase(number) for number in range(len(settings.phases) + 1)]
    many = 10**6  # slots of so many samples, for their share
    found = [Places(reader, phase.season) for phase in phases]
    return Material(
        places=len(reader),
        chips=found[0].chips,
        pairs=tuple(places.slots(many) / many for places in found),
        decoded_bytes=decoded_bytes(reader, settings.chip_px),
        probed=_probed(settings, len(reader)),
    )


def assumed(settings: PretrainSettings, *, places: int, dates: float, chip_px: int) -> Material:
    """Guess what shards will hold that do not exist yet: every place with ``dates`` dates, all of which may pair."""
    phases = [settings.phase(number) for number in range(len(settings.phases) + 1)]
    pairs = [0.0 if p.season.mode == "off" else max(0.0, min(float(p.season.views), dates - 1)) for p in phases]
    side = min(chip_px, settings.chip_px or chip_px)
    chips = round(places * dates)
    return Material(
        places=places, chips=chips, pairs=tuple(pairs), decoded_bytes=4.0 * side * side * chips, probed=_probed(settings, places)
    )


def forecast(
    settings: PretrainSettings, found: Material, machine: Machine, seconds_a_step: tuple[float, ...] | None = None
) -> Forecast:
    """Return what a run will cost.

    Args:
        settings: of the whole run.
        found: what it learns from.
        machine: where.
        seconds_a_step: measured, of each phase; None where nothing was.

    Raises:
        InputError: if the batch cannot be shared among the processes.
    """
    phases = tuple(
        _phase(settings, number, found, machine, None if seconds_a_step is None else seconds_a_step[number])
        for number in range(len(settings.phases) + 1)
    )
    head, config = head_shape(settings, found), _network(settings, len(settings.phases))
    trained = learner_parameters(config, head)
    steps = sum(phase.steps for phase in phases)
    kept, peak = _checkpoints(settings, steps)
    checkpoint = 4 * FLOAT * trained + 4 * FLOAT * head.prototypes
    if any(settings.phase(number).gram.weight for number in range(len(phases))):
        checkpoint += FLOAT * parameters(config)
    rest = FLOAT * parameters(config) + LINE_BYTES * (steps // settings.watch.log_every)
    known = [phase.seconds for phase in phases if phase.seconds is not None]
    return Forecast(
        backbone=settings.backbone,
        places=found.places,
        chips=found.chips,
        prototypes=head.prototypes,
        parameters=parameters(config),
        trained_parameters=trained,
        phases=phases,
        flops=sum(phase.flops for phase in phases),
        memory_bytes=max(phase.memory_bytes for phase in phases),
        disk_bytes=kept * checkpoint + rest,
        disk_peak_bytes=peak * checkpoint + rest,
        seconds=sum(known) if len(known) == len(phases) else None,
    )


def head_shape(settings: PretrainSettings, found: Material) -> HeadShape:
    """Return the heads of a run, with the number of prototypes that its archive and batch lead to."""
    head = settings.head
    return HeadShape(
        prototypes=head.prototypes or prototypes_for(found.chips, settings.batch),
        hidden=head.hidden,
        bottleneck=head.bottleneck,
        layers=head.layers,
        shared=head.shared,
        lengths=head.normalise == "weight",
    )


def step_shape(settings: PretrainSettings, *, pairs: float, machine: Machine) -> StepShape:
    """Return what one process sees of a step.

    Args:
        settings: of one phase.
        pairs: seasonal views a sample is expected to have.
        machine: where.

    Raises:
        InputError: if the batch cannot be shared among the processes.
    """
    pieces = pieces_of(settings, machine.processes)
    samples, passes = settings.batch // pieces, pieces // machine.processes
    patch_px = SIZES[settings.backbone].patch_px
    slots = math.ceil(samples * pairs - 1e-9)
    sides = local_sides(settings, slots=slots)
    views = [View(GLOBALS * samples, patches_of(settings.views.global_px, patch_px))]
    views += [View(samples * count, patches_of(side, patch_px)) for side, count in sides.items()]
    if slots:
        views.append(View(slots, patches_of(settings.season.size_px or max(settings.local.sizes_px), patch_px)))
    _, larger_px = anchor_px(settings.views.global_px, patch_px, settings.gram.zoom)
    policy = MaskPolicy(share_of_views=settings.masks.share_of_views, ratio=settings.masks.ratio)
    hidden = int(mask_counts(policy, views=GLOBALS * samples, patches=views[0].patches).sum())
    return StepShape(
        samples=samples,
        views=tuple(views),
        hidden=hidden,
        passes=passes,
        recompute=settings.recompute,
        precision=_precision(settings, machine),
        processes=machine.processes if settings.shard else 1,
        anchor=View(views[0].rows, (larger_px // patch_px) ** 2) if settings.gram.weight else None,
    )


def local_sides(settings: PretrainSettings, *, slots: int) -> dict[int, int]:
    """Return side -> local views a sample of that side; sides are taken in turn, seasonal views may replace some."""
    replaced = settings.season.views if settings.season.mode == "replace" and slots else 0
    sizes = settings.local.sizes_px
    return dict(Counter(sizes[number % len(sizes)] for number in range(settings.local.views - replaced)))


def patches_of(side: int, patch_px: int) -> int:
    """Return the patches of a square view, padded to the patch."""
    return math.prod(patch_grid(side, side, patch_px))


def resident_bytes() -> int:
    """Return the memory that this process holds now, or :data:`BASE_BYTES` where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return BASE_BYTES
    line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def _phase(
    settings: PretrainSettings, number: int, found: Material, machine: Machine, seconds_a_step: float | None
) -> PhaseForecast:
    phase = settings.phase(number)
    if not found.places:
        raise DataError("there is no place to learn from", remedy="curate again with a wider selection")
    config = _network(settings, number)
    head, shape = head_shape(settings, found), step_shape(phase, pairs=found.pairs[number], machine=machine)
    steps, once = steps_of(phase, found.places), step_flops(config, head, shape)
    memory, probes = step_memory(config, head, shape), _probe_flops(phase, found, steps=steps, first=number == 0)
    made = steps * once.total - acts_from(phase.gram, steps) * once.anchor
    season = shape.views[-1].rows if found.pairs[number] else 0
    return PhaseForecast(
        phase=number,
        steps=steps,
        batch=phase.batch,
        samples=steps * phase.batch,
        passes=shape.passes,
        slots=season,
        tokens=sum(view.rows * (view.patches + 1 + config.registers) for view in shape.views),
        step_flops=once,
        flops=made * machine.processes,
        probe_flops=probes,
        memory=memory,
        memory_bytes=memory.total + _beside(settings, found, machine, memory),
        seconds_a_step=seconds_a_step,
        seconds=None if seconds_a_step is None else (made + probes) / once.total * seconds_a_step,
    )


def _network(settings: PretrainSettings, number: int) -> VitConfig:
    """Return the network of a phase; one that continues from weights begins with their table of positions."""
    size, phase = SIZES[settings.backbone], settings.phase(number)
    if number == 0 and settings.start.weights is not None:
        return dataclasses.replace(size, drop_path=phase.drop_path)
    return config_of(size, phase)


def _beside(settings: PretrainSettings, found: Material, machine: Machine, memory: StepMemory) -> int:
    """Return what a CPU holds besides a step's tensors: the process, decoded chips, a checkpoint's copy, the heap's losses."""
    if machine.device != "cpu":
        return 0
    cached = found.decoded_bytes if found.decoded_bytes <= settings.cache_mb * BYTES_PER_MB else 0.0
    copied = memory.parameters + memory.moments if settings.watch.asynchronous else 0
    lost = HEAP_SHARE * (memory.activations + memory.working)
    return machine.base_bytes + FIRST_STEPS_BYTES + copied + round(cached + lost)


def _probed(settings: PretrainSettings, places: int) -> int:
    """Return the pictures of a probe at most: labelled ones, and both dates of the places that are looked up."""
    return min(places, settings.watch.probe_chips) + 2 * min(places, settings.watch.retrieval_places)


def _probe_flops(settings: PretrainSettings, found: Material, *, steps: int, first: bool) -> int:
    """Return the FLOPs of a phase's probes: forward passes at the probe's size; the untrained network is probed too."""
    every = settings.watch.probe_every
    if not every:
        return 0
    side = min(round(settings.views.global_px * PROBE_ZOOM), LARGEST_PX)
    each = found.probed * cost(SIZES[settings.backbone], height=side, width=side).forward_flops
    return (math.ceil(steps / every) + int(first)) * each


def _precision(settings: PretrainSettings, machine: Machine) -> Precision:
    if settings.precision == "auto":
        return "bfloat16" if machine.device == "cuda" else "float32"
    return "bfloat16" if settings.precision == "bfloat16" else "float32"


def _checkpoints(settings: PretrainSettings, steps: int) -> tuple[int, int]:
    """Return the checkpoints that stay and those on the disk while one is written: the newest, and the one of the best probe."""
    written = math.ceil(steps / settings.watch.checkpoint_every)
    best = 1 if settings.watch.probe_every and written > settings.watch.keep else 0
    return min(written, settings.watch.keep) + best, min(written, settings.watch.keep + 1) + best
