"""What a training process sets for itself and puts back: threads, determinism; and where it runs."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch

from cgeartheye.errors import ResourceError

_FILLING: Any = torch.utils.deterministic  # a module that makes its attribute only when imported

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
"""Numbers of glibc's ``mallopt``."""


@contextmanager
def using_threads(count: int) -> Iterator[None]:
    """Compute with ``count`` threads, and with as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def runtime(*, threads: int, deterministic: bool = True) -> Iterator[None]:
    """Run with ``threads`` threads and deterministic algorithms, and restore both afterwards; freed memory is kept from then on.

    "Bit for bit" holds on one machine for one value of ``threads``. On a GPU, operations without a deterministic form warn.
    """
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        _FILLING.fill_uninitialized_memory,
    )
    keep_freed_memory()
    torch.use_deterministic_algorithms(deterministic, warn_only=torch.cuda.is_available())
    _FILLING.fill_uninitialized_memory = False  # a guard against reading it; nothing here does, and it costs 3 %
    try:
        with using_threads(threads):
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        _FILLING.fill_uninitialized_memory = before[2]


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, to the largest it ever held, where the C library is glibc.

    A step makes and drops gigabytes of tensors. glibc returns each of 32 MiB and more to the kernel at once, which hands it
    back page by page and zeroed: 5 % of the processor time of a step of ViT-S. Elsewhere nothing is changed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 2**30)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)


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
