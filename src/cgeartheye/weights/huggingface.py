"""Networks in a local Hugging Face folder (``config.json``, ``model.safetensors``) as frozen backbones, run by transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from transformers import AutoModel

from cgeartheye.errors import DataError, InputError
from cgeartheye.files import read_json, sha256_file
from cgeartheye.models.vit import IMAGENET_MEAN, IMAGENET_STD, Features, Norm, block_numbers
from cgeartheye.weights.backbone import Backbone, state_fingerprint
from cgeartheye.weights.grids import STAGE_GRID_PX, on_stage_grid, prepare

_WEIGHTS: Final = "model.safetensors"
_TOKENS: Final = frozenset({"dinov2", "dinov2_with_registers", "dinov3_vit", "vit"})
_PYRAMIDS: Final = frozenset({"swin", "swinv2", "convnext", "convnextv2", "dinov3_convnext"})
_ASKED_FOR_SIZES: Final = frozenset({"vit", "swin", "swinv2"})
"""Networks that take other sizes than their own only when asked to."""
_STRIDE_PX: Final = 32
"""Of the last stage of every hierarchical network here."""


class HuggingFaceBackbone(Backbone):
    """What all networks of transformers share."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: Any, folder: Path, *, name: str, fingerprint: str) -> None:  # noqa: ANN401 - untyped library
        card = {"source": "huggingface", "model_type": model.config.model_type}
        super().__init__(name=name, fingerprint=fingerprint, licence="unknown", card=card)
        self.model = model
        self._config: Any = model.config
        self._folder = folder
        self._options = {"interpolate_pos_encoding": True} if model.config.model_type in _ASKED_FOR_SIZES else {}
        settings = read_json(folder / "preprocessor_config.json") if (folder / "preprocessor_config.json").is_file() else {}
        mean, std = settings.get("image_mean", IMAGENET_MEAN), settings.get("image_std", IMAGENET_STD)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def untrained(self, seed: int) -> HuggingFaceBackbone:
        """Return the same network with transformers' initial weights, drawn from ``seed``."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # transformers draws from the global stream; it is put back afterwards
            model = AutoModel.from_config(self._config)
        name = f"{self._config.model_type}, untrained"
        return type(self)(model, self._folder, name=name, fingerprint=state_fingerprint(model)).eval()


class HuggingFaceVit(HuggingFaceBackbone):
    """A network whose last hidden state is a class token, register tokens if any, then the patches row by row."""

    @property
    def width(self) -> int:
        """Width D of a token."""
        return int(self._config.hidden_size)

    @property
    def patch_px(self) -> int:
        """Side of a patch in pixels."""
        return int(self._config.patch_size)

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return int(self._config.num_hidden_layers)

    def forward(self, images: Tensor) -> Features:
        """Return the tokens after the final norm of (B, 3, H, W) RGB images, uint8 or float in [0, 1]."""
        pixels = prepare(images, self.mean, self.std, patch_px=self.patch_px)
        return self._features(self.model(pixels, **self._options).last_hidden_state, pixels)

    def levels(self, images: Tensor, layers: Sequence[int], norm: Norm = "last") -> list[Features]:
        """Return the tokens after each of the blocks ``layers``, of (B, 3, H, W) images; see :meth:`Backbone.levels`."""
        wanted = block_numbers(layers, self.depth)
        pixels = prepare(images, self.mean, self.std, patch_px=self.patch_px)
        states = self.model(pixels, output_hidden_states=True, **self._options).hidden_states  # depth + 1 of (B, prefix + N, D)
        final: Any = self.model.norm if hasattr(self.model, "norm") else self.model.layernorm
        found = []
        for layer in wanted:
            normed = norm == "all" or (norm == "last" and layer == self.depth - 1)
            found.append(self._features(final(states[layer + 1]) if normed else states[layer + 1], pixels))
        return found

    def _features(self, tokens: Tensor, pixels: Tensor) -> Features:
        h, w = pixels.shape[2] // self.patch_px, pixels.shape[3] // self.patch_px
        return Features(tokens[:, 0], tokens[:, -h * w :].reshape(len(tokens), h, w, -1))


class HuggingFacePyramid(HuggingFaceBackbone):
    """A hierarchical network. Its levels are its stages on a grid of 16 px; what it pools is the class token.

    No norm fits all stages, so levels are as the stages leave them, whatever ``norm`` says.
    """

    @property
    def width(self) -> int:
        """Width D of the last stage."""
        return self.level_widths([-1])[0]

    @property
    def patch_px(self) -> int:
        """Side of a patch of :meth:`levels` in pixels."""
        return STAGE_GRID_PX

    @property
    def depth(self) -> int:
        """Number of stages."""
        return len(self._config.depths)

    def level_widths(self, layers: Sequence[int]) -> list[int]:
        """Return the width of each of the stages ``layers``; Swin's include the merging of patches after the stage."""
        if hasattr(self._config, "hidden_sizes"):
            widths = [int(width) for width in self._config.hidden_sizes]
        else:
            widths = [int(self._config.embed_dim) * 2 ** min(n + 1, self.depth - 1) for n in range(self.depth)]
        return [widths[n] for n in block_numbers(layers, self.depth)]

    def forward(self, images: Tensor) -> Features:
        """Return pooled features and the last map, at its own stride, of (B, 3, H, W) RGB images, uint8 or float in [0, 1]."""
        pixels = self._pixels(images)
        output = self.model(pixels, **self._options)
        last, h, w = output.last_hidden_state, pixels.shape[2] // _STRIDE_PX, pixels.shape[3] // _STRIDE_PX
        if last.ndim == 4:  # (B, C, h, w)
            return Features(output.pooler_output, last.permute(0, 2, 3, 1))
        return Features(output.pooler_output, last[:, -h * w :].reshape(len(last), h, w, -1))

    def levels(self, images: Tensor, layers: Sequence[int], norm: Norm = "last") -> list[Features]:
        """Return the maps after each of the stages ``layers``, of (B, 3, H, W) images, and their means as class tokens."""
        del norm
        pixels = self._pixels(images)
        output = self.model(pixels, output_hidden_states=True, **self._options)
        stages = (getattr(output, "reshaped_hidden_states", None) or output.hidden_states)[1:]  # each (B, C, h', w')
        padded, size = (pixels.shape[2], pixels.shape[3]), (images.shape[2], images.shape[3])
        maps = [on_stage_grid(stages[n], padded=padded, size=size) for n in block_numbers(layers, self.depth)]
        return [Features(level.mean((1, 2)), level) for level in maps]

    def _pixels(self, images: Tensor) -> Tensor:
        return prepare(images, self.mean, self.std, patch_px=_STRIDE_PX)


class HuggingFaceSwin(HuggingFacePyramid):
    """The first Swin, which transformers shrinks to the smallest picture it has met.

    A map no larger than a window makes its blocks forget window and shift for good, so that features of later pictures would
    depend on earlier ones; a smaller map does not fit the learned biases at all.
    """

    def _pixels(self, images: Tensor) -> Tensor:
        pixels, window = super()._pixels(images), int(self._config.window_size)
        if min(pixels.shape[2:]) < window * _STRIDE_PX:
            height, width = images.shape[2:]
            least = (window - 1) * _STRIDE_PX + 1
            raise InputError(
                f"cannot read pictures of {height} x {width} px: its last map would be smaller than a window",
                where=str(self._folder),
                remedy=f"make both sides at least {least} px (size_px of a data set, window_px of a task)",
            )
        for stage in self.model.encoder.layers:
            for number, block in enumerate(stage.blocks):
                block.window_size, block.shift_size = window, window // 2 * (number % 2)
        return pixels


def load_huggingface(folder: Path) -> HuggingFaceBackbone:
    """Load a network from a local folder; nothing is downloaded and no code of the folder is run.

    Raises:
        InputError: if the folder holds no safetensors model, or another kind of network.
        DataError: if its files are damaged.
    """
    if not (folder / "config.json").is_file() or not (folder / _WEIGHTS).is_file():
        pickled = (folder / "pytorch_model.bin").is_file()
        raise InputError(
            "holds only a pickle, which can run code when opened" if pickled else f"has no config.json and {_WEIGHTS}",
            where=str(folder),
            remedy="save it again with save_pretrained(folder)",
        )
    kind = read_json(folder / "config.json").get("model_type")
    if kind not in _TOKENS | _PYRAMIDS:
        raise InputError(
            f"is a {kind!r} model", where=str(folder), remedy=f"understood are {', '.join(sorted(_TOKENS | _PYRAMIDS))}"
        )
    try:
        model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True, trust_remote_code=False)
    except Exception as error:  # transformers lets through whatever its readers raise
        raise DataError(f"cannot be loaded ({type(error).__name__}: {error})", where=str(folder)) from error
    made = HuggingFaceVit if kind in _TOKENS else HuggingFaceSwin if kind == "swin" else HuggingFacePyramid
    return made(model, folder, name=f"hf:{folder.name}", fingerprint=sha256_file(folder / _WEIGHTS)).eval()
