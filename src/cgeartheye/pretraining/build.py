"""What a phase of training begins with: networks on their device, wrapped for the machine, and their optimizer."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch

from cgeartheye.errors import InputError
from cgeartheye.models.heads.projection import ProjectionHead
from cgeartheye.models.sizes import SIZES
from cgeartheye.models.vit import VisionTransformer, VitConfig
from cgeartheye.pretraining.anchor import Anchor
from cgeartheye.pretraining.chips import Chips
from cgeartheye.pretraining.loop import COLUMNS, LoopState, Training
from cgeartheye.pretraining.networks import Learner, Pair
from cgeartheye.pretraining.places import Places
from cgeartheye.seeding import stream
from cgeartheye.settings.pretrain import PretrainSettings
from cgeartheye.shards.reader import ShardReader
from cgeartheye.training.distributed import World
from cgeartheye.training.optimizer import AdamW
from cgeartheye.training.parameters import parameter_groups
from cgeartheye.training.runtime import pick_precision
from cgeartheye.training.wrapping import compile_blocks, recompute, shard

STATISTICS_CHIPS: Final = 512
"""Chips that channel means and deviations are taken from [ours]."""


def pieces_of(settings: PretrainSettings, processes: int) -> int:
    """Return the microbatches of a step for the number of processes that begin a run.

    Raises:
        InputError: if the batch cannot be cut so.
    """
    microbatch = settings.microbatch or settings.batch // processes
    pieces = settings.batch // max(microbatch, 1)
    if microbatch < 1 or settings.batch % microbatch:
        raise InputError(
            f"a batch of {settings.batch} cannot be shared by {processes} processes",
            where="pretrain.batch",
            remedy="choose a multiple of the number of processes, or set pretrain.microbatch",
        )
    refuse_processes(pieces, processes)
    return pieces


def refuse_processes(pieces: int, processes: int) -> None:
    """Raise InputError unless every process gets the same number of microbatches."""
    if pieces % processes:
        raise InputError(
            f"{pieces} microbatches a step cannot be shared equally by {processes} processes",
            where="pretrain.microbatch",
            remedy=f"start a number of processes that divides {pieces}, or choose a smaller microbatch for a new run",
        )


def steps_of(settings: PretrainSettings, places: int) -> int:
    """Return the length of a phase in steps for a number of places; a begun batch counts."""
    if settings.steps is not None:
        return settings.steps
    return max(1, math.ceil((settings.epochs or 0.0) * places / settings.batch))


def begin(
    settings: PretrainSettings, backbone: VisionTransformer, *, prototypes: int, places: int, world: World, pieces: int
) -> Training:
    """Return the state before the first step.

    Args:
        settings: of the phase.
        backbone: on the CPU, with its first weights; it becomes the student's.
        prototypes: K.
        places: places of the data set.
        world: the processes that train.
        pieces: microbatches of a step.
    """
    learner = Learner(backbone, settings.head, prototypes=prototypes, seed=settings.seed)
    pair = Pair(learner, anchored=settings.gram.weight > 0).to(world.device)
    sharded = settings.shard and world.size > 1
    precision = pick_precision(settings.precision, world.device)
    _wrap(pair, settings, world=world, sharded=sharded, precision=precision)
    named = [(name.replace("_checkpoint_wrapped_module.", ""), value) for name, value in pair.student.named_parameters()]
    groups = parameter_groups(named, depth=backbone.config.depth, layer_decay=settings.optimizer.layer_decay)
    rows = settings.watch.log_every
    return Training(
        pair=pair,
        optimizer=AdamW(groups, betas=settings.optimizer.betas),
        state=LoopState(
            table=torch.zeros(rows, len(COLUMNS), device=world.device),
            used=torch.zeros(prototypes, dtype=torch.bool, device=world.device),
        ),
        steps=steps_of(settings, places),
        precision=precision,
        world=world,
        pieces=pieces,
        sharded=sharded,
    )


def _wrap(pair: Pair, settings: PretrainSettings, *, world: World, sharded: bool, precision: torch.dtype) -> None:
    """Recompute, then compile, then shard: each wraps what the one before made."""
    recompute(pair.student.backbone, settings.recompute)
    mesh = world.mesh() if sharded else None
    shared = None if precision == torch.float32 else precision
    for owner in (pair.student, pair.teacher, pair.anchor):
        if owner is None:
            continue
        if settings.compile:
            compile_blocks(owner.backbone)
        if mesh is not None:
            shard(owner.backbone, mesh, precision=shared)
            for head in _heads(owner):
                shard(head, mesh, precision=shared)


def _heads(owner: Learner | Anchor) -> set[ProjectionHead]:
    return {owner.class_head, owner.of_patches} if isinstance(owner, Learner) else set()


@contextmanager
def opened_chips(reader: ShardReader, places: Places, settings: PretrainSettings) -> Iterator[Chips]:
    """Yield the decoded pictures of a run, and end their threads."""
    chips = Chips(
        reader,
        places.place_of_row,
        shrink_px=settings.chip_px,
        cache_mb=settings.cache_mb,
        decoders=settings.decoders,
    )
    try:
        yield chips
    finally:
        chips.close()


def first_config(settings: PretrainSettings, chips: Chips, places: Places) -> VitConfig:
    """Return the size's configuration with this run's drop path and channel statistics."""
    config = dataclasses.replace(SIZES[settings.backbone], drop_path=settings.drop_path)
    if settings.normalise == "imagenet":
        return config
    rows = stream(settings.seed, "statistics").permutation(places.chips)[:STATISTICS_CHIPS]
    mean, std = channel_statistics(chips, np.sort(rows).astype(np.int64))
    return dataclasses.replace(config, mean=mean, std=std)


def channel_statistics(
    chips: Chips, rows: np.ndarray[Any, np.dtype[np.int64]]
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return mean and standard deviation of each channel, in [0, 1], over all pixels of the chips (M,) ``rows``."""
    count, total, squares = 0, np.zeros(3), np.zeros(3)
    for row in rows:
        pixels, _ = chips.get(np.array([row]))
        values = pixels[0].reshape(3, -1).astype(np.float64) / 255
        count += values.shape[1]
        total += values.sum(1)
        squares += np.square(values).sum(1)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 1e-6))
    red, green, blue = (round(float(v), 5) for v in mean)
    s_red, s_green, s_blue = (round(float(v), 5) for v in std)
    return (red, green, blue), (s_red, s_green, s_blue)
