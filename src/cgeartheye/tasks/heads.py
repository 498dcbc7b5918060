"""Heads that turn frozen patch tokens into class logits.

B batch, D joined width of all levels, C classes, h w patches.
"""

from __future__ import annotations

import math
from typing import Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cgeartheye.seeding import derive

Kind = Literal["linear", "conv"]
FINER: Final = 2
"""How many logits along each side of a patch the `conv` head gives [ours: as good as refining an upsampled map, at 40 % of its
cost; four a side were no better]."""


class DenseHead(nn.Module):
    """Standardises each channel by fixed statistics, then maps it to logits; `conv` mixes neighbours and doubles the resolution.

    The statistics come from the training windows and are part of the head, so that any scale of tokens is met alike.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, kind: Kind, width: int, classes: int, hidden: int) -> None:
        super().__init__()
        self.kind, self.classes = kind, classes
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        if kind == "linear":
            self.classify = nn.Conv2d(width, classes, 1)
        else:
            self.reduce = nn.Conv2d(width, hidden, 1)
            self.refine = nn.Conv2d(hidden, hidden, 3, padding=1, padding_mode="replicate")
            self.classify = nn.Conv2d(hidden, classes * FINER**2, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, D, h, w) float tokens to (B, C, h, w) logits for `linear`, (B, C, 2 h, 2 w) for `conv`."""
        x = (tokens - self.mean[:, None, None]) / self.deviation[:, None, None]
        if self.kind == "linear":
            logits: Tensor = self.classify(x)
            return logits
        x = F.gelu(self.reduce(x))
        x = F.gelu(x + self.refine(x))
        return F.pixel_shuffle(self.classify(x), FINER)


@torch.no_grad()
def build_head(kind: Kind, width: int, classes: int, *, hidden: int, seed: int) -> DenseHead:
    """Return a head whose start depends on its sizes and ``seed`` alone: weights uniform within 1 / sqrt(fan-in), biases 0."""
    head = DenseHead(kind, width, classes, hidden)
    for name, parameter in head.named_parameters():
        if parameter.ndim == 1:
            parameter.zero_()
            continue
        generator = torch.Generator().manual_seed(derive(seed, "head", name))
        bound = 1 / math.sqrt(parameter[0].numel())
        parameter.uniform_(-bound, bound, generator=generator)
    return head
