"""The stage: from curated shards to a backbone, resumable at any step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from cgeartheye.errors import InputError
from cgeartheye.files import write_json, write_text
from cgeartheye.models.sizes import SIZES, build
from cgeartheye.models.vit import VisionTransformer, VitConfig
from cgeartheye.pretraining.card import describe, training_names
from cgeartheye.pretraining.chips import Chips
from cgeartheye.pretraining.loop import LoopState, Training, fit
from cgeartheye.pretraining.networks import Learner, Pair
from cgeartheye.pretraining.places import Places
from cgeartheye.pretraining.views import ViewMaker
from cgeartheye.pretraining.watch import Clock, Probe, Watch
from cgeartheye.progress import SILENT, Progress
from cgeartheye.seeding import stream
from cgeartheye.settings.pretrain import PretrainSettings
from cgeartheye.shards.reader import ShardReader
from cgeartheye.stage import Stage, open_stage
from cgeartheye.training.checkpoint import latest_checkpoint, load_checkpoint
from cgeartheye.training.optimizer import adamw
from cgeartheye.training.parameters import parameter_groups
from cgeartheye.training.run_log import RunLog, read_lines
from cgeartheye.training.runtime import pick_device, pick_precision, runtime
from cgeartheye.weights.card import model_card
from cgeartheye.weights.store import save_backbone

STATISTICS_CHIPS: Final = 512
"""Chips that channel means and deviations are taken from [ours]."""


def pretrain(settings: PretrainSettings, out: Path, *, progress: Progress = SILENT) -> Path:
    """Pre-train a backbone on curated shards and write it to ``out``.

    Writes ``backbone.safetensors`` and ``backbone.json`` (the teacher), ``MODEL_CARD.md``, ``metrics.jsonl``,
    ``training_names.txt`` (for shards of plain image folders), ``left_out.json`` and ``checkpoints/``. The same call after a
    kill goes on from the last checkpoint and ends with the same backbone, bit for bit on one CPU with the same ``threads``.

    Args:
        settings: everything that decides the result.
        out: folder of the stage.
        progress: listener.

    Returns:
        ``out``.

    Raises:
        InputError: if no shards are named, or the folder was made with other settings.
        DataError: if nothing can be read, or training does not stay finite.
        ResourceError: if disk or device stand in the way.
    """
    if settings.curated is None:
        raise InputError("pretrain.curated is not set", remedy="name the folder that cgeartheye curate wrote")
    with open_stage(out, "pretrain", settings, {"curated": settings.curated}) as stage:
        if not stage.finished:
            with runtime(threads=settings.threads):
                _run(settings, stage, progress)
    return out


def steps_of(settings: PretrainSettings, places: int) -> int:
    """Return the length of the run in steps for a number of places; a begun batch counts."""
    if settings.steps is not None:
        return settings.steps
    return max(1, math.ceil((settings.epochs or 0.0) * places / settings.batch))


def _run(settings: PretrainSettings, stage: Stage, progress: Progress) -> None:
    device = pick_device(settings.device)
    reader = ShardReader(settings.curated or Path())
    places = Places(reader, settings.season)
    with _chips(reader, places, settings) as chips:
        backbone = build(_config(settings, chips, places), seed=settings.seed)
        training = _begin(settings, backbone, places=len(places), device=device)
        maker = ViewMaker(places, chips, settings=settings, patch_px=backbone.patch_px, device=device)
        progress.say(
            f"{len(places)} places, {places.chips} chips, {places.pairable()} places with seasonal pairs, "
            f"{maker.slots} season slots a batch; {training.steps} steps of {settings.batch} on {device.type}"
        )
        probe = Probe(reader, chips, settings) if settings.watch.probe_every else None
        probe = probe if probe is not None and probe.useful else None
        metrics, clock = _train(settings, stage.folder, training, maker=maker, probe=probe, progress=progress)
        left_out = [{"row": row, "reason": reason} for row, reason in sorted(chips.left_out.items())]
    card = describe(reader, places, settings, {**metrics, "chips_left_out": len(left_out)})
    if card["restricted_by"]:
        progress.say(f"not for commercial use: the data's licence is {', '.join(card['restricted_by'])}")
    backbone = training.pair.teacher.backbone
    save_backbone(stage.folder, backbone, card)
    write_json(stage.folder / "left_out.json", left_out)
    names = training_names(reader)
    if names:
        write_text(stage.folder / "training_names.txt", "\n".join(names) + "\n")
    write_text(stage.folder / "MODEL_CARD.md", model_card(card, backbone.config))
    times = {
        "seconds": round(clock.seconds, 1),
        "cpu_seconds": round(clock.cpu_seconds, 1),
    }  # not in the card: no two runs share them
    headline = f"{card['name']}: {training.steps} steps on {len(places)} places, {places.chips} chips"
    stage.finish(
        {
            "headline": headline,
            "name": card["name"],
            "places": len(places),
            "chips": places.chips,
            "slots": maker.slots,
            **card["metrics"],
            **times,
        }
    )


def _begin(settings: PretrainSettings, backbone: VisionTransformer, *, places: int, device: torch.device) -> Training:
    pair = Pair(Learner(backbone, settings.head, seed=settings.seed)).to(device)
    named = pair.student.named_parameters()
    groups = parameter_groups(named, depth=backbone.config.depth, layer_decay=settings.optimizer.layer_decay)
    return Training(
        pair=pair,
        optimizer=adamw(groups, betas=settings.optimizer.betas),
        state=LoopState(used=torch.zeros(settings.head.prototypes, dtype=torch.bool)),
        steps=steps_of(settings, places),
        precision=pick_precision(settings.precision, device),
    )


def _train(
    settings: PretrainSettings, folder: Path, training: Training, *, maker: ViewMaker, probe: Probe | None, progress: Progress
) -> tuple[dict[str, Any], Clock]:
    """Train to the end, from the newest checkpoint if there is one; return the figures of the card and the time."""
    clock = _resume(settings, folder / "checkpoints", training, progress)
    state = training.state
    log = RunLog(folder / "metrics.jsonl", step=state.step)
    with progress.task("steps", training.steps, state.step) as advance:
        watch = Watch(folder, settings, log=log, probe=probe, clock=clock, advance=advance)
        watch.begin(training)
        fit(training, settings, views_at=maker, after_step=watch)
    return _figures(read_lines(log.path), state), clock


def _resume(settings: PretrainSettings, checkpoints: Path, training: Training, progress: Progress) -> Clock:
    newest = latest_checkpoint(checkpoints)
    if newest is None:
        return Clock()
    note, state = load_checkpoint(newest, training.tensors()), training.state
    state.step, state.skipped, state.skipped_in_a_row = note["step"], note["skipped"], note["skipped_in_a_row"]
    state.sums = dict(note["sums"])
    progress.say(f"resumed at step {state.step}")
    if note["threads"] != settings.threads:
        progress.say(
            f"begun with {note['threads']} threads, resumed with {settings.threads}: last bits may differ from a whole run"
        )
    return Clock(note["seconds"], note["cpu_seconds"])


def _figures(lines: list[dict[str, Any]], state: LoopState) -> dict[str, Any]:
    """Return the last values of the log, the first and the last probe."""
    last = lines[-1] if lines else {}
    kept = (
        "loss",
        "loss_global",
        "loss_local",
        "loss_season",
        "loss_patch",
        "koleo",
        "teacher_entropy",
        "rank",
        "prototypes_used",
    )
    probes = [line for line in lines if "probe_class" in line]
    return {
        "steps": state.step,
        "samples": last.get("samples"),
        "skipped": state.skipped,
        **{name: last.get(name) for name in kept},
        **({"probe_first": _probe(probes[0]), "probe_last": _probe(probes[-1])} if probes else {}),
    }


def _probe(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key.startswith("probe_") or key == "step"}


def _config(settings: PretrainSettings, chips: Chips, places: Places) -> VitConfig:
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


@contextmanager
def _chips(reader: ShardReader, places: Places, settings: PretrainSettings) -> Iterator[Chips]:
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
