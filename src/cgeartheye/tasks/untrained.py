"""The same network without its training: the baseline that says what training added."""

from __future__ import annotations

from dataclasses import replace

from cgeartheye.errors import InputError
from cgeartheye.models.sizes import build
from cgeartheye.weights.backbone import Backbone, OwnBackbone
from cgeartheye.weights.load import load_backbone


def untrained_backbone(spec: str, backbone: Backbone) -> Backbone:
    """Return a backbone of the same shape with the weights it began with.

    LayerScale starts at 1 whatever the recipe: at 1e-5 an untrained network is little more than its patch embedding, which
    would flatter the trained one.

    Args:
        spec: how the trained one was named.
        backbone: the trained one.

    Raises:
        InputError: if nobody knows how that network began (``hf:``).
    """
    if isinstance(backbone, OwnBackbone):
        config = replace(backbone.model.config, layer_scale=1.0)
        model = build(config, seed=int(backbone.card.get("init_seed", 0))).eval()
        return OwnBackbone(model, name=f"{backbone.name}, untrained", fingerprint="untrained", licence="none", card={})
    if spec.startswith("timm:"):
        return load_backbone(f"{spec}?random")
    raise InputError("its untrained state is not known", where=spec, remedy="set `baselines: false`")
