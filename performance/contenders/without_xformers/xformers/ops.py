"""The few functions that DINOv2's training uses at drop path 0, by plain torch: attention once for each length of rows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from types import SimpleNamespace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor


class BlockDiagonalMask:
    """Rows of tokens of several lengths in one packed row, each attending to itself."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.groups = [(len(list(same)), length) for length, same in groupby(lengths)]
        self._batch_sizes: Sequence[int] | None = None

    @classmethod
    def from_seqlens(cls, lengths: Sequence[int]) -> Self:
        """Return the mask of packed rows of these lengths."""
        return cls(lengths)

    @classmethod
    def from_tensor_list(cls, tensors: Sequence[Tensor]) -> tuple[Self, Tensor]:
        """Return the mask of (B, M, D) tensors and all of them packed, (1, sum B M, D)."""
        mask = cls([tensor.shape[1] for tensor in tensors for _ in range(tensor.shape[0])])
        mask._batch_sizes = [tensor.shape[0] for tensor in tensors]
        return mask, torch.cat([tensor.reshape(1, -1, *tensor.shape[2:]) for tensor in tensors], dim=1)

    def split(self, packed: Tensor) -> list[Tensor]:
        """Return the tensors that (1, T, D) was packed from."""
        sizes = self._batch_sizes or []
        lengths = [length for rows, length in self.groups for _ in range(rows)]
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        shapes = [(rows, lengths[start]) for rows, start in zip(sizes, starts, strict=True)]
        parts = packed.split([rows * length for rows, length in shapes], dim=1)
        return [part.reshape(*shape, *packed.shape[2:]) for part, shape in zip(parts, shapes, strict=True)]


def memory_efficient_attention(q: Tensor, k: Tensor, v: Tensor, attn_bias: BlockDiagonalMask | None = None) -> Tensor:
    """Return attention of (B, M, heads, D) by torch's fused kernel, for a packed row once for each length."""
    if attn_bias is None:
        return _attend(q, k, v)
    sizes = [rows * length for rows, length in attn_bias.groups]
    parts = zip(*(tensor.split(sizes, dim=1) for tensor in (q, k, v)), attn_bias.groups, strict=True)
    found = [_attend(*(part.view(*shape, *part.shape[2:]) for part in three)) for *three, shape in parts]
    return torch.cat([part.reshape(1, -1, *part.shape[2:]) for part in found], dim=1)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def unbind(tensor: Tensor, dim: int) -> tuple[Tensor, ...]:
    """Return the slices of a tensor."""
    return tensor.unbind(dim)


def scaled_index_add(*_: object, **__: object) -> Tensor:
    """Refuse: only needed with drop path."""
    message = "this stand-in attends only: measure with drop path 0"
    raise ValueError(message)


index_select_cat = scaled_index_add
fmha = SimpleNamespace(BlockDiagonalMask=BlockDiagonalMask)
