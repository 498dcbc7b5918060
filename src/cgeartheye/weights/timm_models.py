"""Plain vision transformers of the timm library as frozen backbones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from cgeartheye.errors import InputError, ResourceError, ShapeError
from cgeartheye.models.vit import Features, Norm
from cgeartheye.weights.backbone import Backbone, state_fingerprint


class TimmBackbone(Backbone):
    """A timm ViT with patch tokens and at least one prefix token."""

    mean: Tensor
    std: Tensor

    model: Any

    def __init__(self, model: Any, *, name: str, fingerprint: str, licence: str) -> None:  # noqa: ANN401 - timm is untyped
        super().__init__(name=name, fingerprint=fingerprint, licence=licence, card={"source": "timm"})
        self.model = model
        settings: Any = model.pretrained_cfg
        self.register_buffer("mean", torch.tensor(settings["mean"]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(settings["std"]).view(3, 1, 1), persistent=False)

    @property
    def width(self) -> int:
        """Width D of a token."""
        return int(self.model.embed_dim)

    @property
    def patch_px(self) -> int:
        """Side of a patch in pixels."""
        return int(self.model.patch_embed.patch_size[0])

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.model.blocks)

    def forward(self, images: Tensor) -> Features:
        """Return the tokens after the final norm of (B, 3, H, W) RGB images, uint8 or float in [0, 1]."""
        pixels = prepare(images, self.mean, self.std, patch_px=self.patch_px)
        h, w = pixels.shape[2] // self.patch_px, pixels.shape[3] // self.patch_px
        tokens = self.model.forward_features(pixels)  # (B, prefix + N, D)
        first = self.model.num_prefix_tokens
        return Features(tokens[:, 0], tokens[:, first:].reshape(len(tokens), h, w, -1))

    def levels(self, images: Tensor, layers: Sequence[int], norm: Norm = "last") -> list[Tensor]:
        """Return the patch tokens (B, h, w, D) after each of the blocks ``layers``; see :meth:`Backbone.levels`."""
        if not all(-self.depth <= layer < self.depth for layer in layers):
            raise ShapeError(f"layers {list(layers)} are not all among the {self.depth} blocks")
        wanted = [layer % self.depth for layer in layers]
        pixels = prepare(images, self.mean, self.std, patch_px=self.patch_px)
        unique = sorted(set(wanted))
        maps = self.model.forward_intermediates(pixels, indices=unique, intermediates_only=True)  # each (B, D, h, w)
        found = {layer: level.permute(0, 2, 3, 1) for layer, level in zip(unique, maps, strict=True)}
        return [
            self.model.norm(found[layer]) if norm == "all" or (norm == "last" and layer == self.depth - 1) else found[layer]
            for layer in wanted
        ]

    def untrained(self, seed: int) -> TimmBackbone:
        """Return the same network with timm's initial weights, drawn from ``seed``."""
        plain = self.name.removeprefix("timm:").removesuffix("?random")
        model = _create(plain, seed=seed)
        fingerprint = state_fingerprint(model)
        return TimmBackbone(model, name=f"{plain}, untrained", fingerprint=fingerprint, licence="none needed").eval()


def prepare(images: Tensor, mean: Tensor, std: Tensor, *, patch_px: int) -> Tensor:
    """Normalise and pad a batch for a foreign network.

    Args:
        images: (B, 3, H, W) RGB, uint8 or float in [0, 1].
        mean: (3, 1, 1) float.
        std: (3, 1, 1) float.
        patch_px: H and W are padded at the right and bottom, by repeating the edge, to a multiple of it.

    Returns:
        (B, 3, H', W') float in the type of ``mean``.

    Raises:
        ShapeError: if the shape is another.
    """
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise ShapeError(f"images are (B, 3, H, W) and not empty, got {tuple(images.shape)}")
    scaled = images.to(mean.dtype) if images.is_floating_point() else images.to(mean.dtype) / 255
    bottom, right = -images.shape[2] % patch_px, -images.shape[3] % patch_px
    pixels = (scaled - mean) / std
    return F.pad(pixels, (0, right, 0, bottom), mode="replicate") if bottom or right else pixels


def load_timm(name: str) -> TimmBackbone:
    """Load ``NAME`` or, untrained from a fixed seed, ``NAME?random``.

    Raises:
        InputError: if timm does not know the name, or the model is no plain ViT with a class token.
        ResourceError: if the weights cannot be downloaded.
    """
    plain, _, option = name.partition("?")
    if option not in {"", "random"}:
        raise InputError(f"unknown option {option!r}", where=f"timm:{name}", remedy="the only one is ?random (untrained weights)")
    if not timm.is_model(plain):
        raise InputError(f"timm {timm.__version__} has no such model", where=f"timm:{name}", remedy=_similar(plain))
    model = _create(plain, seed=0 if option == "random" else None)
    if not (getattr(model, "has_class_token", False) and hasattr(model, "forward_intermediates") and hasattr(model, "blocks")):
        raise InputError(
            "is no plain vision transformer with a class token",
            where=f"timm:{name}",
            remedy="for example vit_small_patch14_dinov2",
        )
    licence = model.pretrained_cfg.get("license") or "unknown"
    return TimmBackbone(model, name=f"timm:{name}", fingerprint=state_fingerprint(model), licence=licence).eval()


def _create(name: str, *, seed: int | None) -> Any:  # noqa: ANN401 - timm is untyped
    """Create the network with downloaded or cached weights, or untrained from ``seed``."""
    options = {"num_classes": 0, "dynamic_img_size": True}
    try:
        if seed is None:
            return timm.create_model(name, pretrained=True, **options)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # timm draws from the global stream; it is put back afterwards
            return timm.create_model(name, pretrained=False, **options)
    except TypeError as error:  # convolutional models have no dynamic_img_size
        raise InputError("is no plain vision transformer", where=f"timm:{name}") from error
    except Exception as error:
        if seed is not None:
            raise
        raise ResourceError(  # the hub client raises its own and its HTTP library's errors
            f"the weights could not be fetched ({type(error).__name__}: {error})",
            where=f"timm:{name}",
            remedy="offline, put them into the Hugging Face cache beforehand (HF_HOME), or give a local folder as hf:PATH",
        ) from error


def _similar(name: str) -> str:
    known = timm.list_models(f"*{name.partition('.')[0]}*")[:5] or timm.list_models("*dinov2*")[:5]
    return "for example " + ", ".join(known)
