from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from cgeartheye.models.sizes import build
from cgeartheye.models.vit import VitConfig
from cgeartheye.rasters.writer import RasterSpec, write_geotiff
from cgeartheye.tasks.colour import ColourModel
from cgeartheye.tasks.heads import build_head
from cgeartheye.tasks.segmentation import TaskCard, TaskClass, save_task
from cgeartheye.weights.load import load_backbone
from cgeartheye.weights.store import save_backbone

TINY = VitConfig(name="tiny", depth=2, width=16, heads=2, hidden=32, patch_px=8, layer_scale=1.0, position_px=48)
CRS = "EPSG:32633"
TRANSFORM = (0.5, 0.0, 500000.25, 0.0, -0.5, 5200000.5)
CLASSES = (
    TaskClass(name="water", value=1, colour="#0000FF"),
    TaskClass(name="land", value=2, colour="#AA8800"),
    TaskClass(name="wood", value=7, colour="#008800"),
)


def landscape(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """A smooth coloured picture, (H, W, 3) uint8."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(height, width, 3)), (6, 6, 0))
    spread = (noise - noise.min()) / np.ptp(noise)
    return (spread * 255).astype(np.uint8)


def write_scene(path: Path, picture: NDArray[np.uint8], **others: Any) -> Path:
    height, width = picture.shape[:2]
    values = {"crs": CRS, "transform": TRANSFORM, "count": 3, "block_px": 64, **others}
    write_geotiff(path, picture, RasterSpec(width=width, height=height, **values))
    return path


def make_task(folder: Path, *, window_px: int = 64, halo_px: int = 16, seed: int = 0) -> Path:
    """A task model on an untrained tiny backbone, with both baselines; the head's scale makes its classes differ."""
    save_backbone(folder / "backbone", build(TINY, seed=seed), {"name": "tiny", "licence": "CC0-1.0", "init_seed": seed + 9})
    backbone = load_backbone(folder / "backbone")
    heads = {}
    for method in ("trained", "untrained"):
        head = build_head("conv", 32, 3, hidden=8, seed=seed + len(method))
        head.classify.weight.data *= 12
        heads[method] = head.state_dict()
    colour = ColourModel(3)
    colour.weight.data[:, :3] = 9 * torch.eye(3)
    heads["colour"] = colour.state_dict()
    card = TaskCard(
        classes=CLASSES,
        backbone="../backbone",
        backbone_name="tiny",
        backbone_fingerprint=backbone.fingerprint,
        licence="CC0-1.0",
        patch_px=8,
        window_px=window_px,
        halo_px=halo_px,
        layers=(0, 1),
        head="conv",
        hidden=8,
        width=32,
        gsd_m=0.5,
        temperatures={"trained": 1.3},
    )
    save_task(folder / "task", card, heads)
    return folder / "task"
