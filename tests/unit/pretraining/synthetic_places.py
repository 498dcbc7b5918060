"""Places with small random pictures."""

from __future__ import annotations

import datetime
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from cgeartheye.shards.format import Chip, Place


def picture(seed: int, side: int) -> bytes:
    """A smooth random picture as JPEG."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def place(name: str, quarters: Sequence[int], *, side: int = 32, seed: int = 0, **columns: Any) -> Place:
    """A place with one chip for each quarter; ``columns`` that are sequences belong to the chips, others to the place."""
    chips = []
    for number, quarter in enumerate(quarters):
        own = {key: value[number] for key, value in columns.items() if isinstance(value, list)}
        date = datetime.date(2020 + number, 3 * max(quarter, 1) - 1, 5)
        known = {"date": date, "year": date.year, "quarter": quarter} if quarter else {}
        size = {"width": side, "height": side, "gsd_m": 0.75, "licence": "CC0-1.0"}
        chips.append(Chip(picture(1000 * seed + number, side), {**known, **size, **own}))
    return Place(name=name, chips=tuple(chips), columns={k: v for k, v in columns.items() if not isinstance(v, list)})
