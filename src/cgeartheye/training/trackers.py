"""Where log lines go besides ``metrics.jsonl``: TensorBoard and Weights & Biases, each only if asked for."""

from __future__ import annotations

import importlib
import math
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from cgeartheye.errors import ResourceError
from cgeartheye.files import write_text
from cgeartheye.training.run_log import Value

TENSORBOARD_FOLDER: Final = "tensorboard"
WANDB_FOLDER: Final = "wandb"
_RUN_ID: Final = "run_id.txt"


class Tracker(Protocol):
    """Takes the lines that ``metrics.jsonl`` takes."""

    def write(self, line: Mapping[str, Value]) -> None:
        """Take one line, which has a ``step``; numbers become curves, None and what is not finite is left out."""

    def close(self) -> None:
        """Send or flush what is held. Nothing may be written afterwards."""


class Trackers:
    """Several trackers as one; none is a tracker that does nothing."""

    def __init__(self, inner: Sequence[Tracker]) -> None:
        self._inner = tuple(inner)

    def write(self, line: Mapping[str, Value]) -> None:
        """Hand one line to each."""
        for tracker in self._inner:
            tracker.write(line)

    def close(self) -> None:
        """Close each."""
        for tracker in self._inner:
            tracker.close()


def trackers(folder: Path, *, tensorboard: bool, wandb: str | None, name: str, step: int) -> Tracker:
    """Open what is asked for; call it in one process of several only.

    Args:
        folder: of the run; TensorBoard's files go into its ``tensorboard/``, those of Weights & Biases into ``wandb/``.
        tensorboard: whether to write for TensorBoard.
        wandb: project of Weights & Biases, or None. Whether it is reached is W&B's own business (``WANDB_MODE=offline``).
        name: of the run, as W&B lists it.
        step: steps already done. What an interrupted run wrote beyond is shown by neither.

    Raises:
        ResourceError: if a library is missing, or W&B cannot begin; the remedy is named.
    """
    inner: list[Tracker] = []
    if tensorboard:
        inner.append(TensorBoardTracker(folder, step=step))
    if wandb is not None:
        inner.append(WandbTracker(folder, project=wandb, name=name))
    return Trackers(inner)


class TensorBoardTracker:
    """Writes event files; opened again at a step, TensorBoard forgets what was written beyond it."""

    def __init__(self, folder: Path, *, step: int) -> None:
        library = _library("torch.utils.tensorboard", "tensorboard")
        # purge_step is the first step that is forgotten; the line of `step` itself stays in metrics.jsonl and here
        self._writer = library.SummaryWriter(str(folder / TENSORBOARD_FOLDER), purge_step=step + 1)

    def write(self, line: Mapping[str, Value]) -> None:
        """Take one line; texts are kept as texts."""
        step = int(line["step"] or 0)
        for key, value in _shown(line).items():
            if isinstance(value, str):
                self._writer.add_text(key, value, step)
            else:
                self._writer.add_scalar(key, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()


class WandbTracker:
    """Sends lines to Weights & Biases: one run a folder, which goes on when the folder's run does.

    Steps that an interrupted run has sent already are not taken twice: W&B drops what is no newer than the newest step, and
    a resumed run repeats those steps exactly. Its reports on errors, machine, code and console are switched off.
    """

    def __init__(self, folder: Path, *, project: str, name: str) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read once, when the library is imported
        library = _library("wandb", "wandb")
        (folder / WANDB_FOLDER).mkdir(parents=True, exist_ok=True)
        quiet = library.Settings(
            console="off",
            disable_code=True,
            disable_git=True,
            save_code=False,
            silent=True,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        )
        try:
            self._run = library.init(
                project=project, name=name, id=_run_id(folder), dir=str(folder), resume="allow", settings=quiet
            )
        except library.Error as error:
            raise ResourceError(
                f"Weights & Biases cannot begin ({error})",
                where="watch.wandb",
                remedy="run `wandb login`, or set WANDB_MODE=offline to keep the lines in the run's folder",
            ) from error

    def write(self, line: Mapping[str, Value]) -> None:
        """Take one line."""
        self._run.log(_shown(line), step=int(line["step"] or 0))

    def close(self) -> None:
        """Send what is left and end."""
        self._run.finish()


def _run_id(folder: Path) -> str:
    """Return the run's name for W&B: drawn once and kept, because two folders of one recipe are two runs."""
    path = folder / WANDB_FOLDER / _RUN_ID
    if not path.exists():
        write_text(path, secrets.token_hex(8))
    return path.read_text(encoding="utf-8").strip()


def _shown(line: Mapping[str, Value]) -> dict[str, float | int | str]:
    return {
        key: value
        for key, value in line.items()
        if key != "step" and value is not None and (isinstance(value, str) or math.isfinite(value))
    }


def _library(module: str, package: str) -> Any:  # noqa: ANN401 - a module
    """Import a library that only this needs.

    Raises:
        ResourceError: if it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ResourceError(
            f"{package} is not installed ({error})", where=f"watch.{package}", remedy='pip install "cgeartheye[track]"'
        ) from error
