"""From one phase of a run to the next, for example from 224 to 518 px: the same networks with resampled positions.

s side of a table of positions in patches, D width.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from cgeartheye.errors import DataError, ShapeError
from cgeartheye.models.positions import Interpolation, resize_positions
from cgeartheye.models.vit import VitConfig
from cgeartheye.settings.pretrain import PretrainSettings

POSITIONS: Final = "pos_embed"
_CARRIED: Final = ("networks.", "moments.")
_ANCHOR: Final = "networks.anchor."


def position_px_of(settings: PretrainSettings, patch_px: int) -> int:
    """Return the side in pixels that a phase learns its positions for: its global views', rounded up to whole patches.

    So the views that carry most of the loss need no resampling, and a run that ends at 518 px ends with the published table.
    """
    return math.ceil(settings.views.global_px / patch_px) * patch_px


def config_of(config: VitConfig, settings: PretrainSettings) -> VitConfig:
    """Return the network of a phase that begins from scratch or from a finished phase.

    Args:
        config: of the size, or of the phase before.
        settings: of the phase.
    """
    position_px = position_px_of(settings, config.patch_px)
    return dataclasses.replace(config, position_px=position_px, drop_path=settings.drop_path)


def resample_positions(table: Tensor, *, side: int, method: Interpolation) -> Tensor:
    """Bring a table of positions to another size.

    With the method that the network itself resizes by, its features at the new size stay what they were.

    Args:
        table: (1, 1 + s * s, D) float, the class token's position first, which is kept.
        side: wanted side in patches.
        method: see :data:`cgeartheye.models.positions.Interpolation`.

    Returns:
        (1, 1 + side * side, D) in the table's type.

    Raises:
        ShapeError: if the table is not square.
    """
    source = math.isqrt(table.shape[1] - 1)
    if source * source != table.shape[1] - 1:
        raise ShapeError(f"a table of positions is (1, 1 + s * s, D), got {tuple(table.shape)}")
    square = table[0, 1:].view(source, source, -1)
    resized = resize_positions(square, side, side, method).reshape(1, side * side, -1)
    return torch.cat([table[:, :1], resized], dim=1)


@torch.no_grad()
def carry(finished: Mapping[str, Tensor], begun: Mapping[str, Tensor], *, method: Interpolation) -> None:
    """Copy the networks and the optimizer's moments of a finished phase into those of the next one, in place.

    Positions are resampled where their number changes; their moments, which belong to other places, begin at 0 then. What is
    neither ``networks.`` nor ``moments.`` (the log's sums) begins anew, and so does the anchor, which each phase takes itself.
    Sharded tensors stay sharded as they are.

    Args:
        finished: tensors by name, ``networks.student.backbone.norm.weight`` (D,), ``moments.exp_avg.backbone.norm.weight`` ...
        begun: the next phase's own tensors, of the same names.
        method: how the network resizes positions.

    Raises:
        DataError: naming every tensor that is missing, unexpected or of another shape; nothing is copied then.
    """
    old, new = _kept(finished), _kept(begun)
    faults = [f"{name} is missing" for name in sorted(new.keys() - old.keys())]
    faults += [f"{name} is unexpected" for name in sorted(old.keys() - new.keys())]
    faults += [
        f"{name} is {tuple(old[name].shape)}, not {tuple(new[name].shape)}"
        for name in sorted(new.keys() & old.keys())
        if old[name].shape != new[name].shape and not _resizable(name, old[name], new[name])
    ]
    if faults:
        shown = "".join(f"\n  {fault}" for fault in faults)
        raise DataError(f"the finished phase does not fit the next one in {len(faults)} tensors:{shown}")
    resized = any(old[name].shape != new[name].shape for name in new)
    for name, target in new.items():
        if resized and name.startswith("moments.") and name.endswith(f".{POSITIONS}"):
            target.zero_()
        elif old[name].shape != target.shape:
            _put(target, resample_positions(_whole(old[name]), side=math.isqrt(target.shape[1] - 1), method=method))
        else:
            target.copy_(old[name])


def _kept(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in tensors.items() if name.startswith(_CARRIED) and not name.startswith(_ANCHOR)}


def _resizable(name: str, old: Tensor, new: Tensor) -> bool:
    return (
        name.endswith(f".{POSITIONS}")
        and old.ndim == new.ndim == 3
        and (old.shape[0], old.shape[2]) == (new.shape[0], new.shape[2])
    )


def _whole(value: Tensor) -> Tensor:
    """Return all of a tensor that may be sharded over processes."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def _put(target: Tensor, value: Tensor) -> None:
    if isinstance(target, DTensor):
        target.copy_(distribute_tensor(value.to(target.device), target.device_mesh, target.placements))
    else:
        target.copy_(value)
