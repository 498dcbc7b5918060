"""One process's run of distillation: from shards and a trained network to students, resumable at any step."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

from cgeartheye.errors import InputError
from cgeartheye.models.sizes import SIZES, build
from cgeartheye.models.vit import VisionTransformer
from cgeartheye.pretraining.batch import ViewBatch
from cgeartheye.pretraining.build import first_config, opened_chips, pieces_of, refuse_processes, steps_of
from cgeartheye.pretraining.card import describe, training_names
from cgeartheye.pretraining.chips import Chips
from cgeartheye.pretraining.distil_watch import DistilWatch
from cgeartheye.pretraining.distillation import Distilling, Student, distil, student_of
from cgeartheye.pretraining.phases import position_px_of
from cgeartheye.pretraining.places import Places
from cgeartheye.pretraining.probe import Probe
from cgeartheye.pretraining.results import Trained
from cgeartheye.pretraining.start import Parent, begin_backbone, inherit, load_parent
from cgeartheye.pretraining.views import ViewMaker
from cgeartheye.pretraining.watch import Clock, Sinks, best_steps
from cgeartheye.progress import Progress
from cgeartheye.settings.pretrain import PretrainSettings, peak_lr
from cgeartheye.shards.reader import ShardReader
from cgeartheye.training.checkpoint import (
    Saver,
    latest_checkpoint,
    load_checkpoint,
    prune_checkpoints,
    read_note,
    sweep_checkpoints,
)
from cgeartheye.training.distributed import World
from cgeartheye.training.run_log import RunLog, read_lines
from cgeartheye.training.runtime import pick_precision
from cgeartheye.training.trackers import trackers
from cgeartheye.training.wrapping import compile_blocks

_NOT_IN_THE_CARD: Final = ("seconds", "cpu_seconds", "pictures_per_s", "pictures_per_cpu_s", "data_wait_share")


class DistilRun:
    """One process's run, as :class:`cgeartheye.pretraining.stage._Run` is of self-distillation.

    Args:
        settings: with ``distil.teacher``.
        folder: of the stage.
        processes: that share the run.
        progress: listener.

    Raises:
        InputError: if the teacher cannot be loaded or has another patch than a student.
    """

    def __init__(self, settings: PretrainSettings, folder: Path, processes: World, progress: Progress) -> None:
        self.settings, self.folder, self.world, self.progress = settings, folder, processes, progress
        self.checkpoints = folder / "checkpoints"
        self.reader = ShardReader(settings.curated or Path())
        self.places = Places(self.reader, settings.season, window=settings.window)
        self.sizes = (settings.backbone, *settings.distil.students)
        self.parent = _teacher_of(settings, self.sizes)
        if processes.leads:
            sweep_checkpoints(self.checkpoints)

    def train(self) -> Trained:
        """Train what is not done."""
        settings, checkpoints = self.settings, self.checkpoints
        with opened_chips(self.reader, self.places, settings) as chips, ExitStack() as held:
            probe = Probe(self.reader, chips, settings) if settings.watch.probe_every else None
            run, clock, skips = self._where_it_stands(chips)
            saver = Saver(checkpoints, self.world, asynchronous=settings.watch.asynchronous)
            held.callback(self._tidy)
            held.callback(saver.close)
            self._say(run)
            sinks = self._sinks(run, saver, held)
            probe = probe if probe is not None and probe.useful else None
            watch = DistilWatch(settings, sinks=sinks, probe=probe, clock=clock, skipped=skips)
            maker = self._maker(run, chips)
            watch.begin(run)
            distil(run, settings, views_at=partial(_timed, maker=maker, chips=chips, watch=watch), after_step=watch)
            return self._trained(run, chips, clock)

    def _sinks(self, run: Distilling, saver: Saver, held: ExitStack) -> Sinks:
        advance = held.enter_context(self.progress.task("steps", run.steps, run.step))
        log = tracker = None
        if self.world.leads:
            log = RunLog(self.folder / "metrics.jsonl", step=run.step if run.step else -1)
            tracker = trackers(
                self.folder,
                tensorboard=self.settings.watch.tensorboard,
                wandb=self.settings.watch.wandb,
                name=self.folder.parent.name,
                step=run.step,
            )
            held.callback(tracker.close)
        return Sinks(folder=self.folder, log=log, tracker=tracker, saver=saver, progress=self.progress, advance=advance)

    def _maker(self, run: Distilling, chips: Chips) -> ViewMaker:
        return ViewMaker(
            self.places,
            chips,
            settings=self.settings,
            patch_px=run.teacher.patch_px,
            device=self.world.device,
            pieces=run.pieces,
            mine=run.mine,
        )

    def _where_it_stands(self, chips: Chips) -> tuple[Distilling, Clock, list[int]]:
        """Return state, time and steps lately left out of the newest checkpoint, or of the beginning."""
        newest = latest_checkpoint(self.checkpoints)
        if newest is None:
            return self._begin(chips, pieces_of(self.settings, self.world.size)), Clock(), []
        note = read_note(newest)
        run = self._begin(chips, int(note["pieces"]))
        load_checkpoint(newest, run.tensors(), world=self.world)
        run.step = int(note["step"])
        self.progress.say(f"resumed at step {run.step}")
        return run, Clock(note["seconds"], note["cpu_seconds"]), list(note["skipped"])

    def _begin(self, chips: Chips, pieces: int) -> Distilling:
        settings, device = self.settings, self.world.device
        refuse_processes(pieces, self.world.size)
        teacher = begin_backbone(dataclasses.replace(self.parent.config, drop_path=0.0), self.parent, seed=settings.seed)
        teacher = teacher.to(device).requires_grad_(requires_grad=False).eval()
        if settings.compile:
            compile_blocks(teacher)
        return Distilling(
            teacher=teacher,
            students=[self._student(size, chips) for size in self.sizes],
            steps=steps_of(settings, len(self.places)),
            precision=pick_precision(settings.precision, device),
            world=self.world,
            pieces=pieces,
        )

    def _student(self, size: str, chips: Chips) -> Student:
        settings = self.settings
        statistics = first_config(settings, chips, self.places)
        config = dataclasses.replace(
            SIZES[size],
            drop_path=settings.drop_path,
            position_px=position_px_of(settings, SIZES[size].patch_px),
            mean=statistics.mean,
            std=statistics.std,
        )
        factor = peak_lr(size, batch=settings.batch) / peak_lr(settings.backbone, batch=settings.batch)
        width, device = self.parent.config.width, self.world.device
        return student_of(size, build(config, seed=settings.seed), settings, width=width, device=device, lr_factor=factor)

    def _say(self, run: Distilling) -> None:
        processes = f"{self.world.size} processes on " if self.world.size > 1 else ""
        self.progress.say(
            f"{', '.join(self.sizes)} learn from {self.parent.name} (licence {self.parent.licence}) on "
            f"{len(self.places)} places, {self.places.chips} chips, {self.places.pairable()} places with seasonal pairs; "
            f"{run.steps} steps of {self.settings.batch} in {run.pieces} microbatches on {processes}{self.world.device.type}"
        )

    def _tidy(self) -> None:
        if self.world.leads:
            lines = read_lines(self.folder / "metrics.jsonl")
            prune_checkpoints(self.checkpoints, keep=self.settings.watch.keep, spare=best_steps(lines))

    def _trained(self, run: Distilling, chips: Chips, clock: Clock) -> Trained:
        last = (read_lines(self.folder / "metrics.jsonl") or [{"step": run.step}])[-1]
        figures = {"steps": last["step"], **{k: v for k, v in last.items() if k not in {"step", *_NOT_IN_THE_CARD}}}
        made = {student.size: self._made(student, figures, len(chips.left_out)) for student in run.students}
        backbone, card = made.pop(self.settings.backbone)
        summary = {
            "headline": f"{', '.join(self.sizes)} from {self.parent.name}: {figures['steps']} steps on {len(self.places)} places",
            "name": card["name"],
            "places": len(self.places),
            "chips": self.places.chips,
            **figures,
            "seconds": round(clock.seconds, 1),
            "cpu_seconds": round(clock.cpu_seconds, 1),
        }
        return Trained(
            backbone=backbone,
            card=card,
            summary=summary,
            left_out=chips.left_out,
            names=sorted({*training_names(self.reader), *self.parent.seen}),
            students=made,
        )

    def _made(self, student: Student, figures: dict[str, Any], left_out: int) -> tuple[VisionTransformer, dict[str, Any]]:
        """Return a student's average on the CPU, with its card."""
        settings, size = self.settings, student.size
        prefix = "" if size == settings.backbone else f"{size}_"
        others = tuple(f"{name}_" for name in settings.distil.students if name != size)
        own = {k.removeprefix(prefix): v for k, v in figures.items() if k.startswith(prefix) and not k.startswith(others)}
        described = describe(self.reader, self.places, settings, {**own, "steps": figures["steps"], "chips_left_out": left_out})
        card = inherit({**described, "name": f"cgeartheye-{size}"}, self.parent, role="distilled_from")
        backbone = VisionTransformer(student.average.config)
        backbone.load_state_dict({name: value.detach().to("cpu") for name, value in student.average.state_dict().items()})
        return backbone.eval(), card


def _teacher_of(settings: PretrainSettings, sizes: tuple[str, ...]) -> Parent:
    spec = settings.distil.teacher
    if spec is None:
        raise InputError("pretrain.distil.teacher is not set", remedy="name the weights that teach")
    parent = load_parent(spec)
    patch = parent.config.patch_px
    for size in sizes:
        if SIZES[size].patch_px != patch:
            raise InputError(
                f"has patches of {patch} px, but {size} has {SIZES[size].patch_px} px: their patch tokens show different ground",
                where=str(spec),
                remedy="choose a teacher and students with one patch (all sizes but nano: 14 px)",
            )
    return parent


def _timed(step: int, piece: int, *, maker: ViewMaker, chips: Chips, watch: DistilWatch) -> ViewBatch:
    before = chips.waited
    views = maker(step, piece)
    watch.waited += chips.waited - before
    return views
