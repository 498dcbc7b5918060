"""Settings of `adapt`: labels, head and training of a task model on a frozen backbone."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cgeartheye.settings.base import BackboneSpec, Settings, StageSettings, UserPath

Colour = Annotated[str, Field(pattern=r"^#[0-9A-Fa-f]{6}$")]
"""A colour as "#RRGGBB"."""


class Pair(Settings):
    """Pictures and their masks, paired by the stem of the file name."""

    images: UserPath
    """A picture or a folder of pictures (JPEG, PNG, TIFF)."""
    masks: UserPath
    """A mask or a folder of masks (PNG, TIFF): one value or one colour a class."""
    gsd_m: float | None = Field(None, gt=0)
    """Ground sampling distance in metres of pictures that carry none; a georeferenced picture's own one is used."""


class ClassSpec(Settings):
    """One class: how masks mark it and how maps show it."""

    name: str = Field(min_length=1)
    """Name in tables, legends and polygons."""
    value: int | None = Field(None, ge=0, le=254)
    """Value that marks the class in single-band masks; it is the class's value in the map too."""
    colour: Colour | None = None
    """Colour that marks the class in RGB or palette masks."""
    display: Colour | None = None
    """Colour in maps; default: `colour`, else one of a fixed palette [ours]."""

    @model_validator(mode="after")
    def _marked_somehow(self) -> Self:
        if self.value is None and self.colour is None:
            message = f"class {self.name!r} has neither a value nor a colour: say how masks mark it"
            raise ValueError(message)
        return self


class HeadSettings(Settings):
    """What is trained on the frozen features."""

    kind: Literal["linear", "conv"] = "conv"
    """`linear`: one matrix a patch; `conv`: 1x1, 3x3 over neighbouring patches, and four logits a patch [ours]."""
    hidden: int = Field(64, ge=8, le=1024)
    """Channels of the `conv` head [ours: 128 were no better with a few hundred windows, and twice as dear]."""
    layers: tuple[int, ...] | None = None
    """Blocks whose tokens are joined; default: the last of each quarter of the depth, as dense DINOv2 heads do [dinov2]."""
    steps: int = Field(300, ge=1)
    """Training steps [ours]."""
    batch: int = Field(8, ge=1)
    """Windows a step [ours]."""
    lr: float = Field(2e-3, gt=0)
    """Peak learning rate of AdamW; 20 steps of warm-up, then half a cosine [ours]."""
    weight_decay: float = Field(1e-3, ge=0)
    """Weight decay of AdamW [ours]."""
    evaluate_every: int = Field(50, ge=1)
    """Steps between looks at the validation blocks, each followed by a checkpoint; the best head by mIoU is kept [ours]."""
    patience: int = Field(4, ge=1)
    """Looks without a better mIoU after which training stops [ours]."""


class AdaptSettings(StageSettings):
    """Train a task model on labels, with the backbone frozen."""

    backbone: BackboneSpec | None = None
    """Frozen backbone; default: the project's own pre-trained one."""
    task: Literal["segmentation"] = "segmentation"
    """What the task model does."""
    pairs: tuple[Pair, ...] = Field(min_length=1)
    """Pictures and masks."""
    classes: tuple[ClassSpec, ...] = Field(min_length=2, max_length=64)
    """The classes; anything else in a mask must be listed under `ignore`."""
    ignore: tuple[Annotated[int, Field(ge=0, le=255)] | Colour, ...] = (255,)
    """Mask values and colours that mean "not labelled"; they reach neither the loss nor a score."""
    window_px: int | None = Field(None, ge=16)
    """Side of a window in pixels; default: 160 for patches of 8 px, 504 for 14, else the multiple next to 36 patches [ours]."""
    halo_px: int | None = Field(None, ge=0)
    """Context at each side of a window when mapping; default: two patches [ours: enough for a feather without a seam]."""
    windows: int = Field(400, ge=2)
    """Most windows that are used, validation included; windows with rare classes are drawn more often [ours]."""
    views: Literal[1, 2, 4, 8] = 1
    """Turned and mirrored versions of each training window whose features are cached [ours: each costs a pass]."""
    group: Literal["auto", "picture", "block"] = "auto"
    """What never lies in training and validation both: whole pictures, or blocks of ground. `auto`: pictures if there are at
    least ten of one size of area or smaller than a block, else blocks [ours]."""
    block_windows: int = Field(4, ge=1)
    """Side of a block of ground in windows; training windows that touch a validation block are left out [ours]."""
    validation_share: float = Field(0.2, gt=0, lt=0.9)
    """Share of the groups kept for validation [ours]."""
    head: HeadSettings = HeadSettings()
    """The head and its training."""
    baselines: bool = True
    """Train a per-pixel colour logistic regression and the same head on the untrained backbone beside it, for comparison."""
    calibrate: bool = True
    """Fit one temperature on the validation blocks, so that confidences mean what they say."""

    @model_validator(mode="after")
    def _no_two_classes_alike(self) -> Self:
        for what in ("name", "value", "colour"):
            seen = [getattr(c, what) for c in self.classes if getattr(c, what) is not None]
            keys = [s.lower() if isinstance(s, str) else s for s in seen]
            doubled = sorted({str(k) for k in keys if keys.count(k) > 1})
            if doubled:
                message = f"two classes share the {what} {', '.join(doubled)}"
                raise ValueError(message)
        return self
