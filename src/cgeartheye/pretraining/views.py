"""From chips to what the networks see: global, local and seasonal views, and the masks.

M microbatches a step, B samples and S season slots each; V views of one kind, F filled slots, N patches of a global view.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cgeartheye.errors import InputError
from cgeartheye.models.vit import patch_grid
from cgeartheye.pretraining.anchor import acts_from, anchor_px
from cgeartheye.pretraining.batch import GLOBALS, ViewBatch
from cgeartheye.pretraining.chips import Chips, Picture, padded
from cgeartheye.pretraining.places import Drawn, Places
from cgeartheye.settings.pretrain import PretrainSettings
from cgeartheye.transforms.blur import BlurPolicy, blur, draw_sigmas
from cgeartheye.transforms.colour import JitterPolicy, draw_factors, jitter
from cgeartheye.transforms.crops import Boxes, CropPolicy, crop, draw_boxes
from cgeartheye.transforms.masks import MaskPolicy, draw_masks, hidden_patches

ROOM: Final = 2.0
"""A seasonal view is cut from a chip decoded at a smaller size if the cut keeps this many times the view's side in pixels.

As in Pillow's thumbnails. Views then lose 3 % of their gradients, at 1.5 times 5 % [measured: performance/loader.py]."""


class ViewMaker:
    """Makes the views of any microbatch of any step, in any process.

    Every draw is a function of (seed, sample number, view); which views hide how many patches, and which seasonal views find a
    slot, is one of (seed, samples of the microbatch).

    Args:
        places: what a sample is made of.
        chips: decoded pictures.
        settings: sizes, scales and policies.
        patch_px: of the backbone.
        device: where views are cut.
        pieces: M, microbatches a step.
        mine: the microbatches that this process makes, in its order, so that it decodes ahead; None: all.
        first_sample: running number of the first sample of step 0, for a run whose earlier phases saw others.
        steps: of the phase, by which it is known when larger views for the anchor begin; None: none are made.

    Raises:
        InputError: if the batch is not ``pieces`` equal microbatches.
    """

    def __init__(  # noqa: PLR0913 - what to make, out of what, where, and which share of it
        self,
        places: Places,
        chips: Chips,
        *,
        settings: PretrainSettings,
        patch_px: int,
        device: torch.device,
        pieces: int = 1,
        mine: Sequence[int] | None = None,
        first_sample: int = 0,
        steps: int | None = None,
    ) -> None:
        if settings.batch % pieces:
            raise InputError(
                f"a batch of {settings.batch} samples is not {pieces} equal microbatches",
                remedy="set pretrain.batch to a multiple, or pretrain.microbatch to a divisor of it",
            )
        self._places, self._chips, self._settings, self.device = places, chips, settings, device
        self._first_sample = first_sample
        self._pieces, self._mine = pieces, tuple(range(pieces) if mine is None else mine)
        self.microbatch = settings.batch // pieces
        self.slots = places.slots(self.microbatch)
        replaced = settings.season.views if settings.season.mode == "replace" and self.slots else 0
        self.locals = settings.local.views - replaced
        side = settings.views.global_px
        self._grid = patch_grid(side, side, patch_px)
        self._larger_px = anchor_px(side, patch_px, settings.gram.zoom)
        larger = steps is not None and self._larger_px[0] > side
        self._larger_from = acts_from(settings.gram, steps) if larger and settings.gram.weight and steps is not None else None
        self._recent: dict[int, tuple[Drawn, ...]] = {}
        self._set_policies(settings)

    def __call__(self, step: int, piece: int) -> ViewBatch:
        """Make the views of microbatch ``piece`` of step ``step``, both counted from 0, and begin to decode what comes next.

        The seasonal weights sum to less than the contract says by the slots whose chip, or its anchor, is left out as broken.

        Raises:
            DataError: if no chip at all can be decoded.
        """
        drawn = self._draw(step)[piece]
        rows, divisors = self._wanted(drawn)
        pictures = self._chips.fetch(rows, divisors)
        anchors, others = pictures[: self.microbatch], pictures[self.microbatch :]
        self._ask_for_the_next(step, piece)
        pixels, sizes = padded(anchors)
        images = self._moved(pixels)
        masks = draw_masks(self._masks, self._grid, seed=self._settings.seed, samples=drawn.samples, views=GLOBALS)
        hidden, hidden_weight = hidden_patches(masks)
        globals_ = self._of_anchors("global", range(GLOBALS), images, sizes, samples=drawn.samples)
        locals_ = [self._of_anchors("local", views, images, sizes, samples=drawn.samples) for views in self._local_views()]
        return ViewBatch(
            globals_=globals_,
            locals_=tuple(locals_),
            season=self._season(drawn, others, divisors[self.microbatch :]),
            place=self._moved(drawn.place),
            season_weight=self._moved(drawn.weight * self._true_pairs(drawn, anchors, others)),
            masks=self._moved(masks),
            hidden=self._moved(hidden),
            hidden_weight=self._moved(hidden_weight),
            anchor=self._of_globals_enlarged(step, images, sizes, samples=drawn.samples),
        )

    def _set_policies(self, settings: PretrainSettings) -> None:
        views, local, season = settings.views, settings.local, settings.season
        scales = {"global": views.global_scale, "local": local.scale, "season": season.scale}
        self._crops = {kind: CropPolicy(scale=scale, aspect=views.aspect, turns=views.turns) for kind, scale in scales.items()}
        self._jitter = JitterPolicy(**views.jitter.model_dump())
        self._blur = BlurPolicy(**views.blur.model_dump())
        self._masks = MaskPolicy(**settings.masks.model_dump())
        self._season_px = season.size_px or max(local.sizes_px)

    def _draw(self, step: int) -> tuple[Drawn, ...]:
        """Draw all microbatches of a step, because a seasonal weight depends on all places of the step; two steps are kept."""
        if step not in self._recent:
            first = self._first_sample + step * self._settings.batch
            samples = np.arange(first, first + self._settings.batch, dtype=np.int64).reshape(self._pieces, self.microbatch)
            self._recent = dict(list(self._recent.items())[-1:])
            self._recent[step] = self._places.draw(samples, seed=self._settings.seed, slots=self.slots)
        return self._recent[step]

    def _ask_for_the_next(self, step: int, piece: int) -> None:
        if piece not in self._mine:
            return
        position = self._mine.index(piece) + 1
        later, position = divmod(position, len(self._mine))
        self._chips.ask(*self._wanted(self._draw(step + later)[self._mine[position]]))

    def _wanted(self, drawn: Drawn) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows of a microbatch, anchors first, then filled slots, (B + F,), and at which size they are decoded."""
        rows = np.concatenate([drawn.anchors, drawn.season[drawn.filled]])
        return rows, np.concatenate([np.ones_like(drawn.anchors), self._divisors(drawn)])

    def _local_views(self) -> Iterator[list[int]]:
        """Yield for each size the local views of it: view l has size ``sizes_px[l % len(sizes_px)]``."""
        sizes = self._settings.local.sizes_px
        of_view = [sizes[view % len(sizes)] for view in range(self.locals)]
        for size in dict.fromkeys(of_view):
            yield [view for view, other in enumerate(of_view) if other == size]

    def _of_anchors(
        self, kind: str, views: Sequence[int], images: Tensor, sizes: NDArray[np.int64], *, samples: NDArray[np.int64]
    ) -> Tensor:
        """Return (V, B, 3, side, side) views of one size of the anchor date: cut, then blurred, then changed in colour."""
        names, seed = tuple(f"{kind}/{view}" for view in views), self._settings.seed
        local_px = self._settings.local.sizes_px
        side = self._settings.views.global_px if kind == "global" else local_px[views[0] % len(local_px)]
        boxes = draw_boxes(self._crops[kind], sizes, seed=seed, names=names, samples=samples)
        cut = crop(images, boxes, side=side)
        flat = blur(cut.flatten(0, 1), draw_sigmas(self._blur, seed=seed, names=names, samples=samples).reshape(-1))
        factors = draw_factors(self._jitter, seed=seed, names=names, samples=samples)
        return jitter(flat, self._moved(factors).flatten(0, 1)).view_as(cut)

    def _of_globals_enlarged(
        self, step: int, images: Tensor, sizes: NDArray[np.int64], *, samples: NDArray[np.int64]
    ) -> Tensor | None:
        """Return (G, B, 3, side, side) global views cut larger, neither blurred nor recoloured, padded as the network pads."""
        if self._larger_from is None or step < self._larger_from:
            return None
        names = tuple(f"global/{view}" for view in range(GLOBALS))
        boxes = draw_boxes(self._crops["global"], sizes, seed=self._settings.seed, names=names, samples=samples)
        side, padded_px = self._larger_px
        cut = crop(images, boxes, side=side)
        more = padded_px - side
        if not more:
            return cut
        return F.pad(cut.flatten(0, 1), (0, more, 0, more), mode="replicate").view(*cut.shape[:3], padded_px, padded_px)

    def _season_boxes(self, drawn: Drawn, sizes: NDArray[np.int64]) -> Boxes:
        """Draw the box of each filled slot, (F, 1), in chips of ``sizes`` (F, 2)."""
        place, order = drawn.place[drawn.filled], drawn.order[drawn.filled]
        names = tuple(f"season/{view}" for view in range(self._settings.season.views))
        policy, samples = self._crops["season"], drawn.samples[place]
        boxes = draw_boxes(policy, sizes, seed=self._settings.seed, names=names, samples=samples)
        return boxes.one_each(order)

    def _divisors(self, drawn: Drawn) -> NDArray[np.int64]:
        """Return at which size the chip of each filled slot is decoded, (F,): a function of the draw and the index."""
        rows = drawn.season[drawn.filled]
        boxes = self._season_boxes(drawn, self._chips.sizes(rows))
        cut_px = np.minimum(boxes.height, boxes.width)[:, 0]
        return self._chips.divisors(rows, cut_px, least_px=ROOM * self._season_px)

    def _season(self, drawn: Drawn, others: list[Picture], divisors: NDArray[np.int64]) -> Tensor:
        """Return (S, 3, side, side) views of other dates, cut only, or also changed in colour; empty slots are black."""
        views = torch.zeros(self.slots, 3, self._season_px, self._season_px, device=self.device)
        if not len(others):
            return views
        boxes = self._season_boxes(drawn, np.array([picture.full for picture in others], dtype=np.int64))
        for divisor in np.unique(divisors):
            chosen = np.flatnonzero(divisors == divisor)
            pictures = [others[slot] for slot in chosen]
            pixels, sizes = padded(pictures)
            full = np.array([picture.full for picture in pictures], dtype=np.int64)
            cut = crop(self._moved(pixels), boxes.rows(chosen).reduced(full, sizes), side=self._season_px)
            views.index_copy_(0, self._moved(chosen), cut[0])
        return self._recoloured(drawn, views) if self._settings.season.jitter else views

    def _recoloured(self, drawn: Drawn, views: Tensor) -> Tensor:
        names = tuple(f"season/{view}" for view in range(self._settings.season.views))
        samples = drawn.samples[drawn.place]
        factors = draw_factors(self._jitter, seed=self._settings.seed, names=names, samples=samples)
        return jitter(views, self._moved(factors[drawn.order, np.arange(self.slots)]))

    def _true_pairs(self, drawn: Drawn, anchors: list[Picture], others: list[Picture]) -> NDArray[np.float32]:
        """Return (S,) 0 where a broken chip was replaced by one of another place, or by the anchor itself, else 1."""
        true = np.ones(self.slots, dtype=np.float32)
        anchor = np.array([picture.row for picture in anchors])[drawn.place[drawn.filled]]
        other = np.array([picture.row for picture in others], dtype=np.int64)
        place = self._places.place_of_row
        true[drawn.filled] = (place[anchor] == place[other]) & (anchor != other)
        return true

    def _moved(self, array: NDArray[np.generic]) -> Tensor:
        """Return an array on the device, without waiting for it to arrive."""
        tensor = torch.from_numpy(array)
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor.to(self.device)
