"""Self-attention over packed tokens: one matrix multiplication for all views, attention inside each row of each view.

B rows of a group, N tokens of a row, T all tokens (sum of B * N over the groups), D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Layer = Callable[[Tensor], Tensor]


class Group(NamedTuple):
    """Consecutive tokens of a packed tensor: ``rows`` sequences of ``length`` tokens each."""

    rows: int
    length: int

    @property
    def tokens(self) -> int:
        """Number of tokens of the group."""
        return self.rows * self.length


class Attention(nn.Module):
    """Multi-head self-attention with a fused projection to queries, keys and values (names as in DINOv2)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor, groups: Sequence[Group], last: Layer | None = None, rows: Tensor | None = None) -> Tensor:
        """Attend within every row; tokens of different rows or groups never meet.

        Args:
            tokens: (T, D) float, the groups one after the other, each row-major.
            groups: what the T tokens are; their ``tokens`` sum to T.
            last: function in place of the projection that ends it.
            rows: (R,) int64 tokens that are projected; None projects all.

        Returns:
            (T, D) float, or (R, D) of ``rows``.
        """
        parts = torch.split(self.qkv(tokens), [group.tokens for group in groups])
        attended = [self._attend(part, group) for part, group in zip(parts, groups, strict=True)]
        mixed = attended[0] if len(attended) == 1 else torch.cat(attended)
        return (last or self.proj)(mixed if rows is None else mixed.index_select(0, rows))

    def _attend(self, qkv: Tensor, group: Group) -> Tensor:
        heads = qkv.view(group.rows, group.length, 3, self.heads, -1)  # (B, N, 3, heads, D / heads)
        # parted first and turned afterwards: the gradients are then stacked straight into the order of the projection
        query, key, value = (part.transpose(1, 2) for part in heads.unbind(2))  # each (B, heads, N, D / heads)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return mixed.transpose(1, 2).reshape(group.tokens, -1)  # (B * N, D)
