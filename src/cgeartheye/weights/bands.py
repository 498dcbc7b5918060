"""More input bands for a network that was trained on fewer: surgery of the patch embedding."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from cgeartheye.errors import InputError
from cgeartheye.models.vit import VisionTransformer
from cgeartheye.weights.backbone import OwnBackbone, state_fingerprint

Start = Literal["zero", "mean"]
"""``zero``: the network answers as before, whatever the new band shows, until it is trained on. ``mean``: the new band gets the
mean of the known bands' filters and all are scaled by old / new count, so that a picture equal in all bands answers as before."""


@dataclass(frozen=True)
class Band:
    """A band to add.

    Args:
        name: for example ``nir``.
        mean: of the band in [0, 1], taken out before the network.
        std: its standard deviation in [0, 1].
        start: see :data:`Start`.
    """

    name: str
    mean: float
    std: float
    start: Start = "zero"


def parse_band(text: str) -> Band:
    """Read ``NAME:MEAN:STD`` or ``NAME:MEAN:STD:START``.

    Raises:
        InputError: if it is neither.
    """
    name, *numbers = text.split(":")
    start = numbers.pop() if len(numbers) == 3 else "zero"
    try:
        mean, std = (float(number) for number in numbers)
        known = bool(name) and start in get_args(Start)
    except ValueError:
        known = False
    if not known:
        raise InputError(f"{text!r} names no band", remedy="write NAME:MEAN:STD or NAME:MEAN:STD:mean, for example nir:0.4:0.2")
    return Band(name, mean, std, "mean" if start == "mean" else "zero")


@torch.no_grad()
def add_band(backbone: OwnBackbone, band: Band) -> OwnBackbone:
    """Return the backbone with one more input band, the last.

    Raises:
        InputError: if it has the band already, or mean and deviation are not of values in [0, 1].
    """
    old = backbone.model
    if band.name in old.config.bands or not (0 <= band.mean <= 1 and 0 < band.std <= 1):
        raise InputError(
            f"band {band.name!r} with mean {band.mean} and deviation {band.std} cannot be added to {', '.join(old.config.bands)}",
            remedy="give a new name and statistics of values in [0, 1], for example nir:0.4:0.2",
        )
    config = dataclasses.replace(
        old.config,
        bands=(*old.config.bands, band.name),
        mean=(*old.config.mean, band.mean),
        std=(*old.config.std, band.std),
    )
    filters = old.patch_embed.proj.weight  # (D, C, patch, patch)
    if band.start == "zero":
        joined = torch.cat([filters, torch.zeros_like(filters[:, :1])], dim=1)
    else:
        count = filters.shape[1]
        joined = torch.cat([filters, filters.mean(dim=1, keepdim=True)], dim=1) * (count / (count + 1))
    model = VisionTransformer(config)
    model.load_state_dict({**old.state_dict(), "patch_embed.proj.weight": joined})
    card = {**backbone.card, "added_bands": [*backbone.card.get("added_bands", []), dataclasses.asdict(band)]}
    fingerprint = state_fingerprint(model)
    return OwnBackbone(model, name=backbone.name, fingerprint=fingerprint, licence=backbone.licence, card=card).eval()
