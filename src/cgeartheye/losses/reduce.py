"""Sums over the processes of a run, as the losses need them; one process is its own sum."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Reduce(Protocol):
    """What a loss asks of the processes that share a batch; every process calls the same functions in the same order."""

    def total(self, value: Tensor) -> Tensor:
        """Return the sum of (...) ``value`` over the processes."""

    def greatest(self, value: Tensor) -> Tensor:
        """Return the elementwise maximum of (...) ``value`` over the processes."""


class Alone:
    """One process."""

    def total(self, value: Tensor) -> Tensor:
        """Return (...) ``value``."""
        return value

    def greatest(self, value: Tensor) -> Tensor:
        """Return (...) ``value``."""
        return value


ALONE: Reduce = Alone()
