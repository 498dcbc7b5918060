"""What is seen of a distillation while it goes on: log lines, probes, checkpoints, and when to stop."""

from __future__ import annotations

from typing import Any

import torch

from cgeartheye.errors import DataError
from cgeartheye.pretraining.distillation import COLUMNS, Distilling, Student
from cgeartheye.pretraining.loop import Rates
from cgeartheye.pretraining.probe import Probe
from cgeartheye.pretraining.watch import SETBACK_SKIPS, SETBACK_STEPS, Clock, Sinks, best_steps
from cgeartheye.settings.pretrain import PretrainSettings
from cgeartheye.training.checkpoint import prune_checkpoints
from cgeartheye.training.run_log import read_lines


class DistilWatch:
    """Called after every step. Columns of students after the first begin with ``<size>_``.

    Args:
        settings: of the run.
        sinks: where to write.
        probe: or None.
        clock: seconds so far.
        skipped: steps that some student could not make, lately.
    """

    def __init__(
        self, settings: PretrainSettings, *, sinks: Sinks, probe: Probe | None, clock: Clock, skipped: list[int]
    ) -> None:
        self._settings, self._sinks, self._probe, self._clock = settings, sinks, probe, clock
        self._skipped, self._since, self._trained, self._best_is_new = skipped, 0, (0.0, 0.0), False
        self._known: list[dict[str, Any]] = [] if sinks.log is None else list(read_lines(sinks.log.path))
        self.waited = 0.0
        """Seconds that the last steps waited for pictures; whoever makes the views adds to it."""

    def begin(self, run: Distilling) -> None:
        """Write the line of the untrained students, if they are probed."""
        if run.step == 0 and self._probe is not None:
            self._write({"step": 0, "samples": 0, "seconds": 0.0, "cpu_seconds": 0.0, **self._measured(run)})
        self._clock.lap()

    def __call__(self, run: Distilling, rates: Rates) -> None:
        """Do what is due after a step.

        Raises:
            DataError: if too many of the last steps could not be made.
        """
        watch, last = self._settings.watch, run.step == run.steps
        self._sinks.advance(1)
        self._since += 1
        if run.step % watch.log_every == 0 or last:
            self._look(run, rates)
        if run.step % watch.checkpoint_every == 0 or last or self._best_is_new:
            self._save(run)

    def _look(self, run: Distilling, rates: Rates) -> None:
        self._lap()
        seen: dict[str, Any] = {}
        skipped: set[int] = set()
        for student in run.students:
            means, missed = read_table(student, run)
            seen |= {f"{self._prefix(student)}{name}": value for name, value in means.items()}
            skipped |= missed
        self._write({**self._line(run, rates), **seen, "skipped": len(skipped), **self._measured_when_due(run)})
        self._best_is_new = run.world.share(self._best_is_new)
        self._since, self._trained, self.waited = 0, (0.0, 0.0), 0.0
        self._clock.lap()
        self._refuse(run, skipped)

    def _line(self, run: Distilling, rates: Rates) -> dict[str, Any]:
        pictures, (wall, cpu) = self._since * self._settings.batch, self._trained
        return {
            "step": run.step,
            "samples": run.step * self._settings.batch,
            "seconds": round(self._clock.seconds, 2),
            "cpu_seconds": round(self._clock.cpu_seconds, 2),
            "lr": rates.lr,
            "weight_decay": rates.weight_decay,
            "ema": rates.ema,
            "pictures_per_s": round(pictures / max(wall, 1e-9), 2),
            "pictures_per_cpu_s": round(pictures / max(cpu, 1e-9), 2),
            "data_wait_share": round(self.waited / max(wall, 1e-9), 4),
        }

    def _refuse(self, run: Distilling, skipped: set[int]) -> None:
        """Name steps that could not be made; stop if there are too many among the last."""
        self._skipped = sorted({k for k in (*self._skipped, *skipped) if k >= run.step - SETBACK_STEPS})
        if skipped:
            names = ", ".join(str(k) for k in sorted(skipped))
            self._sinks.progress.say(f"steps without finite gradients were left out: {names} (counted from 0)")
        if skipped and len(self._skipped) >= SETBACK_SKIPS:
            raise DataError(
                f"gradients were not finite in {len(self._skipped)} of the last {SETBACK_STEPS} steps",
                where=str(self._sinks.folder),
                remedy="lower optimizer.lr in a new folder; the same command goes on from the last checkpoint",
            )

    def _measured_when_due(self, run: Distilling) -> dict[str, Any]:
        every = self._settings.watch.probe_every
        return self._measured(run) if every and (run.step % every == 0 or run.step == run.steps) else {}

    def _measured(self, run: Distilling) -> dict[str, Any]:
        if self._probe is None or not run.world.leads:
            return {}
        found: dict[str, Any] = {}
        for student in run.students:
            measured = self._probe.measure(student.average)
            found |= {f"{self._prefix(student)}{name}": value for name, value in measured.items()}
        return found

    def _prefix(self, student: Student) -> str:
        return "" if student.size == self._settings.backbone else f"{student.size}_"

    def _write(self, line: dict[str, Any]) -> None:
        if self._sinks.log is None:
            return
        self._known.append(line)
        self._best_is_new = line["step"] in best_steps(self._known)
        self._sinks.log.write(line)
        if self._sinks.tracker is not None:
            self._sinks.tracker.write(line)

    def _lap(self) -> None:
        wall, cpu = self._clock.lap()
        self._trained = (self._trained[0] + wall, self._trained[1] + cpu)

    def _save(self, run: Distilling) -> None:
        self._best_is_new = False
        self._lap()
        note = {
            "pieces": run.pieces,
            "skipped": self._skipped,
            "seconds": round(self._clock.seconds, 3),
            "cpu_seconds": round(self._clock.cpu_seconds, 3),
            "threads": self._settings.threads,
        }
        saver = self._sinks.saver
        saver.save(run.step, run.tensors(), note)
        if run.world.leads:
            prune_checkpoints(saver.folder, keep=self._settings.watch.keep, spare=best_steps(self._known))
        self._clock.lap()


@torch.no_grad()
def read_table(student: Student, run: Distilling) -> tuple[dict[str, float], set[int]]:
    """Return the means of the steps since the last look that were made, by column, and the numbers of those that were not."""
    rows = (run.step - 1) % len(student.table) + 1
    table = run.world.mean(student.table[:rows]).double().cpu()
    finite = table[:, COLUMNS.index("finite")] > 0.5
    kept = table[finite] if finite.any() else table
    means = {name: round(value, 6) for name, value in zip(COLUMNS[:-1], kept.mean(0).tolist(), strict=False)}
    return means, {run.step - rows + k for k in (~finite).nonzero()[:, 0].tolist()}
