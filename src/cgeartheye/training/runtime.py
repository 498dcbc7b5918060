"""What a training process sets for itself and puts back: threads, determinism; and where it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from cgeartheye.errors import ResourceError

_FILLING: Any = torch.utils.deterministic  # a module that makes its attribute only when imported


@contextmanager
def runtime(*, threads: int, deterministic: bool = True) -> Iterator[None]:
    """Run with ``threads`` threads and deterministic algorithms, and restore both afterwards.

    "Bit for bit" holds on one machine for one value of ``threads``. On a GPU, operations without a deterministic form warn.
    """
    before = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        _FILLING.fill_uninitialized_memory,
    )
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic, warn_only=torch.cuda.is_available())
    _FILLING.fill_uninitialized_memory = False  # a guard against reading it; nothing here does, and it costs 3 %
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1], warn_only=before[2])
        _FILLING.fill_uninitialized_memory = before[3]


def pick_device(name: str) -> torch.device:
    """Return the device for ``auto``, ``cpu`` or ``cuda``.

    Raises:
        ResourceError: if ``cuda`` is asked for and there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise ResourceError("this process sees no GPU", remedy="set device to cpu or auto, or check the driver")
    return torch.device(name)


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the arithmetic for ``auto``, ``float32`` or ``bfloat16``: ``auto`` is bfloat16 on a GPU, else float32."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return torch.bfloat16 if name == "bfloat16" else torch.float32
