"""The plainest model of a dense task: logistic regression on the colour of each pixel alone.

B batch, C classes, H W pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ColourModel(nn.Module):
    """Multinomial logistic regression on red, green, blue, their squares and their products."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, classes: int, *, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature
        self.register_buffer("mean", torch.zeros(9))
        self.register_buffer("deviation", torch.ones(9))
        self.weight = nn.Parameter(torch.zeros(classes, 9))
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) uint8 RGB to (B, C, H, W) float logits."""
        rows = colour_terms(images.permute(0, 2, 3, 1).reshape(-1, 3))
        logits = self._logits(rows).view(images.shape[0], *images.shape[-2:], -1)
        return logits.permute(0, 3, 1, 2) / self.temperature

    def _logits(self, terms: Tensor) -> Tensor:
        return F.linear((terms - self.mean) / self.deviation, self.weight, self.bias)


def colour_terms(colours: Tensor) -> Tensor:
    """Map (n, 3) uint8 colours to (n, 9) float: r, g, b, rr, gg, bb, rg, rb, gb of values in [0, 1]."""
    x = colours.float() / 255
    r, g, b = x.unbind(1)
    return torch.stack([r, g, b, r * r, g * g, b * b, r * g, r * b, g * b], dim=1)


def fit_colour(colours: Tensor, labels: Tensor, classes: int, *, penalty: float = 1e-4) -> ColourModel:
    """Fit by L-BFGS, deterministically.

    Args:
        colours: (n, 3) uint8 RGB.
        labels: (n,) int64 in [0, classes).
        classes: C.
        penalty: weight of the squared weights beside the mean cross-entropy.
    """
    model = ColourModel(classes)
    terms = colour_terms(colours)
    model.mean.copy_(terms.mean(0))
    model.deviation.copy_(terms.std(0).clamp_min(1e-6))
    optimiser = torch.optim.LBFGS(model.parameters(), max_iter=60, history_size=10, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = F.cross_entropy(model._logits(terms), labels) + penalty * model.weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    return model.eval()
