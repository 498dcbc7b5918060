"""The same network without its training: the baseline that says what training added."""

from __future__ import annotations

import torch

from cgeartheye.weights.backbone import Backbone


@torch.no_grad()
def untrained_twin(backbone: Backbone) -> Backbone:
    """Return a network of the same shape with the weights that its training began with, LayerScale apart.

    LayerScale is 1 whatever the recipe: at 1e-5 an untrained network is little more than its patch embedding, which would
    flatter the trained one.
    """
    twin = backbone.untrained(int(backbone.card.get("init_seed", 0)))
    for factor in twin.layer_scales():
        factor.fill_(1.0)
    return twin
