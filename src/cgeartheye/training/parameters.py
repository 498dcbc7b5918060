"""Parameter groups of AdamW: who decays, and how fast each layer learns."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from torch import nn

_NO_DECAY: Final = re.compile(
    r"(^|\.)(norm\d*|ls\d+|cls_token|pos_embed|mask_token|register_tokens|prototypes|gains)(\.|$)|(^|\.)bias$"
)
_BLOCK: Final = re.compile(r"(^|\.)blocks\.(\d+)\.")
_BEFORE_BLOCKS: Final = re.compile(r"(^|\.)(patch_embed\.|cls_token$|pos_embed$|mask_token$|register_tokens$)")


def decays(name: str) -> bool:
    """Whether weight decay applies: matrices only; not norms, biases, LayerScale, tokens, positions or prototypes.

    Prototypes are normalised: decay would only change their speed.
    """
    return _NO_DECAY.search(name) is None


def layer_of(name: str, depth: int) -> int:
    """Return the layer for layer-wise decay: 0 embeddings, 1 .. depth the blocks, depth + 1 all that follows."""
    if _BEFORE_BLOCKS.search(name):
        return 0
    block = _BLOCK.search(name)
    return int(block.group(2)) + 1 if block else depth + 1


def parameter_groups(named: Iterable[tuple[str, nn.Parameter]], *, depth: int, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Sort parameters into groups of equal treatment.

    Args:
        named: names (as in the ViT and the projection head) and parameters.
        depth: blocks of the backbone.
        layer_decay: factor on the learning rate for each layer further down.

    Returns:
        groups for AdamW, in a fixed order, each with ``params``, ``names``, ``lr_scale`` (float), ``decays`` (bool) and
        ``backbone`` (bool, True for what is below ``backbone.``). Prototypes have one of their own: they may stand still.
    """
    groups: dict[tuple[int, bool, bool, bool], dict[str, Any]] = {}
    for name, parameter in named:
        backbone, prototypes = name.startswith("backbone."), name.endswith(("prototypes", "gains"))
        key = (layer_of(name, depth), decays(name), backbone, prototypes)
        group = groups.setdefault(
            key,
            {
                "params": [],
                "names": [],
                "lr_scale": layer_decay ** (depth + 1 - key[0]),
                "decays": key[1],
                "backbone": backbone,
            },
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return [groups[key] for key in sorted(groups)]
