"""Vision transformers in a local Hugging Face folder (``config.json``, ``model.safetensors``) as frozen backbones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from transformers import AutoModel

from cgeartheye.errors import DataError, InputError, ShapeError
from cgeartheye.files import read_json, sha256_file
from cgeartheye.models.vit import IMAGENET_MEAN, IMAGENET_STD, Features, Norm
from cgeartheye.weights.backbone import Backbone, state_fingerprint
from cgeartheye.weights.timm_models import prepare

_WEIGHTS: Final = "model.safetensors"


class HuggingFaceBackbone(Backbone):
    """A transformers model whose last hidden state is a class token, register tokens if any, then the patches row by row."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: Any, folder: Path, *, name: str, fingerprint: str) -> None:  # noqa: ANN401 - untyped library
        card = {"source": "huggingface", "model_type": model.config.model_type}
        super().__init__(name=name, fingerprint=fingerprint, licence="unknown", card=card)
        self.model = model
        self._config: Any = model.config
        self._folder = folder
        settings = read_json(folder / "preprocessor_config.json") if (folder / "preprocessor_config.json").is_file() else {}
        mean, std = settings.get("image_mean", IMAGENET_MEAN), settings.get("image_std", IMAGENET_STD)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

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
        tokens = self.model(pixels).last_hidden_state  # (B, prefix + N, D)
        return Features(tokens[:, 0], self._grid(tokens, pixels))

    def levels(self, images: Tensor, layers: Sequence[int], norm: Norm = "last") -> list[Tensor]:
        """Return the patch tokens (B, h, w, D) after each of the blocks ``layers``; see :meth:`Backbone.levels`."""
        if not all(-self.depth <= layer < self.depth for layer in layers):
            raise ShapeError(f"layers {list(layers)} are not all among the {self.depth} blocks")
        pixels = prepare(images, self.mean, self.std, patch_px=self.patch_px)
        states = self.model(pixels, output_hidden_states=True).hidden_states  # depth + 1 of (B, prefix + N, D)
        final: Any = self.model.layernorm
        maps = []
        for layer in (layer % self.depth for layer in layers):
            normed = norm == "all" or (norm == "last" and layer == self.depth - 1)
            maps.append(self._grid(final(states[layer + 1]) if normed else states[layer + 1], pixels))
        return maps

    def untrained(self, seed: int) -> HuggingFaceBackbone:
        """Return the same network with transformers' initial weights, drawn from ``seed``."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # transformers draws from the global stream; it is put back afterwards
            model = AutoModel.from_config(self._config)
        name = f"{self._config.model_type}, untrained"
        return HuggingFaceBackbone(model, self._folder, name=name, fingerprint=state_fingerprint(model)).eval()

    def _grid(self, tokens: Tensor, pixels: Tensor) -> Tensor:
        h, w = pixels.shape[2] // self.patch_px, pixels.shape[3] // self.patch_px
        return tokens[:, -h * w :].reshape(len(tokens), h, w, -1)


def load_huggingface(folder: Path) -> HuggingFaceBackbone:
    """Load a model of the DINOv2 family (with or without registers) from a local folder; nothing is downloaded.

    Raises:
        InputError: if the folder holds no safetensors model, or another kind of network.
        DataError: if its files are damaged.
    """
    if not (folder / "config.json").is_file() or not (folder / _WEIGHTS).is_file():
        pickled = (folder / "pytorch_model.bin").is_file()
        raise InputError(
            "holds only a pickle, which can run code when opened" if pickled else f"has no config.json and {_WEIGHTS}",
            where=str(folder),
            remedy="save it again with save_pretrained(folder, safe_serialization=True)",
        )
    try:
        model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True, trust_remote_code=False)
    except Exception as error:  # transformers lets through whatever its readers raise
        raise DataError(f"cannot be loaded ({type(error).__name__}: {error})", where=str(folder)) from error
    if model.config.model_type not in {"dinov2", "dinov2_with_registers"}:
        raise InputError(
            f"is a {model.config.model_type!r} model", where=str(folder), remedy="dinov2 and dinov2_with_registers are understood"
        )
    fingerprint = sha256_file(folder / _WEIGHTS)
    return HuggingFaceBackbone(model, folder, name=f"hf:{folder.name}", fingerprint=fingerprint).eval()
