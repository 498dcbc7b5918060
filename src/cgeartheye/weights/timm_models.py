"""Networks of timm as frozen backbones: plain transformers (DINOv2, DINOv3, ...), hierarchical ones (Swin, ConvNeXt, ...)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Final

import timm
import torch
from torch import Tensor

from cgeartheye.errors import InputError, ResourceError
from cgeartheye.models.vit import Features, Norm, block_numbers
from cgeartheye.weights.backbone import Backbone, state_fingerprint
from cgeartheye.weights.grids import STAGE_GRID_PX, on_stage_grid, prepare

_OPTIONS: Final[tuple[dict[str, Any], ...]] = ({"dynamic_img_size": True}, {})
"""Constructor options that let a network take any size, tried in order."""


class TimmBackbone(Backbone):
    """What all networks of timm share: how they are made, normalised and made again."""

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
        return int(self.model.num_features)

    def untrained(self, seed: int) -> TimmBackbone:
        """Return the same network with timm's initial weights, drawn from ``seed``."""
        plain = self.name.removeprefix("timm:").removesuffix("?random")
        model = _create(plain, seed=seed)
        return type(self)(model, name=f"{plain}, untrained", fingerprint=state_fingerprint(model), licence="none needed").eval()

    @abstractmethod
    def levels(self, images: Tensor, layers: Sequence[int], norm: Norm = "last") -> list[Features]:
        """Return the tokens of chosen levels of (B, 3, H, W) images; see :meth:`Backbone.levels`."""


class TimmVit(TimmBackbone):
    """A plain vision transformer of timm. Without a class token, what its head pools from the patches stands for one."""

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
        one = tokens[:, 0] if self._has_class_token else self.model.forward_head(tokens, pre_logits=True)
        return Features(one, tokens[:, first:].reshape(len(tokens), h, w, -1))

    def levels(self, images: Tensor, layers: Sequence[int], norm: Norm = "last") -> list[Features]:
        """Return the tokens after each of the blocks ``layers``, of (B, 3, H, W) images; see :meth:`Backbone.levels`."""
        wanted = block_numbers(layers, self.depth)
        pixels = prepare(images, self.mean, self.std, patch_px=self.patch_px)
        unique = sorted(set(wanted))
        found = self.model.forward_intermediates(pixels, indices=unique, return_prefix_tokens=True, intermediates_only=True)
        at = {layer: self._features(level) for layer, level in zip(unique, found, strict=True)}
        last = self.depth - 1
        return [self._normed(at[n]) if norm == "all" or (norm == "last" and n == last) else at[n] for n in wanted]

    @property
    def _has_class_token(self) -> bool:
        return bool(getattr(self.model, "cls_token", None) is not None)

    def _features(self, level: Any) -> Features:  # noqa: ANN401 - a map (B, D, h, w), with prefix tokens (B, P, D) if there are any
        patches, prefix = level if isinstance(level, tuple) else (level, None)
        patches = patches.permute(0, 2, 3, 1)
        return Features(prefix[:, 0] if self._has_class_token and prefix is not None else patches.mean((1, 2)), patches)

    def _normed(self, features: Features) -> Features:
        return Features(self.model.norm(features.class_token), self.model.norm(features.patches))


class TimmPyramid(TimmBackbone):
    """A hierarchical network of timm. Its levels are its stages on a grid of 16 px; what its head pools is the class token.

    No norm fits all stages, so levels are as the stages leave them, whatever ``norm`` says.
    """

    @property
    def patch_px(self) -> int:
        """Side of a patch of :meth:`levels` in pixels."""
        return STAGE_GRID_PX

    @property
    def depth(self) -> int:
        """Number of stages."""
        return len(self.model.feature_info)

    def level_widths(self, layers: Sequence[int]) -> list[int]:
        """Return the width of each of the stages ``layers``."""
        return [int(self.model.feature_info[n]["num_chs"]) for n in block_numbers(layers, self.depth)]

    def forward(self, images: Tensor) -> Features:
        """Return pooled features and the last map, at its own stride, of (B, 3, H, W) RGB images, uint8 or float in [0, 1]."""
        last = self.model.forward_features(self._pixels(images))
        pooled = self.model.forward_head(last, pre_logits=True)
        channels_last = getattr(self.model, "output_fmt", "NCHW") == "NHWC"
        return Features(pooled, last if channels_last else last.permute(0, 2, 3, 1))

    def levels(self, images: Tensor, layers: Sequence[int], norm: Norm = "last") -> list[Features]:
        """Return the maps after each of the stages ``layers``, of (B, 3, H, W) images, and their means as class tokens."""
        del norm
        wanted, pixels = block_numbers(layers, self.depth), self._pixels(images)
        unique = sorted(set(wanted))
        maps = self.model.forward_intermediates(pixels, indices=unique, intermediates_only=True)  # each (B, C, h', w')
        padded, size = (pixels.shape[2], pixels.shape[3]), (images.shape[2], images.shape[3])
        at = {n: on_stage_grid(stage, padded=padded, size=size) for n, stage in zip(unique, maps, strict=True)}
        return [Features(at[n].mean((1, 2)), at[n]) for n in wanted]

    def _pixels(self, images: Tensor) -> Tensor:
        return prepare(images, self.mean, self.std, patch_px=int(self.model.feature_info[-1]["reduction"]))


def load_timm(name: str) -> TimmBackbone:
    """Load ``NAME`` or, untrained from a fixed seed, ``NAME?random``.

    Raises:
        InputError: if timm does not know the name, or the network gives no maps for pictures of any size.
        ResourceError: if the weights cannot be downloaded.
    """
    plain, _, option = name.partition("?")
    if option not in {"", "random"}:
        raise InputError(f"unknown option {option!r}", where=f"timm:{name}", remedy="the only one is ?random (untrained weights)")
    if not timm.is_model(plain) and not plain.startswith("local-dir:"):
        raise InputError(f"timm {timm.__version__} has no such model", where=f"timm:{name}", remedy=_similar(plain))
    model = _create(plain, seed=0 if option == "random" else None)
    licence = model.pretrained_cfg.get("license") or "unknown"
    kind = TimmVit if hasattr(model, "num_prefix_tokens") and hasattr(model, "blocks") else TimmPyramid
    backbone = kind(model, name=f"timm:{name}", fingerprint=state_fingerprint(model), licence=licence).eval()
    _try(backbone, name)
    return backbone


@torch.inference_mode()
def _try(backbone: TimmBackbone, name: str) -> None:
    """Refuse at once what would fail in the middle of a run."""
    picture = torch.zeros(1, 3, 4 * backbone.patch_px, 6 * backbone.patch_px, dtype=torch.uint8)
    try:
        backbone(picture)
        backbone.levels(picture, [-1])
    except Exception as error:
        raise InputError(  # networks raise whatever their layers do
            f"gives no maps for pictures of any size ({type(error).__name__}: {error})",
            where=f"timm:{name}",
            remedy="for example vit_small_patch14_dinov2, vit_small_patch16_dinov3, swin_tiny_patch4_window7_224, convnext_tiny",
        ) from error


def _create(name: str, *, seed: int | None) -> Any:  # noqa: ANN401 - timm is untyped
    """Create the network with downloaded or cached weights, or untrained from ``seed``."""
    for options in _OPTIONS:
        try:
            if seed is None:
                return timm.create_model(name, pretrained=True, num_classes=0, **options)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)  # timm draws from the global stream; it is put back afterwards
                return timm.create_model(name, pretrained=False, num_classes=0, **options)
        except TypeError:  # this network has no such option
            continue
        except Exception as error:
            if seed is not None:
                raise
            raise ResourceError(  # the hub client raises its own and its HTTP library's errors
                f"the weights could not be fetched ({type(error).__name__}: {error})",
                where=f"timm:{name}",
                remedy="offline, put them into the Hugging Face cache beforehand (HF_HOME), or give a local folder as hf:PATH",
            ) from error
    raise InputError("cannot be made without a classifier", where=f"timm:{name}")


def _similar(name: str) -> str:
    known = timm.list_models(f"*{name.partition('.')[0]}*")[:5] or timm.list_models("*dinov2*")[:5]
    return "for example " + ", ".join(known)
