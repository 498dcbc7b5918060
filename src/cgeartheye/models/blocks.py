"""The pre-norm transformer block on packed tokens, with LayerScale and drop path by subset of rows.

B rows of a group, N tokens of a row, T all tokens, D width, M hidden width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cgeartheye.models.attention import Attention, Group, Layer

Activation = Callable[[Tensor], Tensor]
Branch = Callable[[Tensor, Sequence[Group], Layer], Tensor]

NORM_EPS = 1e-6
"""Of every LayerNorm [dinov2]."""


class Kept(NamedTuple):
    """The rows that one residual branch computes while the others are dropped."""

    tokens: Tensor
    """(T_kept,) int64: positions of the kept tokens in the packed tensor."""
    groups: tuple[Group, ...]
    """What the kept tokens are."""
    scale: Tensor
    """(T_kept, 1) float: rows / kept rows of each token's group, so that the expectation stays."""

    def factors(self, tokens: int, rows: Tensor) -> Tensor:
        """Return (R, 1) float: ``scale`` of those of (R,) ``rows`` among T ``tokens`` that are kept, 0 of the others."""
        return self.scale.new_zeros(tokens, 1).index_copy(0, self.tokens, self.scale).index_select(0, rows)


def draw_kept(groups: Sequence[Group], rate: float, count: int, *, generator: torch.Generator) -> list[Kept]:
    """Draw the kept rows of ``count`` residual branches with one random call.

    Each group of B rows keeps ``max(1, int(B * (1 - rate)))`` of them, drawn without replacement.

    Args:
        groups: what the packed tokens are.
        rate: share of rows dropped, in [0, 1).
        count: number of branches.
        generator: CPU generator that the draw comes from.

    Source: stochastic depth by batch subsets, DINOv2 (arXiv 2304.07193), section 4.
    """
    order = torch.rand(count, sum(group.rows for group in groups), generator=generator)
    smaller = tuple(Group(max(1, int(group.rows * (1 - rate))), group.length) for group in groups)
    kept = []
    for ranks in order:
        index, scale, row, token = [], [], 0, 0
        for group, less in zip(groups, smaller, strict=True):
            rows = ranks[row : row + group.rows].argsort()[: less.rows].sort().values
            index.append((token + rows[:, None] * group.length + torch.arange(group.length)).flatten())
            scale.append(torch.full((less.tokens, 1), group.rows / less.rows))
            row, token = row + group.rows, token + group.tokens
        kept.append(Kept(torch.cat(index), smaller, torch.cat(scale)))
    return kept


class LayerScale(nn.Module):
    """A learned factor per channel on a residual branch (Touvron et al., arXiv 2103.17239)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Scale (T, D) float tokens; returns the same shape."""
        return tokens * self.gamma

    def after(self, layer: nn.Module, rows: int) -> Layer:
        """Return ``layer`` followed by the scaling, for so many rows.

        Where a plain linear layer has fewer inputs than there are rows, its weights are scaled in place of its outputs: the
        gradient then takes passes over the weights and not over the tokens, and no output waits for it. Layers that somebody has
        replaced or wrapped are called as they are.
        """
        if type(layer) is not nn.Linear or rows <= layer.in_features:
            return lambda tokens: self(layer(tokens))
        weight, bias = _Scaled.apply(layer.weight, layer.bias, self.gamma)
        return lambda tokens: F.linear(tokens, weight, bias)


class _Scaled(torch.autograd.Function):
    """Weights (D, M) and bias (D,) times a factor (D,) a row, with as few calls as it takes."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401 - torch's own
        """Return both, scaled: (D, M) and (D,)."""
        ctx.save_for_backward(weight, bias, gamma)
        scaled = torch._foreach_mul([weight, bias], [gamma[:, None], gamma])
        return scaled[0], scaled[1]

    @staticmethod
    def backward(ctx: Any, of_weight: Tensor, of_bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ANN401
        """Return the gradients of weight (D, M), bias (D,) and factor (D,)."""
        weight, bias, gamma = ctx.saved_tensors
        passed = torch._foreach_mul([of_weight, of_bias], [gamma[:, None], gamma])
        by_row = torch.bmm(of_weight[:, None], weight[:, :, None]).flatten()  # (D,): the product of each pair of rows
        return passed[0], passed[1], torch.addcmul(by_row, of_bias, bias)


def projected(before: Tensor, activation: Activation, layer: Layer, *, lean: bool) -> Tensor:
    """Return ``layer(activation(before))`` of (T, ...) float tokens.

    Autograd keeps both sides of the activation, the widest tensors of a block. Lean, it keeps ``before`` alone and computes the
    other side again, bit for bit, when the layer's weights get their gradient. A compiled program makes that choice itself.
    """
    after = activation(before)
    if not (lean and torch.is_grad_enabled()) or torch.compiler.is_compiling():
        return layer(after)
    kept, address = before.detach(), after.data_ptr()

    def pack(value: Tensor) -> Tensor | None:
        """Keep nothing of the (T, ...) side that can be computed again."""
        return None if value.data_ptr() == address else value

    def unpack(value: Tensor | None) -> Tensor:
        """Return what was kept, or the (T, ...) side computed again."""
        return activation(kept) if value is None else value

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        return layer(after)


class Mlp(nn.Module):
    """Two linear layers with the exact GELU between them."""

    lean = False
    """Whether training keeps one side of the activation only."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    @property
    def last(self) -> nn.Module:
        """The layer whose output is that of the network."""
        return self.fc2

    def forward(self, tokens: Tensor, last: Layer | None = None) -> Tensor:
        """Map (T, D) float tokens to (T, D), with another function in place of the last layer if one is given."""
        return projected(self.fc1(tokens), F.gelu, last or self.fc2, lean=self.lean)


class SwiGlu(nn.Module):
    """Gated MLP with gate and value in one matrix, the gate first (Shazeer, arXiv 2002.05202; fused as in DINOv2).

    The inner width is two thirds of ``hidden``, rounded up to a multiple of 8.
    """

    lean = False
    """Whether training keeps one side of the activation only."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        inner = (int(hidden * 2 / 3) + 7) // 8 * 8
        self.w12 = nn.Linear(width, 2 * inner)
        self.w3 = nn.Linear(inner, width)

    @property
    def last(self) -> nn.Module:
        """The layer whose output is that of the network."""
        return self.w3

    def forward(self, tokens: Tensor, last: Layer | None = None) -> Tensor:
        """Map (T, D) float tokens to (T, D), with another function in place of the last layer if one is given."""
        return projected(self.w12(tokens), _gated, last or self.w3, lean=self.lean)


def _gated(both: Tensor) -> Tensor:
    gate, value = both.chunk(2, dim=-1)  # each (T, inner)
    return F.silu(gate) * value


class Block(nn.Module):
    """Pre-norm transformer block (module names as in DINOv2)."""

    def __init__(self, width: int, heads: int, hidden: int, *, ffn: Literal["mlp", "swiglu"]) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = Attention(width, heads)
        self.ls1 = LayerScale(width)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width, hidden) if ffn == "mlp" else SwiGlu(width, hidden)
        self.ls2 = LayerScale(width)

    def forward(
        self,
        tokens: Tensor,
        groups: Sequence[Group],
        kept: tuple[Kept | None, Kept | None] = (None, None),
        rows: Tensor | None = None,
    ) -> Tensor:
        """Return (T, D) tokens after attention and MLP.

        Args:
            tokens: (T, D) float, packed.
            groups: what the T tokens are.
            kept: rows that the two residual branches compute; None computes all.
            rows: (R,) int64 tokens that are wanted; only (R, D) are then returned. All T attend, but what acts on each token by
                itself is done for these alone. None wants all.
        """
        if rows is not None:
            return self._chosen(tokens, groups, kept, rows)
        tokens = _residual(tokens, groups, kept[0], self.ls1, self.attn.proj, branch=self._attend)
        return _residual(tokens, groups, kept[1], self.ls2, self.mlp.last, branch=self._widen)

    def _attend(self, tokens: Tensor, groups: Sequence[Group], last: Layer) -> Tensor:
        return self.attn(self.norm1(tokens), groups, last)  # type: ignore[no-any-return]

    def _widen(self, tokens: Tensor, groups: Sequence[Group], last: Layer) -> Tensor:
        del groups
        return self.mlp(self.norm2(tokens), last)  # type: ignore[no-any-return]

    def _chosen(self, tokens: Tensor, groups: Sequence[Group], kept: tuple[Kept | None, Kept | None], rows: Tensor) -> Tensor:
        R, T = len(rows), len(tokens)
        first, second = (None if each is None else each.factors(T, rows).to(tokens.dtype) for each in kept)
        update: Tensor = self.attn(self.norm1(tokens), groups, self.ls1.after(self.attn.proj, R), rows)
        wanted = tokens.index_select(0, rows)
        wanted = wanted + (update if first is None else update * first)
        update = self.mlp(self.norm2(wanted), self.ls2.after(self.mlp.last, R))
        return wanted + (update if second is None else update * second)


def _residual(
    tokens: Tensor, groups: Sequence[Group], kept: Kept | None, scale: LayerScale, last: nn.Module, *, branch: Branch
) -> Tensor:
    if kept is None and not torch.is_grad_enabled():  # in one pass, whose gradient would take more
        return torch.addcmul(tokens, branch(tokens, groups, last), scale.gamma)
    if kept is None:
        return tokens + branch(tokens, groups, scale.after(last, len(tokens)))
    update = branch(tokens[kept.tokens], kept.groups, scale.after(last, len(kept.tokens)))  # (T_kept, D)
    return tokens.index_add(0, kept.tokens, (update * kept.scale).to(tokens.dtype))
