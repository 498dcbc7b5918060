"""One way to name any backbone: a path, ``timm:NAME`` or ``hf:PATH``.

A path is read into the network of this package, whoever saved the weights; ``timm:`` and ``hf:`` run the network of that library.
"""

from __future__ import annotations

from pathlib import Path

from cgeartheye.weights.backbone import Backbone, OwnBackbone
from cgeartheye.weights.foreign import Given, is_foreign, load_foreign
from cgeartheye.weights.store import CARD, WEIGHTS, load_own


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
