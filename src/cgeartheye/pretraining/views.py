"""From chips to what the networks see: global, local and seasonal views, and the masks.

B batch, G = 2 global views, L local views, S season slots, N patches of a global view.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cgeartheye.pretraining.chips import Chips
from cgeartheye.pretraining.places import Drawn, Places
from cgeartheye.settings.pretrain import JitterSettings, PretrainSettings
from cgeartheye.transforms.colour import JitterPolicy, draw_factors, jitter
from cgeartheye.transforms.crops import Boxes, CropPolicy, crop, draw_boxes
from cgeartheye.transforms.masks import MaskPolicy, draw_masks

GLOBALS: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewBatch:
    """All views of a batch.

    Args:
        globals_: (G, B, 3, H, W) float32 in [0, 1], of the anchor date.
        locals_: (L, B, 3, h, w) float32 in [0, 1], of the anchor date.
        season: (S, 3, h, w) float32 in [0, 1], of other dates; rows of empty slots are ignored.
        place: (S,) int64 row of the batch that a slot belongs to.
        filled: (S,) bool.
        masks: (G, B, N) bool, True where the student's global view is hidden.
    """

    globals_: Tensor
    locals_: Tensor
    season: Tensor
    place: Tensor
    filled: Tensor
    masks: Tensor


class ViewMaker:
    """Makes the views of any step; every draw is a function of (seed, sample number, view).

    Args:
        places: what a sample is made of.
        chips: decoded pictures.
        settings: sizes, scales and policies.
        patch_px: of the backbone.
        device: where views are cut.
    """

    def __init__(self, places: Places, chips: Chips, *, settings: PretrainSettings, patch_px: int, device: torch.device) -> None:
        self._places, self._chips, self._settings, self.device = places, chips, settings, device
        self.slots = places.slots(settings.batch)
        replaced = settings.season.views if settings.season.mode == "replace" and self.slots else 0
        self.locals = settings.views.locals - replaced
        side = -(-settings.views.global_px // patch_px)
        self._grid = (side, side)
        views, season = settings.views, settings.season
        self._policies = {
            "global": CropPolicy(scale=views.global_scale, aspect=views.aspect, turns=views.turns),
            "local": CropPolicy(scale=views.local_scale, aspect=views.aspect, turns=views.turns),
            "season": CropPolicy(scale=season.scale, aspect=views.aspect, turns=views.turns),
        }
        self._jitter = _jitter_policy(views.jitter)
        self._masks = MaskPolicy(share_of_views=settings.masks.share_of_views, ratio=settings.masks.ratio)

    def __call__(self, step: int) -> ViewBatch:
        """Make the views of step ``step``, counted from 0, and begin to decode the chips of the next one."""
        drawn = self._draw(step)
        pixels, sizes = self._chips.get(np.concatenate([drawn.anchors, drawn.season]))
        if not self._chips.keeps:
            following = self._draw(step + 1)
            self._chips.ask(np.concatenate([following.anchors, following.season]))
        B = len(drawn.anchors)
        images = torch.from_numpy(pixels).to(self.device).float().div_(255)
        views = self._settings.views
        globals_ = self._cut("global", GLOBALS, images[:B], sizes[:B], samples=drawn.samples, side=views.global_px)
        locals_ = self._cut("local", self.locals, images[:B], sizes[:B], samples=drawn.samples, side=views.local_px)
        masks = draw_masks(self._masks, self._grid, seed=self._settings.seed, samples=drawn.samples, views=GLOBALS)
        return ViewBatch(
            globals_=globals_,
            locals_=locals_,
            season=self._season(drawn, images[B:], sizes[B:]),
            place=torch.from_numpy(drawn.place.copy()).to(self.device),
            filled=torch.from_numpy(drawn.filled).to(self.device),
            masks=masks.to(self.device),
        )

    def _draw(self, step: int) -> Drawn:
        first = step * self._settings.batch
        samples = np.arange(first, first + self._settings.batch, dtype=np.int64)
        return self._places.draw(samples, seed=self._settings.seed, slots=self.slots)

    def _cut(
        self, kind: str, count: int, images: Tensor, sizes: NDArray[np.int64], *, samples: NDArray[np.int64], side: int
    ) -> Tensor:
        """Return (count, B, 3, side, side) views of one kind, colours changed."""
        if not count:
            return torch.zeros(0, len(images), 3, side, side, device=images.device)
        names = tuple(f"{kind}/{number}" for number in range(count))
        boxes = draw_boxes(self._policies[kind], sizes, seed=self._settings.seed, names=names, samples=samples)
        cut = crop(images, boxes, side=side)
        factors = draw_factors(self._jitter, seed=self._settings.seed, names=names, samples=samples)
        return jitter(cut.flatten(0, 1), factors.flatten(0, 1)).view_as(cut)

    def _season(self, drawn: Drawn, images: Tensor, sizes: NDArray[np.int64]) -> Tensor:
        """Return (S, 3, side, side) views of other dates."""
        season = self._settings.season
        side = season.size_px or self._settings.views.local_px
        if not len(images):
            return torch.zeros(0, 3, side, side, device=images.device)
        samples = drawn.samples[drawn.place]
        names = tuple(f"season/{number}" for number in range(season.views))
        rows = np.arange(len(samples))
        boxes = draw_boxes(self._policies["season"], sizes, seed=self._settings.seed, names=names, samples=samples)
        views = crop(images, _one_each(boxes, drawn.order), side=side)[0]
        if not season.jitter:
            return views
        factors = draw_factors(self._jitter, seed=self._settings.seed, names=names, samples=samples)
        return jitter(views, factors[drawn.order, rows])


def _one_each(boxes: Boxes, view: NDArray[np.int64]) -> Boxes:
    """Keep for each row the box of one view: (S, V) boxes -> (S, 1)."""
    rows = np.arange(len(view))
    parts = (boxes.top, boxes.left, boxes.height, boxes.width, boxes.turn)
    top, left, height, width, turn = (part[rows, view][:, None] for part in parts)
    return Boxes(top=top, left=left, height=height, width=width, turn=turn)


def _jitter_policy(settings: JitterSettings) -> JitterPolicy:
    return JitterPolicy(
        brightness=settings.brightness,
        contrast=settings.contrast,
        saturation=settings.saturation,
        channel_gain=settings.channel_gain,
        share=settings.share,
    )
