"""The stage: from curated shards to a backbone, in one or more phases, resumable at any step by any number of processes."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from cgeartheye.errors import DataError, InputError
from cgeartheye.models.vit import VisionTransformer, VitConfig
from cgeartheye.pretraining.batch import ViewBatch
from cgeartheye.pretraining.build import begin, first_config, opened_chips, pieces_of, refuse_processes, steps_of
from cgeartheye.pretraining.card import describe, training_names
from cgeartheye.pretraining.chips import Chips
from cgeartheye.pretraining.distil_run import DistilRun
from cgeartheye.pretraining.loop import Training, fit
from cgeartheye.pretraining.phases import carry, config_of
from cgeartheye.pretraining.places import Places
from cgeartheye.pretraining.probe import Probe
from cgeartheye.pretraining.prototypes import prototypes_for
from cgeartheye.pretraining.results import Trained, write_results
from cgeartheye.pretraining.start import begin_backbone, inherit, parent_of, start_inputs
from cgeartheye.pretraining.views import ViewMaker
from cgeartheye.pretraining.watch import Clock, Position, SetbackError, Sinks, Watch, best_steps
from cgeartheye.progress import SILENT, Progress
from cgeartheye.settings.pretrain import PretrainSettings
from cgeartheye.shards.reader import ShardReader, index_folder
from cgeartheye.stage import open_stage
from cgeartheye.training.checkpoint import (
    Saver,
    latest_checkpoint,
    load_checkpoint,
    prune_checkpoints,
    read_note,
    sweep_checkpoints,
)
from cgeartheye.training.distributed import World, world
from cgeartheye.training.run_log import RunLog, read_lines
from cgeartheye.training.runtime import pick_device, runtime
from cgeartheye.training.trackers import trackers

MOST_ROLLBACKS: Final = 3
"""Times that a run goes back to a checkpoint before it gives up [ours]."""


def pretrain(settings: PretrainSettings, out: Path, *, progress: Progress = SILENT) -> Path:
    """Pre-train a backbone on curated shards and write it to ``out``.

    Writes ``backbone.safetensors`` and ``backbone.json`` (the teacher), ``MODEL_CARD.md``, ``metrics.jsonl``,
    ``training_names.txt`` (for shards of plain image folders), ``left_out.json`` and ``checkpoints/``. The same call after a
    kill goes on from the last checkpoint and ends with the same backbone, bit for bit on one CPU with the same ``threads``.
    Under ``torchrun`` the processes share the work; a run may be continued by another number of them. With ``distil.teacher`` the
    backbone learns from that, and ``students/<size>/`` has further ones.

    Args:
        settings: everything that decides the result.
        out: folder of the stage.
        progress: listener.

    Returns:
        ``out``.

    Raises:
        InputError: if no shards are named, the start does not fit, or the folder was made with other settings.
        DataError: if nothing can be read, training does not stay finite, or it falls below the weights it started from.
        ResourceError: if disk, device or a lost process stand in the way.
    """
    if settings.curated is None:
        raise InputError("pretrain.curated is not set", remedy="name the folder that cgeartheye curate wrote")
    run = _Run if settings.distil.teacher is None else DistilRun
    with world(pick_device(settings.device)) as processes, runtime(threads=settings.threads):
        if not processes.leads:
            if not processes.share(None):
                run(settings, out, processes, SILENT).train()
            processes.wait()
            return out
        inputs = {"curated": index_folder(settings.curated), **start_inputs(settings)}
        with open_stage(out, "pretrain", settings, inputs) as stage:
            if not processes.share(stage.finished):
                write_results(stage, run(settings, out, processes, progress).train(), progress)
        processes.wait()
    return out


class _Run:
    """One process's run through all phases."""

    def __init__(self, settings: PretrainSettings, folder: Path, processes: World, progress: Progress) -> None:
        self.settings, self.folder, self.world, self.progress = settings, folder, processes, progress
        self.phases = [settings.phase(number) for number in range(len(settings.phases) + 1)]
        self.checkpoints = folder / "checkpoints"
        self.reader = ShardReader(settings.curated or Path())
        self.places = Places(self.reader, settings.season, window=self.settings.window)
        self.parent = parent_of(settings)
        if self.parent is not None:
            progress.say(self.parent.introduction())
        if processes.leads:
            sweep_checkpoints(self.checkpoints)

    def train(self) -> Trained:
        """Train every phase that is not done."""
        with opened_chips(self.reader, self.places, self.settings) as chips:
            probe = Probe(self.reader, chips, self.settings) if self.settings.watch.probe_every else None
            self.chips, self.probe = chips, probe if probe is not None and probe.useful else None
            number, training, clock = self._where_it_stands()
            self._say(training)
            while True:
                training = self._phase(number, training, clock)
                if number + 1 == len(self.phases):
                    break
                number, training = number + 1, self._next(number + 1, training)
            return self._trained(training, clock)

    def _phase(self, number: int, training: Training, clock: Clock) -> Training:
        """Train one phase to its end, going back where steps cannot be made."""
        settings, position = self.phases[number], self.position(number)
        with ExitStack() as held:
            saver = Saver(self.checkpoints, self.world, asynchronous=settings.watch.asynchronous)
            held.callback(self._tidy)
            held.callback(saver.close)
            while True:
                try:
                    self._fit(settings, training, saver, position, clock)
                except SetbackError as setback:
                    saver.wait()
                    training = self._go_back(number, training, setback)
                else:
                    return training

    def _tidy(self) -> None:
        """Drop what was kept while the last checkpoint was still being written."""
        if self.world.leads:
            lines = read_lines(self.folder / "metrics.jsonl")
            prune_checkpoints(self.checkpoints, keep=self.settings.watch.keep, spare=best_steps(lines))

    def _fit(self, settings: PretrainSettings, training: Training, saver: Saver, position: Position, clock: Clock) -> None:
        step = position.first_step + training.state.step
        leads = self.world.leads
        log = RunLog(self.folder / "metrics.jsonl", step=step if step else -1) if leads else None
        tracker = (
            trackers(
                self.folder,
                tensorboard=settings.watch.tensorboard,
                wandb=settings.watch.wandb,
                name=self.folder.parent.name,
                step=step,
            )
            if leads
            else None
        )
        with self.progress.task("steps", training.steps, training.state.step) as advance:
            sinks = Sinks(folder=self.folder, log=log, tracker=tracker, saver=saver, progress=self.progress, advance=advance)
            watch = Watch(
                settings,
                position=position,
                sinks=sinks,
                probe=self.probe,
                places=self.places,
                prototypes=self.prototypes,
                clock=clock,
            )
            maker = self._maker(settings, training, position)
            views_at = partial(_timed, maker=maker, chips=self.chips, watch=watch)
            watch.begin(training)
            fit(training, settings, views_at=views_at, after_step=watch)
        if tracker is not None:
            tracker.close()

    def _maker(self, settings: PretrainSettings, training: Training, position: Position) -> ViewMaker:
        return ViewMaker(
            Places(self.reader, settings.season, window=self.settings.window),
            self.chips,
            settings=settings,
            patch_px=training.pair.student.backbone.patch_px,
            device=self.world.device,
            pieces=training.pieces,
            mine=training.mine,
            first_sample=position.first_sample,
            steps=training.steps,
        )

    def position(self, number: int) -> Position:
        """Return where phase ``number`` begins."""
        before = self.phases[:number]
        steps = [steps_of(settings, len(self.places)) for settings in before]
        samples = sum(count * settings.batch for count, settings in zip(steps, before, strict=True))
        return Position(number=number, first_step=sum(steps), first_sample=samples)

    def _where_it_stands(self) -> tuple[int, Training, Clock]:
        """Return phase, state and time of the newest checkpoint, or of the beginning."""
        newest = latest_checkpoint(self.checkpoints)
        if newest is None:
            return 0, self._begin(0), Clock()
        note = read_note(newest)
        number = int(note["phase"])
        training = self._begin(number, pieces=int(note["pieces"]))
        self._load(training, newest)
        self.progress.say(f"resumed at step {self.position(number).first_step + training.state.step}")
        if note["threads"] != self.settings.threads:
            self.progress.say(
                f"begun with {note['threads']} threads, resumed with {self.settings.threads}: "
                "last bits may differ from a whole run"
            )
        return number, training, Clock(note["seconds"], note["cpu_seconds"])

    def _load(self, training: Training, checkpoint: Path) -> None:
        note, state = load_checkpoint(checkpoint, training.tensors(), world=self.world), training.state
        state.step, state.skipped = note["phase_step"], note["skipped"]
        state.lr_factor, state.rollbacks = note["lr_factor"], note["rollbacks"]

    def _begin(self, number: int, *, pieces: int | None = None) -> Training:
        settings, config = self.phases[number], self._config(number)
        # what a later phase draws is replaced by what the phase before it learned, or by a checkpoint
        backbone = begin_backbone(config, self.parent if number == 0 else None, seed=settings.seed)
        count = pieces_of(settings, self.world.size) if pieces is None else pieces
        refuse_processes(count, self.world.size)
        return begin(settings, backbone, prototypes=self.prototypes, places=len(self.places), world=self.world, pieces=count)

    def _config(self, number: int) -> VitConfig:
        """Return a phase's network: the parent's if there is one, with positions for the size of the phase's global views."""
        if self.parent is not None:
            config = dataclasses.replace(self.parent.config, drop_path=self.phases[number].drop_path)
            return config if number == 0 else config_of(config, self.phases[number])
        return config_of(self._first_config, self.phases[number])

    @cached_property
    def _first_config(self) -> VitConfig:
        return first_config(self.settings, self.chips, self.places)

    @property
    def prototypes(self) -> int:
        """K of all phases."""
        return self.settings.head.prototypes or prototypes_for(self.places.chips, self.settings.batch)

    def _next(self, number: int, before: Training) -> Training:
        """Return the state that phase ``number`` begins with: the networks of the one before."""
        training = self._begin(number)
        method = training.pair.student.backbone.config.position_interpolation
        carry(before.tensors(), training.tensors(), method=method)
        self.progress.say(f"phase {number}: {training.steps} steps at {self.phases[number].views.global_px} px")
        return training

    def _go_back(self, number: int, training: Training, setback: SetbackError) -> Training:
        """Return to the newest checkpoint before the first step that could not be made, with half the learning rate."""
        rollbacks = training.state.rollbacks + 1
        if rollbacks > MOST_ROLLBACKS:
            raise DataError(
                f"gradients were not finite again and again, after {MOST_ROLLBACKS} returns to a checkpoint at half the rate",
                where=str(setback.evidence),
                remedy="look at the places named there; lower optimizer.lr; the run continues from its last checkpoint",
            )
        factor = training.state.lr_factor / 2
        first = self.position(number).first_step
        found = latest_checkpoint(self.checkpoints, before=first + setback.first)
        if found is not None and int(read_note(found)["phase"]) == number:
            self._load(training, found)
        else:
            training = self._begin(number, pieces=training.pieces) if found is None else self._from_phase_before(number, found)
        training.state.lr_factor, training.state.rollbacks = factor, rollbacks
        step = first + training.state.step
        self.progress.say(f"back to step {step} at {factor:g} of the learning rate (evidence: {setback.evidence})")
        return training

    def _from_phase_before(self, number: int, checkpoint: Path) -> Training:
        before = self._begin(number - 1)
        self._load(before, checkpoint)
        return self._next(number, before)

    def _say(self, training: Training) -> None:
        pairable, steps = self.places.pairable(), sum(steps_of(s, len(self.places)) for s in self.phases)
        processes = f"{self.world.size} processes on " if self.world.size > 1 else ""
        self.progress.say(
            f"{len(self.places)} places, {self.places.chips} chips, {pairable} places with seasonal pairs, "
            f"{self.prototypes} prototypes; {steps} steps of {self.settings.batch} in {training.pieces} microbatches "
            f"on {processes}{self.world.device.type}"
        )

    def _trained(self, training: Training, clock: Clock) -> Trained:
        backbone = whole_backbone(training)
        figures = _figures(read_lines(self.folder / "metrics.jsonl"), training)
        left_out = self.chips.left_out
        metrics = {**figures, "prototypes": self.prototypes, "chips_left_out": len(left_out)}
        card = inherit(describe(self.reader, self.places, self.settings, metrics), self.parent)
        summary = {
            "headline": f"{card['name']}: {figures['steps']} steps on {len(self.places)} places, {self.places.chips} chips",
            "name": card["name"],
            "places": len(self.places),
            "chips": self.places.chips,
            **card["metrics"],
            "seconds": round(clock.seconds, 1),
            "cpu_seconds": round(clock.cpu_seconds, 1),  # not in the card: no two runs share them
        }
        seen = self.parent.seen if self.parent is not None else ()
        return Trained(
            backbone=backbone,
            card=card,
            summary=summary,
            left_out=left_out,
            names=sorted({*training_names(self.reader), *seen}),
        )


@torch.no_grad()
def whole_backbone(training: Training) -> VisionTransformer:
    """Return the teacher's backbone on the CPU, gathered from all shards (every process must call)."""
    teacher = training.pair.teacher.backbone
    backbone = VisionTransformer(teacher.config)
    state: dict[str, Tensor] = {}
    for name, value in teacher.state_dict().items():
        full = value.full_tensor() if hasattr(value, "full_tensor") else value
        state[name.replace("_orig_mod.", "")] = full.detach().to("cpu")
    backbone.load_state_dict(state)
    return backbone.eval()


def _timed(step: int, piece: int, *, maker: ViewMaker, chips: Chips, watch: Watch) -> ViewBatch:
    before = chips.waited
    views = maker(step, piece)
    watch.waited += chips.waited - before
    return views


def _figures(lines: list[dict[str, Any]], training: Training) -> dict[str, Any]:
    """Return the last values of the log, the first and the last probe."""
    last = lines[-1] if lines else {}
    kept = (
        "loss",
        "loss_global",
        "loss_local",
        "loss_season",
        "loss_patch",
        "koleo",
        "loss_gram",
        "teacher_entropy",
        "max_prototype_share",
        "rank",
        "prototypes_used",
    )
    probes = [line for line in lines if "probe_class" in line]
    return {
        "steps": last.get("step", training.state.step),
        "samples": last.get("samples"),
        "skipped": training.state.skipped,
        "rollbacks": training.state.rollbacks,
        **{name: last.get(name) for name in kept},
        **({"probe_first": _probe(probes[0]), "probe_last": _probe(probes[-1])} if probes else {}),
    }


def _probe(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key.startswith("probe_") or key == "step"}
