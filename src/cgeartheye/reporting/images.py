"""Pictures for the page: always decoded and encoded anew, so that nothing but pixels enters it."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from cgeartheye.errors import DataError
from cgeartheye.reporting.blocks import Picture

JPEG_QUALITY = 88


def photograph(pixels: NDArray[np.uint8], longest_px: int, *, alt: str, caption: str = "") -> Picture:
    """Return an (H, W, 3) uint8 picture as JPEG, shrunk to ``longest_px``."""
    image = _shrunk(Image.fromarray(pixels, "RGB"), longest_px, Image.Resampling.LANCZOS)
    return _encoded(image, "JPEG", alt, caption, quality=JPEG_QUALITY, optimize=True)


def pattern(pixels: NDArray[np.uint8], side_px: int, *, alt: str, caption: str = "") -> Picture:
    """Return a small (h, w, 3) uint8 array as PNG, each value enlarged to an equal block."""
    factor = max(1, side_px // max(pixels.shape[:2]))
    return _encoded(Image.fromarray(np.kron(pixels, np.ones((factor, factor, 1), dtype=np.uint8)), "RGB"), "PNG", alt, caption)


def read_picture(path: Path, longest_px: int, *, alt: str, sharp: bool = False) -> Picture:
    """Return a PNG or JPEG file shrunk to ``longest_px``; ``sharp`` keeps flat colours flat (maps), else it becomes a JPEG.

    Raises:
        DataError: if there is no such picture, it is broken, or it is larger than Pillow's limit.
    """
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as opened:
            image = opened.copy() if sharp and opened.mode == "P" else opened.convert("RGBA" if sharp else "RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError, SyntaxError) as error:
        raise DataError(f"{path.name} is absent or cannot be read", where=f"{path} ({error})") from error
    if sharp:
        return _encoded(_shrunk(image, longest_px, Image.Resampling.NEAREST), "PNG", alt, "", optimize=True)
    return _encoded(_shrunk(image, longest_px, Image.Resampling.LANCZOS), "JPEG", alt, "", quality=JPEG_QUALITY, optimize=True)


def thumbnail(data: bytes, longest_px: int, *, alt: str, caption: str = "") -> Picture:
    """Return a JPEG from a table, decoded and encoded anew.

    Raises:
        DataError: if it is none.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as opened:
            pixels = np.asarray(opened.convert("RGB"))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError, SyntaxError) as error:
        raise DataError("a picture of the gallery cannot be read") from error
    return photograph(pixels, longest_px, alt=alt, caption=caption)


def _shrunk(image: Image.Image, longest_px: int, filter_: Image.Resampling) -> Image.Image:
    longest = max(image.size)
    if longest <= longest_px:
        return image
    size = [max(1, round(side * longest_px / longest)) for side in image.size]
    return image.resize((size[0], size[1]), filter_)


def _encoded(image: Image.Image, kind: str, alt: str, caption: str, **options: Any) -> Picture:  # noqa: ANN401 - Pillow's
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    uri = f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return Picture(uri, image.width, image.height, alt, caption)
