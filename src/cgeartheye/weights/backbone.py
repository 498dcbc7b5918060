"""What every frozen backbone looks like to probes, heads and maps, whoever made it.

B batch, D width, H W pixels, h w patches.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from safetensors.torch import save
from torch import Tensor, nn

from cgeartheye.models.sizes import build
from cgeartheye.models.vit import Features, Norm, VisionTransformer


class Backbone(nn.Module, ABC):
    """A network that turns RGB images of any size into a class token and patch tokens.

    Normalisation and padding to the patch happen inside, so that nobody can forget them.
    """

    def __init__(self, *, name: str, fingerprint: str, licence: str, card: Mapping[str, Any]) -> None:
        super().__init__()
        self.name = name
        """Where the weights come from, as results quote it."""
        self.fingerprint = fingerprint
        """SHA-256 of the weights, hexadecimal."""
        self.licence = licence
        """Licence of the weights, "unknown" if nobody says."""
        self.card = dict(card)
        """Provenance: data, recipe, parent, metrics."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Width D of a token."""

    @property
    @abstractmethod
    def patch_px(self) -> int:
        """Side of a patch in pixels."""

    @property
    @abstractmethod
    def depth(self) -> int:
        """Number of blocks."""

    @abstractmethod
    def forward(self, images: Tensor) -> Features:
        """Return the tokens after the final norm of (B, 3, H, W) RGB images, uint8 or float in [0, 1]."""

    @abstractmethod
    def levels(self, images: Tensor, layers: Sequence[int], norm: Norm = "last") -> list[Features]:
        """Return the tokens after each of the blocks ``layers`` (from 0; negative from the end).

        Args:
            images: (B, 3, H, W) RGB, uint8 or float in [0, 1].
            layers: block numbers.
            norm: which levels the final norm is applied to.

        Raises:
            ShapeError: if a layer does not exist or a shape does not fit.
        """

    def level_widths(self, layers: Sequence[int]) -> list[int]:
        """Return the width of the tokens that :meth:`levels` gives for each of ``layers``."""
        return [self.width] * len(layers)

    @abstractmethod
    def untrained(self, seed: int) -> Backbone:
        """Return the same network with its initial weights, drawn from ``seed``."""

    def layer_scales(self) -> list[nn.Parameter]:
        """Return the LayerScale factors, one (D,) parameter a residual branch; none if the network has no LayerScale."""
        return [p for name, p in self.named_parameters() if name.endswith((".gamma", ".lambda1"))]


class OwnBackbone(Backbone):
    """A backbone of this package."""

    def __init__(self, model: VisionTransformer, *, name: str, fingerprint: str, licence: str, card: Mapping[str, Any]) -> None:
        super().__init__(name=name, fingerprint=fingerprint, licence=licence, card=card)
        self.model = model

    @property
    def width(self) -> int:
        """Width D of a token."""
        return self.model.config.width

    @property
    def patch_px(self) -> int:
        """Side of a patch in pixels."""
        return self.model.config.patch_px

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return self.model.config.depth

    def forward(self, images: Tensor) -> Features:
        """Return the tokens after the final norm of (B, 3, H, W) RGB images, uint8 or float in [0, 1]."""
        features: Features = self.model(images)
        return features

    def levels(self, images: Tensor, layers: Sequence[int], norm: Norm = "last") -> list[Features]:
        """Return the tokens after each of the blocks ``layers``, of (B, 3, H, W) images; see :meth:`Backbone.levels`."""
        return self.model.levels(images, layers, norm)

    def untrained(self, seed: int) -> OwnBackbone:
        """Return the same network with its initial weights, drawn from ``seed``; equal to what training with it began from."""
        model = build(self.model.config, seed=seed)
        name, card = f"{self.model.config.name}, untrained", {"init_seed": seed}
        return OwnBackbone(model, name=name, fingerprint=state_fingerprint(model), licence="none needed", card=card).eval()


def state_fingerprint(model: nn.Module) -> str:
    """Return the SHA-256 of all weights of a network as a safetensors file would hold them, hexadecimal."""
    return hashlib.sha256(serialise(model)).hexdigest()


def serialise(model: nn.Module) -> bytes:
    """Return the weights of a network as the bytes of a safetensors file; equal weights give equal bytes."""
    return save({key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}, {"format": "pt"})
