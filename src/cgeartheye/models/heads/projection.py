"""The projection of self-distillation: an MLP to unit vectors, and the prototypes they are compared with.

R rows (class tokens or patches), D width, d bottleneck, K prototypes.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cgeartheye.losses.unit import unit
from cgeartheye.seeding import derive


class ProjectionHead(nn.Module):
    """MLP with GELU and L2 norm, prototypes without bias.

    The prototype layer is a plain matrix whose rows are normalised when used, so no weight norm has to be undone on export
    (DINOv3's choice of a plain layer; the norm keeps scores in [-1, 1], where a temperature of 0.04 cannot overflow).

    Args:
        width: D.
        hidden: hidden width of the MLP.
        bottleneck: d, width of the unit vectors.
        prototypes: K.
        layers: linear layers of the MLP.
        normalise: ``unit`` prototypes, or ``weight``: unit directions with a learned length each, 1 at first [dinov2].
    """

    def __init__(
        self,
        width: int,
        *,
        hidden: int,
        bottleneck: int,
        prototypes: int,
        layers: int = 3,
        normalise: Literal["unit", "weight"] = "unit",
    ) -> None:
        super().__init__()
        widths = [width, *[hidden] * (layers - 1), bottleneck]
        self.mlp = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.prototypes = nn.Parameter(torch.empty(prototypes, bottleneck))
        self.gains = nn.Parameter(torch.ones(prototypes)) if normalise == "weight" else None

    def forward(self, tokens: Tensor, *, still: bool = False) -> tuple[Tensor, Tensor]:
        """Return (R, d) unit vectors of (R, D) float tokens, and the (K, d) prototypes to compare them with.

        Args:
            tokens: class tokens or patches.
            still: whether the prototypes get no gradient.
        """
        rows = self.mlp[0](tokens)
        for layer in self.mlp[1:]:
            rows = layer(F.gelu(rows))
        prototypes = unit(self.prototypes)
        if self.gains is not None:
            prototypes = prototypes * self.gains[:, None]
        return unit(rows, least=1e-6), prototypes.detach() if still else prototypes


@torch.no_grad()
def initialise_head(head: ProjectionHead, *, seed: int, name: str) -> None:
    """Set weights to truncated normal numbers of deviation 0.02 [dinov2], biases to 0, gains to 1, each from its own stream."""
    for key, parameter in head.named_parameters():
        if key.endswith("bias"):
            parameter.zero_()
            continue
        if key == "gains":
            parameter.fill_(1.0)
            continue
        generator = torch.Generator().manual_seed(derive(seed, f"initial head {name}", key))
        nn.init.trunc_normal_(parameter, std=0.02, a=-0.04, b=0.04, generator=generator)
