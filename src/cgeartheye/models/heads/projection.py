"""The projection of self-distillation: an MLP to unit vectors, scored against unit prototypes.

R rows (class tokens or patches), D width, K prototypes.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cgeartheye.seeding import derive


class ProjectionHead(nn.Module):
    """MLP with GELU, L2 norm, prototypes of unit length without bias.

    The prototype layer is a plain matrix whose rows are normalised when used, so no weight norm has to be undone on export
    (DINOv3's choice of a plain layer; the norm keeps scores in [-1, 1], where a temperature of 0.04 cannot overflow).

    Args:
        width: D.
        hidden: hidden width of the MLP.
        bottleneck: width of the unit vectors.
        prototypes: K.
        layers: linear layers of the MLP.
    """

    def __init__(self, width: int, *, hidden: int, bottleneck: int, prototypes: int, layers: int = 3) -> None:
        super().__init__()
        widths = [width, *[hidden] * (layers - 1), bottleneck]
        self.mlp = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.prototypes = nn.Parameter(torch.empty(prototypes, bottleneck))

    def forward(self, tokens: Tensor) -> Tensor:
        """Score (R, D) float tokens; returns (R, K), each in [-1, 1]."""
        return F.linear(self.project(tokens), F.normalize(self.prototypes, dim=-1))

    def project(self, tokens: Tensor) -> Tensor:
        """Map (R, D) float tokens to (R, bottleneck) unit vectors."""
        rows = self.mlp[0](tokens)
        for layer in self.mlp[1:]:
            rows = layer(F.gelu(rows))
        return F.normalize(rows, dim=-1, eps=1e-6)


@torch.no_grad()
def initialise_head(head: ProjectionHead, *, seed: int, name: str) -> None:
    """Set weights to truncated normal numbers of deviation 0.02 and biases to 0 [dinov2], each from its own stream."""
    for key, parameter in head.named_parameters():
        if key.endswith("bias"):
            parameter.zero_()
            continue
        generator = torch.Generator().manual_seed(derive(seed, f"initial head {name}", key))
        nn.init.trunc_normal_(parameter, std=0.02, a=-0.04, b=0.04, generator=generator)
