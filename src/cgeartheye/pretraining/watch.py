"""What is seen of a run while it goes on: log lines, alarms, probes, checkpoints, and when to go back."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from cgeartheye.errors import DataError
from cgeartheye.files import write_json
from cgeartheye.pretraining.alarms import alarms, as_columns
from cgeartheye.pretraining.loop import Look, Rates, Training
from cgeartheye.pretraining.objective import Taught
from cgeartheye.pretraining.places import Places
from cgeartheye.pretraining.probe import Probe, effective_rank
from cgeartheye.pretraining.start import Guard
from cgeartheye.progress import Progress
from cgeartheye.settings.pretrain import PretrainSettings
from cgeartheye.training.checkpoint import Saver, prune_checkpoints
from cgeartheye.training.run_log import RunLog, read_lines
from cgeartheye.training.trackers import Tracker

SETBACK_SKIPS: Final = 3
"""Steps that could not be made, among the last :data:`SETBACK_STEPS`, after which a run goes back [ours]."""
SETBACK_STEPS: Final = 100
_BEST: Final = "probe_patch"


class SetbackError(Exception):
    """Too many steps could not be made: the run should go back to a checkpoint.

    Args:
        first: number of the first of these steps, counted from 0 within the phase.
        evidence: where what is known of them was written.
    """

    def __init__(self, first: int, evidence: Path) -> None:
        super().__init__(f"steps from {first} on, see {evidence}")
        self.first, self.evidence = first, evidence


@dataclass
class Clock:
    """Wall and processor seconds, going on where an interrupted run stopped."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    _wall: float = field(default_factory=time.monotonic)
    _cpu: float = field(default_factory=time.process_time)

    def lap(self) -> tuple[float, float]:
        """Return wall and processor seconds since the last lap and add them to the totals."""
        wall, cpu = time.monotonic(), time.process_time()
        lap = (wall - self._wall, cpu - self._cpu)
        self._wall, self._cpu = wall, cpu
        self.seconds += lap[0]
        self.cpu_seconds += lap[1]
        return lap


@dataclass(frozen=True, slots=True, kw_only=True)
class Sinks:
    """Where a process writes to; every process but the leading one has neither log nor tracker.

    Args:
        folder: of the stage.
        log: ``metrics.jsonl``.
        tracker: TensorBoard and the like.
        saver: of checkpoints.
        progress: the user's listener.
        advance: of the progress bar.
    """

    folder: Path
    log: RunLog | None
    tracker: Tracker | None
    saver: Saver
    progress: Progress
    advance: Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a phase stands in the whole run.

    Args:
        number: of the phase, from 0.
        first_step: steps of the phases before.
        first_sample: samples of the phases before.
    """

    number: int = 0
    first_step: int = 0
    first_sample: int = 0


class Watch:
    """Called after every step: advances the bar, looks, logs, probes and saves when it is time.

    Args:
        settings: of the phase.
        position: of the phase in the run.
        sinks: where to write.
        probe: or None.
        places: what samples are made of, to name the places of steps that could not be made.
        prototypes: K.
        clock: seconds so far.
    """

    def __init__(  # noqa: PLR0913 - where it stands, what it looks at, where it writes
        self,
        settings: PretrainSettings,
        *,
        position: Position,
        sinks: Sinks,
        probe: Probe | None,
        places: Places,
        prototypes: int,
        clock: Clock,
    ) -> None:
        self._settings, self._position, self._sinks = settings, position, sinks
        self._probe, self._places, self._clock = probe, places, clock
        self._training, self._since = (0.0, 0.0), 0
        self._skipped: list[int] = []
        self._known: list[dict[str, Any]] = [] if sinks.log is None else read_lines(sinks.log.path)
        self._prototypes, self._best_is_new = prototypes, False
        self.waited = 0.0
        """Seconds that the last steps waited for pictures; whoever makes the views adds to it."""

    def __call__(self, training: Training, taught: Taught, rates: Rates) -> None:
        """Do what is due after a step."""
        watch, state = self._settings.watch, training.state
        last = state.step == training.steps
        self._sinks.advance(1)
        self._since += 1
        if state.due(state.step, last=training.steps):
            self._look(training, taught, rates)
        if state.step % watch.checkpoint_every == 0 or last or self._best_is_new:
            self.save(training)

    def begin(self, training: Training) -> None:
        """Write the line of the network that nothing has been learned by, if it is probed and has none yet."""
        if self._position.first_step == 0 and training.state.step == 0 and self._probe is not None:
            zero = {"step": 0, "samples": 0, "seconds": 0.0, "cpu_seconds": 0.0, "phase": 0}
            self._write({**zero, **self._measured(training)})
        self._clock.lap()

    def save(self, training: Training) -> None:
        """Write a checkpoint and drop old ones."""
        self._best_is_new = False
        self._lap_of_training()
        state, position = training.state, self._position
        note = {
            "phase": position.number,
            "phase_step": state.step,
            "skipped": state.skipped,
            "lr_factor": state.lr_factor,
            "rollbacks": state.rollbacks,
            "recent_skips": self._skipped,
            "pieces": training.pieces,
            "seconds": round(self._clock.seconds, 3),
            "cpu_seconds": round(self._clock.cpu_seconds, 3),
            "threads": self._settings.threads,
        }
        self._sinks.saver.save(position.first_step + state.step, training.tensors(), note)
        if training.world.leads:
            spare = best_steps(self._known)
            prune_checkpoints(self._sinks.saver.folder, keep=self._settings.watch.keep, spare=spare)
        self._clock.lap()

    def _lap_of_training(self) -> None:
        wall, cpu = self._clock.lap()
        self._training = (self._training[0] + wall, self._training[1] + cpu)

    def _look(self, training: Training, taught: Taught, rates: Rates) -> None:
        self._lap_of_training()
        look = training.state.look(training.world)
        evidence = self._note_skips(training, look)
        line = self._line(training, taught, rates, look)
        self._write(line)
        self._best_is_new = training.world.share(self._best_is_new)
        self._refuse_what_fails(training, line)
        self._clock.lap()
        self._training, self._since, self.waited = (0.0, 0.0), 0, 0.0
        if evidence is not None and len(self._skipped) >= SETBACK_SKIPS:
            raise SetbackError(self._skipped[0], evidence)

    def _line(self, training: Training, taught: Taught, rates: Rates, look: Look) -> dict[str, Any]:
        state, batch, position = training.state, self._settings.batch, self._position
        pictures, (wall, cpu) = self._since * batch, self._training
        return {
            "step": position.first_step + state.step,
            "samples": position.first_sample + state.step * batch,
            "seconds": round(self._clock.seconds, 2),
            "cpu_seconds": round(self._clock.cpu_seconds, 2),
            "phase": position.number,
            **{name: round(value, 6) for name, value in look.means.items()},
            **{name: round(value, 6) for name, value in self._of_teacher(training, taught).items()},
            "lr": rates.lr * state.lr_factor,
            "weight_decay": rates.weight_decay,
            "ema": rates.ema,
            "teacher_temperature": rates.temperature,
            "skipped": state.skipped,
            "rollbacks": state.rollbacks,
            "pictures_per_s": round(pictures / max(wall, 1e-9), 2),
            "pictures_per_cpu_s": round(pictures / max(cpu, 1e-9), 2),
            "data_wait_share": round(self.waited / max(wall, 1e-9), 4),
            **(self._measured(training) if self._is_probed(training) else {}),
        }

    @staticmethod
    def _of_teacher(training: Training, taught: Taught) -> dict[str, float]:
        entropy, share = spread_of(taught.classes)
        world = training.world
        return {
            "teacher_entropy": float(world.mean(entropy)),
            "max_prototype_share": float(world.mean(share).max()),
            "rank": effective_rank(taught.class_tokens),
        }

    def _is_probed(self, training: Training) -> bool:
        every, step = self._settings.watch.probe_every, training.state.step
        due = every > 0 and (step % every == 0 or step == training.steps)
        return due and self._probe is not None

    def _measured(self, training: Training) -> dict[str, Any]:
        if self._probe is None or not (training.world.leads or training.sharded):
            return {}  # the others wait at the next step; a sharded teacher needs all of them
        return dict(self._probe.measure(training.pair.teacher.backbone))

    def _note_skips(self, training: Training, look: Look) -> Path | None:
        """Write down what is known of steps that could not be made; return where."""
        step = training.state.step
        self._skipped = [k for k in (*self._skipped, *look.skipped) if k > step - SETBACK_STEPS]
        if not look.skipped:
            return None
        first = min(look.skipped)
        path = self._sinks.folder / "evidence" / f"step_{self._position.first_step + first:08d}.json"
        if training.world.leads:
            path.parent.mkdir(exist_ok=True)
            write_json(path, {"steps": [self._evidence(k, row) for k, row in look.skipped.items()]})
            names = ", ".join(str(self._position.first_step + k) for k in look.skipped)
            self._sinks.progress.say(f"steps without finite gradients were left out: {names} (counted from 0; see {path})")
        return path

    def _evidence(self, step: int, row: Mapping[str, float]) -> dict[str, Any]:
        batch = self._settings.batch
        samples = self._position.first_sample + np.arange(step * batch, (step + 1) * batch)
        values = {name: value if math.isfinite(value) else str(value) for name, value in row.items()}
        return {
            "step": self._position.first_step + step,
            "values": values,
            "places": self._places.names(samples, seed=self._settings.seed),
        }

    def _write(self, line: dict[str, Any]) -> None:
        if self._sinks.log is None:
            return
        columns = as_columns(alarms([*self._known, line], classes_k=self._prototypes))
        before = self._known[-1] if self._known else {}
        for name, sentence in columns.items():
            if name not in before:
                self._sinks.progress.say(f"alarm at step {line['step']}: {sentence}")
        line = {**line, **columns}
        self._known.append(line)
        self._best_is_new = line["step"] in best_steps(self._known)
        self._sinks.log.write(line)
        if self._sinks.tracker is not None:
            self._sinks.tracker.write(line)

    def _refuse_what_fails(self, training: Training, line: Mapping[str, Any]) -> None:
        """Stop a run that continues from weights and has become worse than they are."""
        start = self._settings.start
        if start.weights is None or start.guard is None or not self._is_probed(training):
            return
        verdict = training.world.share(Guard(start.guard, self._known[:-1]).check(line) if self._known else None)
        if verdict is not None:
            raise DataError(
                verdict,
                where=str(self._sinks.folder),
                remedy="lower optimizer.lr, lengthen start.heads_only and start.ramp, or set start.guard to null to go on anyway",
            )


def best_steps(lines: list[dict[str, Any]]) -> set[int]:
    """Return the step of the best probe of trained networks, if there was one."""
    probed = [line for line in lines if isinstance(line.get(_BEST), float) and line["step"]]
    return {int(max(probed, key=lambda line: line[_BEST])["step"])} if probed else set()


@torch.no_grad()
def spread_of(targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean entropy of (R, K) ``targets`` over ln K, and each prototype's share (K,) of them."""
    entropy = -torch.special.xlogy(targets, targets).sum(-1).mean() / math.log(targets.shape[-1])
    return entropy, targets.mean(0)
