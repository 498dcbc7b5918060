"""One way to name any backbone: a path, ``timm:NAME`` or ``hf:PATH``."""

from __future__ import annotations

from pathlib import Path

from cgeartheye.weights.backbone import Backbone
from cgeartheye.weights.store import load_own


def load_backbone(spec: str | Path) -> Backbone:
    """Load a frozen backbone, ready for inference on the CPU.

    Args:
        spec: the folder or weights file that ``pretrain`` wrote; ``timm:NAME`` for a pre-trained plain ViT of timm
            (``timm:NAME?random`` for its untrained weights); ``hf:PATH`` for a local folder in the Hugging Face layout.

    Raises:
        InputError: if there is no such backbone, or it is a pickle.
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
    return load_own(Path(text))
