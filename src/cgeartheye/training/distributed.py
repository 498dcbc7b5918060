"""The processes of a run: one, or as many as ``torchrun`` started; one code path for both."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from cgeartheye.errors import ResourceError

TIMEOUT: Final = datetime.timedelta(minutes=10)
"""A process that waits longer for another gives up [ours]: one may probe while the others wait, a dead one is not waited for."""
_BUCKET: Final = 2**24


@dataclass(frozen=True)
class World:
    """The processes that share a run. With one process every method returns at once.

    Args:
        rank: of this process, from 0.
        size: number of processes.
        device: of this process.
        background: group whose collectives may run in a thread, for checkpoints; None with one process.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    background: dist.ProcessGroup | None = None

    @property
    def leads(self) -> bool:
        """Whether this process writes what all share."""
        return self.rank == 0

    def total(self, value: Tensor) -> Tensor:
        """Return the sum of (...) ``value`` over the processes; ``value`` itself is left alone."""
        return self._reduced(value, dist.ReduceOp.SUM)

    def greatest(self, value: Tensor) -> Tensor:
        """Return the elementwise maximum of (...) ``value`` over the processes."""
        return self._reduced(value, dist.ReduceOp.MAX)

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of (...) ``value`` over the processes."""
        return self.total(value) / self.size

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes, in few large messages."""
        if self.size == 1:
            return
        for bucket in _buckets([p.grad for p in parameters if p.grad is not None]):
            flat = torch.cat([grad.flatten() for grad in bucket])
            dist.all_reduce(flat)
            parts = torch.split(flat.div_(self.size), [grad.numel() for grad in bucket])
            torch._foreach_copy_(bucket, [part.view_as(grad) for part, grad in zip(parts, bucket, strict=True)])

    def share(self, value: Any) -> Any:  # noqa: ANN401 - any small object
        """Return the leading process's ``value`` in every process."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, device=self.device if self.device.type == "cuda" else None)
        return values[0]

    def wait(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()

    def mesh(self) -> DeviceMesh:
        """Return the one-dimensional mesh of all processes."""
        return init_device_mesh(self.device.type, (self.size,))

    def _reduced(self, value: Tensor, operation: Any) -> Tensor:  # noqa: ANN401 - an enumeration without a type
        if self.size == 1:
            return value
        copy = value.detach().clone()
        dist.all_reduce(copy, op=operation)
        return copy


@contextmanager
def world(device: torch.device) -> Iterator[World]:
    """Join the processes that ``torchrun`` started, or be the only one, and leave them at the end.

    Args:
        device: ``cpu`` or ``cuda``; on GPUs each process takes the one of its local rank.

    Raises:
        ResourceError: if the other processes cannot be reached, or one of them dies meanwhile.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World(device=device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
        background: Any = dist.new_group(backend="gloo", timeout=TIMEOUT)
        yield World(dist.get_rank(), dist.get_world_size(), device, background)
    except (dist.DistError, RuntimeError) as error:
        if not _is_lost(error):
            raise
        raise ResourceError(
            f"another process of this run was lost ({str(error).splitlines()[0]})",
            remedy="start the same command again, on as many processes or another number; it goes on from its last checkpoint",
        ) from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _is_lost(error: BaseException) -> bool:
    text = str(error).lower()
    signs = (
        "connection closed by peer",
        "connection reset",
        "connection refused",
        "timed out",
        "timeout",
        "broken pipe",
        "socket",
    )
    return isinstance(error, dist.DistError) or any(sign in text for sign in signs)


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for grad in gradients:
        if bucket and (sum(g.numel() for g in bucket) + grad.numel() > _BUCKET or grad.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(grad)
    if bucket:
        yield bucket
