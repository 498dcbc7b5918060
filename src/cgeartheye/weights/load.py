"""One way to name any backbone: a path, ``timm:NAME`` or ``hf:PATH``.

A path is read into the network of this package, whoever saved the weights; ``timm:`` and ``hf:`` run the network of that library.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch

from cgeartheye.errors import DataError, InputError
from cgeartheye.files import read_json
from cgeartheye.weights.backbone import Backbone, OwnBackbone
from cgeartheye.weights.foreign import Given, adopt, is_foreign, load_foreign
from cgeartheye.weights.store import CARD, WEIGHTS, load_own

_DINOV2: Final = frozenset({"dinov2", "dinov2_with_registers"})
"""Networks of transformers that are, weight for weight, ours."""
_WHAT_FITS: Final = (
    "plain transformers of the DINOv2 family can be brought into the network of this package: a folder that pretrain or export "
    "wrote, weights of DINOv2 or CGEarthEye (MMPretrain), timm:vit_*_patch14_dinov2 (also reg4), hf: a folder of Dinov2Model"
)
_SAME: Final = 1e-4
"""Greatest difference, relative to the largest value, at which two networks in float32 count as the same [ours]."""


def load_backbone(spec: str | Path) -> Backbone:
    """Load a frozen backbone, ready for inference on the CPU.

    Args:
        spec: the folder or weights file that ``pretrain`` or ``export`` wrote; weights of DINOv2, MMPretrain, timm or Hugging
            Face (a ``.pth`` or ``.safetensors`` file, or a folder with ``model.safetensors``); ``timm:NAME`` for a network of
            timm with its weights (``timm:NAME?random`` untrained); ``hf:PATH`` for a transformers network in a local folder.

    Raises:
        InputError: if there is no such backbone, its layout is not known, or a pickle holds more than tensors.
        DataError: if its files are damaged or do not fit.
        ResourceError: if weights would have to be downloaded and cannot be.
    """
    text = str(spec)
    if text.startswith("timm:"):
        # timm and transformers each take seconds to import, and most runs need neither
        from cgeartheye.weights.timm_models import load_timm

        return load_timm(text.removeprefix("timm:"))
    if text.startswith("hf:"):
        from cgeartheye.weights.huggingface import load_huggingface

        return load_huggingface(Path(text.removeprefix("hf:")))
    return load_path(Path(text))


def load_path(path: Path, given: Given | None = None) -> OwnBackbone:
    """Load weights on disk into the network of this package.

    Args:
        path: our own folder or file, or another layout's; see :func:`load_backbone`.
        given: what a file of another layout does not say.

    Raises:
        InputError, DataError: as :func:`load_backbone`.
    """
    file = path / WEIGHTS if path.is_dir() else path
    own = file.with_name(CARD).is_file() or path.name == WEIGHTS  # ours without its card is no other layout: it is refused
    return load_foreign(path, given) if not own and is_foreign(path) else load_own(path)


def load_into_own(spec: str | Path) -> OwnBackbone:
    """Load weights into the network of this package, as training needs them, whoever saved them and whoever runs them else.

    A network of timm is compared with ours on one picture after its weights were brought over, so that nothing that only looks
    alike is taken.

    Args:
        spec: as for :func:`load_backbone`.

    Raises:
        InputError: if the weights are of another network; the error names what can be brought over.
        DataError, ResourceError: as :func:`load_backbone`.
    """
    text = str(spec)
    if text.startswith("timm:"):
        return _out_of_timm(load_backbone(text), text)
    if text.startswith("hf:"):
        folder = Path(text.removeprefix("hf:"))
        kind = read_json(folder / "config.json").get("model_type") if (folder / "config.json").is_file() else None
        if kind not in _DINOV2:
            raise InputError(f"is a {kind!r} model" if kind else "has no config.json", where=text, remedy=_WHAT_FITS)
        return load_path(folder)
    return load_path(Path(text))


def _out_of_timm(theirs: Backbone, name: str) -> OwnBackbone:
    network: Any = theirs.model
    if not hasattr(network, "blocks") or not hasattr(network.blocks[0], "attn"):
        raise InputError("is no plain transformer", where=name, remedy=_WHAT_FITS)
    said = {
        "heads": getattr(network.blocks[0].attn, "num_heads", None),
        "mean": network.pretrained_cfg["mean"],
        "std": network.pretrained_cfg["std"],
        "licence": theirs.licence,
        "sha256": theirs.fingerprint,
    }
    try:
        ours = adopt(network.state_dict(), "timm", name=name, said=said)
    except (DataError, InputError) as error:
        first = " ".join(error.what.split("\n")[:3])
        raise InputError(f"is another network than ours: {first}", where=name, remedy=_WHAT_FITS) from error
    if not _agree(theirs, ours):
        raise InputError("computes something else than our network with the same weights", where=name, remedy=_WHAT_FITS)
    return ours


@torch.inference_mode()
def _agree(theirs: Backbone, ours: OwnBackbone) -> bool:
    picture = torch.rand(1, 3, 4 * ours.patch_px, 5 * ours.patch_px, generator=torch.Generator().manual_seed(0))
    a, b = theirs(picture), ours(picture)
    pairs = [(a.class_token, b.class_token), (a.patches, b.patches)]
    return all(x.shape == y.shape and float((x - y).abs().max()) <= _SAME * float(x.abs().max()) for x, y in pairs)
