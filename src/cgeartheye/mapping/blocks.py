"""Superblocks as independent pieces of work: each one file, written whole or not at all.

A file holds the decided interior of its superblock and the summed probabilities of the rim that it shares with its neighbours.
C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from cgeartheye.files import write_bytes
from cgeartheye.geometry.blending import decide
from cgeartheye.geometry.windows import Superblock, Window, WindowPlan
from cgeartheye.inference.windowed import BlockSums, block_sums
from cgeartheye.mapping.source import SceneSource
from cgeartheye.processes import Pool
from cgeartheye.progress import Progress
from cgeartheye.tasks.segmentation import TaskCard, load_task
from cgeartheye.training.runtime import using_threads


@dataclass(frozen=True)
class Job:
    """One method over one scene; sent to worker processes.

    Attributes:
        task: folder of the task model.
        method: "trained" or a baseline.
        source: the scene.
        plan: its windows and superblocks.
        batch: windows a forward pass.
        state: folder of the superblocks' files.
    """

    task: Path
    method: str
    source: SceneSource
    plan: WindowPlan
    batch: int
    state: Path

    def file(self, block: Superblock) -> Path:
        """Return the file of a superblock."""
        return self.state / f"{block.name}.npz"


@dataclass(frozen=True)
class Stored:
    """The file of a superblock, read.

    Attributes:
        classes: (h, w) uint8 class numbers of the interior.
        confidence: (h, w) uint8 of the interior.
        rim: windows of the rim and their (C, h, w) int32 sums.
        valid: (h, w) bool of the region.
        lost: windows that could not be read.
    """

    classes: NDArray[np.uint8]
    confidence: NDArray[np.uint8]
    rim: list[tuple[Window, NDArray[np.int32]]]
    valid: NDArray[np.bool_]
    lost: list[tuple[int, int]]


def compute_blocks(job: Job, pool: Pool, progress: Progress) -> None:
    """Compute every superblock of a job whose file does not exist.

    Args:
        job: the scene and the method.
        pool: shared by all scenes and methods of a stage.
        progress: told what happens.

    Raises:
        ResourceError: if the disk is full or a worker process died.
        InputError, DataError: if the task model cannot be loaded.
    """
    blocks = list(job.plan.blocks())
    missing = [block for block in blocks if not job.file(block).exists()]
    with progress.task(f"map {job.source.path.stem} ({job.method})", len(blocks), len(blocks) - len(missing)) as advance:
        for _ in pool.finished(run_block, ((job, block) for block in missing), len(missing)):
            advance(1)


def run_block(job: Job, block: Superblock) -> None:
    """Compute one superblock with one thread and write its file."""
    model, card = _model(job.task, job.method)
    with using_threads(1), job.source.reading() as read:
        result = block_sums(model, block, read, classes=len(card.classes), batch=job.batch)
    store(result, job.file(block))


def store(result: BlockSums, path: Path) -> None:
    """Write what later steps need of a superblock's sums, atomically."""
    block, support = result.block, result.block.support
    interior = block.interior
    classes, confidence = decide(result.sums[:, *interior.within(support)])
    rim = frame(support, interior)
    arrays: dict[str, Any] = {
        "classes": classes,
        "confidence": confidence,
        "valid": np.packbits(result.valid),
        "lost": np.array(result.lost, np.int64).reshape(-1, 2),
        "rim": np.array([(w.row, w.col, w.height, w.width) for w in rim], np.int64).reshape(-1, 4),
    }
    arrays |= {f"rim_{k}": result.sums[:, *window.within(support)] for k, window in enumerate(rim)}
    buffer = BytesIO()
    np.savez(buffer, **arrays)
    write_bytes(path, buffer.getvalue())


def load(path: Path, block: Superblock) -> Stored:
    """Read the file of a superblock."""
    with np.load(path) as found:
        rim = [(Window(*map(int, row)), found[f"rim_{k}"]) for k, row in enumerate(found["rim"])]
        height, width = block.region.shape
        valid = np.unpackbits(found["valid"], count=height * width).astype(np.bool_).reshape(height, width)
        lost = [(int(i), int(j)) for i, j in found["lost"]]
        return Stored(found["classes"], found["confidence"], rim, valid, lost)


def frame(outer: Window, inner: Window) -> list[Window]:
    """Return up to four windows that together are ``outer`` without ``inner``, which lies in it or is empty."""
    if not inner:
        return [outer]
    parts = [
        Window(outer.row, outer.col, inner.row - outer.row, outer.width),
        Window(inner.bottom, outer.col, outer.bottom - inner.bottom, outer.width),
        Window(inner.row, outer.col, inner.height, inner.col - outer.col),
        Window(inner.row, inner.right, inner.height, outer.right - inner.right),
    ]
    return [part for part in parts if part]


@lru_cache(maxsize=3)
def _model(task: Path, method: str) -> tuple[nn.Module, TaskCard]:
    """Load a model once a process."""
    return load_task(task, method)
