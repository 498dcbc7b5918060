"""Renaming by table: names outside the blocks one by one, names inside by their ending."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

State: TypeAlias = Mapping[str, Tensor]
"""A state dict: names and tensors of any shape."""
_OWN_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Naming:
    """One layout's names beside ours.

    Args:
        blocks: what stands before the block's number, for example ``layers.``.
        top: our modules outside the blocks -> theirs, without ``.weight`` and ``.bias``.
        inside: our modules inside a block -> theirs.
    """

    blocks: str
    top: Mapping[str, str]
    inside: Mapping[str, str]

    def to_own(self, key: str) -> str:
        """Return our name of their ``key``, or the key itself if the table has none."""
        block = re.fullmatch(re.escape(self.blocks) + r"(\d+)\.(.+)", key)
        if block is None:
            return _swap(key, {theirs: ours for ours, theirs in self.top.items()}) or key
        ending = _swap(block[2], {theirs: ours for ours, theirs in self.inside.items()})
        return key if ending is None else f"blocks.{block[1]}.{ending}"

    def from_own(self, key: str) -> str:
        """Return their name of our ``key``, or the key itself if the table has none."""
        block = _OWN_BLOCK.fullmatch(key)
        if block is None:
            return _swap(key, self.top) or key
        ending = _swap(block[2], self.inside)
        return key if ending is None else f"{self.blocks}{block[1]}.{ending}"


def _swap(key: str, table: Mapping[str, str]) -> str | None:
    """Replace the module that ``key`` belongs to by the table's, keeping ``.weight`` or ``.bias``."""
    if key in table:
        return table[key]
    module, dot, ending = key.rpartition(".")
    return f"{table[module]}.{ending}" if dot and module in table else None
