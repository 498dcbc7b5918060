"""The network as one graph for other runtimes: ONNX and torch.export, for any batch, height and width.

B batch, C bands, H W pixels, h w patches, D width.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from cgeartheye.errors import ResourceError
from cgeartheye.files import atomic_path
from cgeartheye.models.vit import VisionTransformer

INPUT: Final = "images"
OUTPUTS: Final = ("class_token", "patches")
_LONGEST_PX: Final = 4096
OPSET: Final = 20


class Graph(nn.Module):
    """The network as exported: uint8 pictures in, class token and patch tokens out."""

    def __init__(self, model: VisionTransformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, C, H, W) uint8 to (B, D) and (B, h, w, D) float after the final norm; h = ceil(H / patch)."""
        features = self.model(images)
        return features.class_token, features.patches


def export_program(model: VisionTransformer) -> torch.export.ExportedProgram:
    """Return the network, in evaluation mode, as a program with free batch, height and width."""
    patch_px = model.patch_px
    example = torch.zeros(2, len(model.config.bands), 3 * patch_px + 1, 5 * patch_px + 2, dtype=torch.uint8)
    free: Any = torch.export.Dim.DYNAMIC  # a named dimension would have to prove what rounding up to the patch hides from it
    side = free(min=patch_px + 1, max=_LONGEST_PX)
    with torch.no_grad():
        return torch.export.export(Graph(model).eval(), (example,), dynamic_shapes=({0: free, 2: side, 3: side},))


def save_program(model: VisionTransformer, path: Path) -> None:
    """Write ``torch.export``'s archive (``.pt2``); ``torch.export.load(path).module()`` opens it."""
    program = export_program(model)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:  # torch insists on the ending .pt2 only for names
        torch.export.save(program, stream)


def save_onnx(model: VisionTransformer, path: Path) -> None:
    """Write an ONNX file whose input ``images`` is uint8 and whose outputs are ``class_token`` and ``patches``.

    Weights beyond 1.5 GB go into ``<name>.data`` beside it, because a protocol buffer ends at 2 GB.

    Raises:
        ResourceError: if the extra ``export`` is not installed.
    """
    program = export_program(model)
    apart = sum(p.numel() * p.element_size() for p in model.parameters()) > 1.5e9
    settings: dict[str, Any] = {"opset_version": OPSET, "external_data": apart, "dynamo": True}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter warns about its own internals
            onnx = torch.onnx.export(program, input_names=[INPUT], output_names=list(OUTPUTS), verbose=False, **settings)
    except ImportError as error:
        raise ResourceError(
            f"writing ONNX needs the extra `export` ({error.name or error} is missing)", remedy="pip install 'cgeartheye[export]'"
        ) from error
    if onnx is None:
        raise ResourceError("the exporter returned nothing", where=str(path))
    onnx.save(path, external_data=apart)
