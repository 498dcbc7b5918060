"""Training state on disk: torch distributed checkpoints in numbered folders, each whole or absent.

Sharded tensors are written by the process that holds them and read by any number of processes.
"""

from __future__ import annotations

import logging
import os
import shutil
import warnings
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from cgeartheye.errors import DataError, ResourceError
from cgeartheye.files import as_resource_error, read_json, write_json
from cgeartheye.training.distributed import World

SCHEMA_VERSION: Final = 2
NOTE: Final = ".note.json"
"""Hidden like the format's own ``.metadata``: it tells seconds, which no two runs share."""
_LOG = logging.getLogger(__name__)


class Saver:
    """Writes checkpoints into a folder, in the background if asked, one at a time.

    Args:
        folder: of the checkpoints.
        world: the processes that save together; each calls the same methods in the same order.
        asynchronous: whether :meth:`save` returns once the state is copied.
    """

    def __init__(self, folder: Path, world: World, *, asynchronous: bool) -> None:
        self.folder, self._world = folder, world
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint") if asynchronous else None
        self._stager = DefaultStager(
            StagingOptions(use_pinned_memory=False, use_shared_memory=False, use_async_staging=False, use_non_blocking_copy=False)
        )
        self._running: Future[Path] | None = None

    def save(self, step: int, tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> None:
        """Write ``step_00000123`` with named tensors (of any shape) and a JSON note; it appears whole or not at all.

        Raises:
            ResourceError: if the disk is full or the folder may not be written, now or at the save before.
        """
        self.wait()
        if self._pool is None:
            save_checkpoint(self.folder, step, tensors, note, world=self._world)
            return
        copied: Any = self._stager.stage(dict(tensors))
        self._running = self._pool.submit(save_checkpoint, self.folder, step, copied, note, world=self._world)

    def wait(self) -> None:
        """Wait until the last save is on disk; raises what :meth:`save` raises."""
        if self._running is not None:
            running, self._running = self._running, None
            running.result()

    def close(self) -> None:
        """Finish the last save and end the thread."""
        try:
            self.wait()
        finally:
            self._stager.close()
            if self._pool is not None:
                self._pool.shutdown()


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Tensor], note: Mapping[str, Any], *, world: World | None = None
) -> Path:
    """Write ``folder/step_00000123`` with named tensors (of any shape) and a JSON note; it appears whole or not at all.

    Raises:
        ResourceError: if the disk is full or the folder may not be written.
    """
    final = folder / f"step_{step:08d}"
    temporary = folder / f".{final.name}.tmp"
    leads = world is None or world.leads
    try:
        if leads:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True, exist_ok=True)  # another process may have made it first
        _save_together(temporary, tensors, world)
        if leads:
            write_json(temporary / NOTE, {"schema_version": SCHEMA_VERSION, "step": step, **note})
            shutil.rmtree(final, ignore_errors=True)
            temporary.rename(final)
            _sync(folder)
    except CheckpointException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise _disk_fault(error, folder) from error
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise as_resource_error(error, folder) from error
    except ResourceError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return final


def _save_together(folder: Path, tensors: Mapping[str, Tensor], world: World | None) -> None:
    with _one_process():
        if world is None or world.size == 1:
            save(dict(tensors), checkpoint_id=folder, no_dist=True)
        else:
            save(dict(tensors), checkpoint_id=folder, process_group=world.background)


def prune_checkpoints(folder: Path, *, keep: int, spare: Collection[int] = ()) -> None:
    """Remove all but the newest ``keep`` checkpoints and those of the steps ``spare``."""
    for path in _finished(folder)[:-keep]:
        if _step(path) not in spare:
            shutil.rmtree(path)


def sweep_checkpoints(folder: Path) -> None:
    """Remove what an interrupted save left."""
    for path in folder.glob(".step_*.tmp"):
        shutil.rmtree(path)


def latest_checkpoint(folder: Path, *, before: int | None = None) -> Path | None:
    """Return the newest checkpoint, if any, of a step at or below ``before``."""
    found = [path for path in _finished(folder) if before is None or _step(path) <= before]
    return found[-1] if found else None


def read_note(path: Path) -> dict[str, Any]:
    """Return the note of a checkpoint.

    Raises:
        DataError: if it is of another schema version or unreadable.
    """
    note: dict[str, Any] = read_json(path / NOTE)
    if note.get("schema_version") != SCHEMA_VERSION:
        raise DataError(f"schema_version {note.get('schema_version')!r} is not known to this release", where=str(path))
    return note


def load_checkpoint(path: Path, tensors: Mapping[str, Tensor], *, world: World | None = None) -> dict[str, Any]:
    """Fill named tensors (of the shapes that were saved) in place and return the note.

    Raises:
        DataError: if the checkpoint is of another schema version, unreadable or of another network.
    """
    note = read_note(path)
    try:
        with _one_process():
            load(dict(tensors), checkpoint_id=path, no_dist=world is None or world.size == 1)
    except CheckpointException as error:
        remedy = "remove this checkpoint folder; the run then goes on from the one before"
        raise DataError(
            f"cannot be read as a checkpoint of this network ({_first(error)})", where=str(path), remedy=remedy
        ) from error
    _LOG.info("resumed from %s", path)
    return note


@contextmanager
def _one_process() -> Iterator[None]:
    """Silence the format's remark that there is one process, which is meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _finished(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step_*") if (path / NOTE).exists())


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step_"))


def _first(error: CheckpointException) -> BaseException:
    return next((cause for cause, _ in error.failures.values()), error)


def _disk_fault(error: CheckpointException, folder: Path) -> BaseException:
    cause = _first(error)
    return as_resource_error(cause, folder) if isinstance(cause, OSError) else error


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
