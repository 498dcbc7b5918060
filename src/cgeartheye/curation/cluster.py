"""The same pieces on a Ray cluster; imported only where one is named, because Ray is the extra ``cluster``."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import ray
from ray.exceptions import RayError, RayTaskError

from cgeartheye.errors import ResourceError

_IN_FLIGHT: Final = 2
"""Tasks handed out ahead of time for each core of the cluster."""
_ANSWER_S: Final = 10.0
"""Seconds in which a cluster must take a connection; Ray itself waits for minutes."""
_RETRIES: Final = 3
"""Times a piece is begun anew when its process or node is lost."""


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Connect to the cluster at ``address`` for a while; Ray's own usage statistics are off.

    Raises:
        ResourceError: if no cluster answers.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if port.isdecimal():
            socket.create_connection((host, int(port)), timeout=_ANSWER_S).close()
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        remedy = "start it with `ray start --head`, and give the address that this prints"
        raise ResourceError(f"no Ray cluster answers ({error})", where=address, remedy=remedy) from error
    try:
        yield
    finally:
        ray.shutdown()


def finished_on_cluster(work: Callable[..., None], todo: Iterable[tuple[Any, ...]]) -> Iterator[None]:
    """Call ``work(*arguments)`` on the cluster for every entry of ``todo``; yield after each, in any order.

    ``work`` and its arguments are sent, files are not: every node must see the same paths. A piece whose node is lost is
    begun anew elsewhere, which is safe because pieces are whole or absent.

    Raises:
        ResourceError: if a piece is lost again and again.
    """
    remote = ray.remote(num_cpus=1, max_retries=_RETRIES)(_in_folder)
    here, waiting = Path.cwd(), set()
    try:
        for arguments in todo:
            waiting.add(remote.remote(here, work, arguments))
            if len(waiting) >= _IN_FLIGHT * max(1, int(ray.cluster_resources().get("CPU", 1))):
                waiting, finished = _some(waiting)
                yield from [None] * finished
        while waiting:
            waiting, finished = _some(waiting)
            yield from [None] * finished
    except RayTaskError as error:
        raise (error.cause if isinstance(error.cause, Exception) else error) from None  # what went wrong in the piece
    except RayError as error:
        raise ResourceError(
            f"the cluster lost a piece {_RETRIES + 1} times ({type(error).__name__}), most often because a memory was full",
            remedy="give its nodes fewer CPUs (`ray start --num-cpus`) and repeat the command; finished pieces are kept",
        ) from error


def _some(waiting: set[Any]) -> tuple[set[Any], int]:
    finished, left = ray.wait(list(waiting), num_returns=1)
    ray.get(finished)
    return set(left), len(finished)


def _in_folder(folder: Path, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    os.chdir(folder)  # relative paths mean the same as where the command was given
    work(*arguments)
