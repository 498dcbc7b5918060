"""Which chips are certainly bad, and how chips are coded."""

from __future__ import annotations

import io
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cgeartheye.metrics.quality import Quality
from cgeartheye.settings.curate_checks import QualitySettings


def fault_of(quality: Quality, limits: QualitySettings) -> str | None:
    """Return why a chip is rejected, in words with the measure, or None for a good one."""
    if quality.nodata > limits.max_nodata_share:
        return f"no data in {quality.nodata:.1%} of it"
    if quality.saturated > limits.max_saturated_share:
        return f"{quality.saturated:.1%} of its values are 255"
    if quality.std < limits.min_std and quality.entropy < limits.min_entropy:
        return f"empty: deviation {quality.std:.2f}, entropy {quality.entropy:.2f} bits"
    if quality.reblur > limits.max_reblur:
        return f"out of focus: a further blur leaves {quality.reblur:.2f} of its gradient"
    return None


def kind_of(reason: str) -> str:
    """Return the short name under which the funnel counts a reason."""
    starts = {"no data": "no_data", "empty": "empty", "out of focus": "out_of_focus", "shifted": "shifted"}
    return next((kind for start, kind in starts.items() if reason.startswith(start)), "saturated")


def quality_columns(quality: Quality) -> dict[str, Any]:
    """Return the index columns of the measures: ``q_nodata``, ``q_saturated`` and so on."""
    return {f"q_{name}": round(value, 6) for name, value in asdict(quality).items()}


def encode_jpeg(image: NDArray[np.uint8], quality: int) -> bytes:
    """Code a picture (H, W, 3) uint8 as baseline JPEG with 4:2:0 chroma; equal pictures give equal bytes."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=2)
    return buffer.getvalue()
