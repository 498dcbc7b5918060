"""A task model for dense classes: a frozen backbone, a head on several levels of its tokens, and their files.

B batch, D width, C classes, H W pixels, h w patches.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from cgeartheye.errors import DataError, InputError
from cgeartheye.files import read_json, write_bytes, write_json
from cgeartheye.tasks.colour import ColourModel
from cgeartheye.tasks.heads import DenseHead, Kind
from cgeartheye.tasks.untrained import untrained_twin
from cgeartheye.weights.backbone import Backbone
from cgeartheye.weights.load import load_backbone

SCHEMA_VERSION: Final = 1
CARD: Final = "task.json"
HEADS: Final = {"trained": "head.safetensors", "untrained": "untrained_head.safetensors", "colour": "colour.safetensors"}
"""File of each method's weights; the last two are the baselines."""


@dataclass(frozen=True, kw_only=True)
class TaskClass:
    """A class of a task model."""

    name: str
    value: int
    """Value in maps and in truth rasters."""
    colour: str
    """Colour in maps, "#RRGGBB"."""


@dataclass(frozen=True, kw_only=True)
class TaskCard:
    """What ``task.json`` says."""

    classes: tuple[TaskClass, ...]
    backbone: str
    """A folder, relative to the task's own, or ``timm:NAME``, ``hf:PATH``."""
    backbone_name: str
    backbone_fingerprint: str
    licence: str
    patch_px: int
    window_px: int
    halo_px: int
    layers: tuple[int, ...]
    head: Kind
    hidden: int
    width: int
    """Joined width of the levels, what the head takes."""
    gsd_m: float | None = None
    temperatures: Mapping[str, float] = field(default_factory=dict)
    """By method; logits are divided by it."""
    scores: Mapping[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION
    task: str = "segmentation"


class SegmentationModel(nn.Module):
    """Backbone and head as one dense model."""

    def __init__(self, backbone: Backbone, head: DenseHead, layers: Sequence[int], *, temperature: float = 1.0) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.layers, self.temperature = tuple(layers), temperature

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) uint8 RGB to (B, C, H, W) float logits."""
        logits = self.head(joined_levels(self.backbone, images, self.layers))
        return to_pixels(logits, images.shape[-2:]) / self.temperature


def joined_levels(backbone: Backbone, images: Tensor, layers: Sequence[int]) -> Tensor:
    """Return the tokens of several blocks, each after the final norm, joined: (B, 3, H, W) uint8 -> (B, D, h, w) float."""
    levels = backbone.levels(images, layers, norm="all")
    return torch.cat([level.patches.permute(0, 3, 1, 2) for level in levels], dim=1)


def to_pixels(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Resize (B, C, h, w) logits bilinearly to (B, C, H, W)."""
    return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)


def quarter_layers(depth: int) -> tuple[int, ...]:
    """Return the last block of each quarter of the depth: 12 -> 2, 5, 8, 11."""
    return tuple(sorted({max(0, round(depth * quarter / 4) - 1) for quarter in (1, 2, 3, 4)}))


def save_task(folder: Path, card: TaskCard, states: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Write the weights of each method and, last, ``task.json``; equal values give equal bytes.

    Args:
        folder: made if absent.
        card: what the model is.
        states: method (see :data:`HEADS`) -> state dict of its head.
    """
    for method, state in states.items():
        write_bytes(folder / HEADS[method], save({key: value.contiguous() for key, value in state.items()}))
    write_json(folder / CARD, asdict(card))


def read_card(folder: Path) -> TaskCard:
    """Read ``task.json`` of a task model's folder.

    Raises:
        InputError: if there is no task model.
        DataError: if the card is damaged or of another release.
    """
    path = folder / CARD
    if not path.is_file():
        raise InputError(
            f"holds no task model (there is no {CARD})", where=str(folder), remedy="give the folder that adapt wrote"
        )
    found = read_json(path)
    if not isinstance(found, dict) or found.get("schema_version") != SCHEMA_VERSION:
        version = found.get("schema_version") if isinstance(found, dict) else None
        raise DataError(f"schema_version {version!r} is not known to this release", where=str(path))
    known = {f.name for f in fields(TaskCard)}
    try:
        classes = tuple(TaskClass(**entry) for entry in found["classes"])
        return TaskCard(**{**found, "classes": classes, "layers": tuple(found["layers"])})
    except (TypeError, KeyError) as error:
        missing = ", ".join(sorted(known ^ found.keys()))
        raise DataError(f"is not a task model's card (keys that differ: {missing or error})", where=str(path)) from error


def methods(folder: Path) -> list[str]:
    """Return the methods whose weights a task folder holds, the trained one first."""
    return [method for method, name in HEADS.items() if (folder / name).is_file()]


def load_task(folder: Path, method: str = "trained") -> tuple[nn.Module, TaskCard]:
    """Load a task model, or one of its baselines, ready for inference.

    Args:
        folder: what ``adapt`` wrote.
        method: a key of :data:`HEADS`.

    Returns: a module that maps (B, 3, H, W) uint8 RGB to (B, C, H, W) logits, and the card.

    Raises:
        InputError: if there is no task model or its backbone is gone.
        DataError: if the backbone is not the one the head was trained on, or a file is damaged.
    """
    card = read_card(folder)
    state = _read_state(folder / HEADS[method])
    temperature = float(card.temperatures.get(method, 1.0))
    if method == "colour":
        colour = ColourModel(len(card.classes), temperature=temperature)
        _fill(colour, state, folder / HEADS[method])
        return colour.eval(), card
    backbone = _backbone(folder, card, untrained=method == "untrained")
    head = DenseHead(card.head, card.width, len(card.classes), card.hidden)
    _fill(head, state, folder / HEADS[method])
    return SegmentationModel(backbone, head, card.layers, temperature=temperature).eval(), card


def _backbone(folder: Path, card: TaskCard, *, untrained: bool) -> Backbone:
    spec = card.backbone
    if not spec.startswith(("timm:", "hf:")):
        place = Path(os.path.normpath(folder / spec))
        if not place.exists():
            raise InputError(
                f"the task's backbone {card.backbone_name} is not there any more",
                where=str(place),
                remedy="put its folder back, or adapt again",
            )
        spec = str(place)
    backbone = load_backbone(spec)
    if backbone.fingerprint != card.backbone_fingerprint:
        found, wanted = backbone.fingerprint[:12], card.backbone_fingerprint[:12]
        raise DataError(
            f"is another backbone than the head was trained on ({found}, not {wanted})",
            where=spec,
            remedy="give the head its own backbone back, or adapt again",
        )
    return untrained_twin(backbone) if untrained else backbone


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError("there is no such file", where=str(path), remedy="adapt again, with `baselines: true` for baselines")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"is no readable safetensors file ({error})", where=str(path), remedy="copy it again") from error


def _fill(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    try:
        module.load_state_dict(dict(state))
    except RuntimeError as error:
        raise DataError(f"does not fit the task's card ({error})", where=str(path)) from error
