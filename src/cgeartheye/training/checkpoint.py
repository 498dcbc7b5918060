"""Training state on disk: torch distributed checkpoints in numbered folders, each whole or absent."""

from __future__ import annotations

import logging
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from cgeartheye.errors import DataError, ResourceError
from cgeartheye.files import as_resource_error, read_json, write_json

SCHEMA_VERSION: Final = 1
NOTE: Final = ".note.json"
"""Hidden like the format's own ``.metadata``: it tells seconds, which no two runs share."""
_LOG = logging.getLogger(__name__)


def save_checkpoint(folder: Path, step: int, tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> Path:
    """Write ``folder/step_00000123`` with named tensors (of any shape) and a JSON note; it appears whole or not at all.

    Raises:
        ResourceError: if the disk is full or the folder may not be written.
    """
    final = folder / f"step_{step:08d}"
    temporary = folder / f".{final.name}.tmp"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        with _one_process():
            save(dict(tensors), checkpoint_id=temporary, no_dist=True)
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


def prune_checkpoints(folder: Path, *, keep: int) -> None:
    """Remove all but the newest ``keep`` checkpoints, and what an interrupted save left."""
    for path in _finished(folder)[:-keep]:
        shutil.rmtree(path)
    for path in folder.glob(".step_*.tmp"):
        shutil.rmtree(path)


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint, or None."""
    found = _finished(folder)
    return found[-1] if found else None


def load_checkpoint(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Fill named tensors (of the shapes that were saved) in place and return the note.

    Raises:
        DataError: if the checkpoint is of another schema version, unreadable or of another network.
    """
    note: dict[str, Any] = read_json(path / NOTE)
    if note.get("schema_version") != SCHEMA_VERSION:
        raise DataError(f"schema_version {note.get('schema_version')!r} is not known to this release", where=str(path))
    try:
        with _one_process():
            load(dict(tensors), checkpoint_id=path, no_dist=True)
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
