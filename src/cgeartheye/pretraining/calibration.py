"""A few real steps of a run's own settings in a process of their own: seconds a step and peak memory on this machine."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import torch

from cgeartheye.errors import CGEarthEyeError, DataError, InputError, ResourceError
from cgeartheye.files import read_json, write_json, write_text
from cgeartheye.pretraining.forecast import resident_bytes
from cgeartheye.pretraining.stage import pretrain
from cgeartheye.progress import SILENT, Advance, Progress
from cgeartheye.settings.pretrain import PretrainSettings
from cgeartheye.settings.pretrain_sections import StartSettings

STEPS: Final = 20
"""Steps of a calibration."""
LOOK_EVERY: Final = 5
"""Steps between looks at the device. The first so many are not timed: caches fill, memory is asked for, code is compiled."""
_KILLED: Final = -9


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the steps of one phase took in one process.

    Args:
        seconds_a_step: median of the later steps.
        peak_bytes: greatest resident memory of the process (CPU), or greatest allocated memory of the device.
        resident_bytes: greatest resident memory of the process.
        base_bytes: of that, what was there before the run began.
        checkpoint_bytes: size of one checkpoint on the disk.
        device: ``cpu`` or ``cuda``.
    """

    seconds_a_step: float
    peak_bytes: int
    resident_bytes: int
    base_bytes: int
    checkpoint_bytes: int
    device: str


class _Stopwatch(Progress):
    """Notes the time at every step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    @contextmanager
    def task(self, description: str, total: int, done: int = 0) -> Iterator[Advance]:
        """Yield a function that notes when it is called, if these are the steps."""
        del total, done
        if description == "steps":
            self.times = [time.perf_counter()]
        yield self._note if description == "steps" else _ignore

    def _note(self, units: int) -> None:
        del units
        self.times.append(time.perf_counter())

    def seconds_a_step(self) -> float:
        """Return the median, over looks at the device, of the mean seconds of a step; single steps may still be under way."""
        marks = self.times[LOOK_EVERY::LOOK_EVERY]
        return statistics.median((b - a) / LOOK_EVERY for a, b in pairwise(marks))


def calibrate(
    settings: PretrainSettings, *, prototypes: int, processes: int = 1, folder: Path | None = None, progress: Progress = SILENT
) -> tuple[Measured, ...]:
    """Run :data:`STEPS` steps of every phase and return what they took; nothing stays behind.

    With several processes one process's share of the batch is measured, without the communication between them.

    Args:
        settings: of the whole run, its shards finished.
        prototypes: K of the whole run.
        processes: that will share a batch.
        folder: where temporary files go; the system's own place if None.
        progress: listener.

    Raises:
        InputError: if there are no shards.
        DataError: if the steps fail.
        ResourceError: if memory does not suffice.
    """
    if settings.curated is None:
        raise InputError("calibration needs curated shards", remedy="run `cgeartheye curate` first, or plan without --calibrate")
    found = []
    for number in range(len(settings.phases) + 1):
        progress.say(f"calibrate {STEPS} steps" + (f" of phase {number}" if settings.phases else ""))
        with tempfile.TemporaryDirectory(prefix="cgeartheye-calibrate-", dir=folder) as inner:
            found.append(_in_a_process(_shortened(settings, number, prototypes, processes), Path(inner)))
    return tuple(found)


def peak_resident_bytes() -> int:
    """Return the greatest resident memory that this process ever had.

    Linux counts it for each program; elsewhere ``getrusage`` is asked, which may count the parent's before it started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _shortened(settings: PretrainSettings, number: int, prototypes: int, processes: int) -> PretrainSettings:
    """Return the settings of one phase as a run of its own: few steps, no probes."""
    phase = settings.phase(number)
    watch = phase.watch.model_copy(
        update={
            "log_every": LOOK_EVERY,
            "probe_every": 0,
            "checkpoint_every": STEPS // 2,  # so that the copy it is written from is there while steps are made
            "keep": 1,
            "tensorboard": False,
            "wandb": None,
        }
    )
    return phase.model_copy(
        update={
            "curated": settings.curated,
            "steps": STEPS,
            "epochs": None,
            "phases": (),
            "batch": max(1, phase.batch // processes),
            "start": StartSettings(),
            "shard": False,
            "gram": phase.gram.model_copy(update={"after": 0.0}),  # so that every step is one of the dearer ones
            "head": phase.head.model_copy(update={"prototypes": prototypes}),
            "watch": watch,
        }
    )


def _in_a_process(settings: PretrainSettings, folder: Path) -> Measured:
    write_text(folder / "settings.json", settings.model_dump_json())
    command = [sys.executable, "-m", "cgeartheye.pretraining.calibration", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - this interpreter, our module
    if done.returncode == _KILLED:
        raise ResourceError("the steps were killed, most likely for want of memory", remedy="lower pretrain.microbatch or batch")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DataError(f"the steps failed: {last}", where="plan --calibrate", remedy="try `cgeartheye pretrain` itself")
    return Measured(**read_json(folder / "measured.json"))


def measure(settings: PretrainSettings, folder: Path) -> Measured:
    """Pre-train into ``folder`` in this process and return what it took."""
    watch, base = _Stopwatch(), resident_bytes()
    pretrain(settings, folder, progress=watch)
    resident = peak_resident_bytes()
    used = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    newest = max((folder / "checkpoints").glob("step_*"))
    return Measured(
        seconds_a_step=watch.seconds_a_step(),
        peak_bytes=used or resident,
        resident_bytes=resident,
        base_bytes=base,
        checkpoint_bytes=sum(path.stat().st_size for path in newest.rglob("*") if path.is_file()),
        device="cuda" if used else "cpu",
    )


def main(folder: Path) -> int:
    """Measure the settings that lie in ``folder`` and write ``measured.json`` there; return the exit code."""
    settings = PretrainSettings.model_validate(json.loads((folder / "settings.json").read_text(encoding="utf-8")))
    try:
        write_json(folder / "measured.json", asdict(measure(settings, folder / "run")))
    except (CGEarthEyeError, MemoryError, torch.OutOfMemoryError) as error:
        sys.stderr.write(f"{' '.join(str(error).split())}\n")
        return 1
    return 0


def _ignore(units: int) -> None:
    del units


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
