"""Sections of ``pretrain``'s settings: views, masks, heads, loss, optimizer, start, watch."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from cgeartheye.settings.base import NOT_IDENTITY, BackboneSpec, Settings, UserPath


def _refuse_range(name: str, value: tuple[float, float]) -> None:
    if not 0 < value[0] <= value[1] <= 1:
        message = f"{name} needs 0 < least <= greatest <= 1, got {value[0]} and {value[1]}"
        raise ValueError(message)


class JitterSettings(Settings):
    """Colour changes of the anchor date's views."""

    brightness: float = Field(0.3, ge=0, lt=1)
    """Greatest relative change of brightness [report names it; value ours, dinov2 has 0.4]."""
    contrast: float = Field(0.3, ge=0, lt=1)
    """Greatest relative change of contrast [report names it; value ours, dinov2 has 0.4]."""
    saturation: float = Field(0.2, ge=0, lt=1)
    """Greatest relative change of saturation [report names it; value dinov2]."""
    channel_gain: float = Field(0.0, ge=0, lt=1)
    """Greatest relative change of each channel by itself, as sensors and mosaics differ; 0 is off [ours]."""
    share: float = Field(0.8, ge=0, le=1)
    """Share of views that are changed [dinov2]."""


class BlurSettings(Settings):
    """Gaussian blur of the anchor date's views, as sensors and resampling differ in sharpness."""

    share: float = Field(0.2, ge=0, le=1)
    """Share of views that are blurred [ours; dinov2 blurs 0, 90 and 50 % of its three kinds by an inverted probability]."""
    sigma_px: tuple[float, float] = (0.1, 1.0)
    """Least and greatest deviation in pixels of the view [ours; dinov2 up to 2, which wipes out cars at VHR scale]."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not 0 < self.sigma_px[0] <= self.sigma_px[1] <= 8:
            message = f"sigma_px needs 0 < least <= greatest <= 8, got {self.sigma_px[0]} and {self.sigma_px[1]}"
            raise ValueError(message)
        return self


class ViewSettings(Settings):
    """Global views, and what all views of the anchor date share."""

    global_px: int = Field(224, ge=8)
    """Side of the two global views [paper]; nano 48."""
    global_scale: tuple[float, float] = (0.32, 1.0)
    """Share of the chip's area that a global view covers [dinov2]; nano 0.4 to 1."""
    aspect: float = Field(1.1, ge=1, le=4)
    """Greatest ratio of a crop's sides: ground pixels are square, so little stretch [ours; dinov2 4/3]."""
    turns: bool = True
    """Draw the eight flips and quarter turns, because a picture from above has no upper side [report: flips; turns ours]."""
    jitter: JitterSettings = JitterSettings()
    """Colour changes of global and local views."""
    blur: BlurSettings = BlurSettings()
    """Blur of global and local views."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _refuse_range("global_scale", self.global_scale)
        return self


class LocalSettings(Settings):
    """Small views of the anchor date, seen by the student only."""

    sizes_px: tuple[int, ...] = Field((98,), min_length=1, max_length=8)
    """Sides of the local views, taken in turn [paper 98; its figure draws four sizes]; nano 24."""
    views: int = Field(8, ge=0, le=64)
    """Local views a sample, before seasonal views replace some [paper]; nano 4."""
    scale: tuple[float, float] = (0.05, 0.32)
    """Share of the chip's area that a local view covers [dinov2]; nano 0.05 to 0.4."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _refuse_range("scale", self.scale)
        if min(self.sizes_px) < 8:
            message = f"sizes_px are at least 8, got {min(self.sizes_px)}"
            raise ValueError(message)
        return self


class SeasonSettings(Settings):
    """Views of the place's other dates."""

    mode: Literal["add", "replace", "off"] = "add"
    """``add`` them as a third term of the loss [paper], let them ``replace`` as many local views [report], or ``off``."""
    pair: Literal["quarter", "date"] = "quarter"
    """Which dates may pair: those of another calendar quarter [paper], or any other date [ours]."""
    views: int = Field(3, ge=1, le=15)
    """Seasonal views a sample at most; places with fewer other dates have fewer [paper]."""
    size_px: int | None = Field(None, ge=8)
    """Side of a seasonal view; default: the local side [ours: 11 % more work instead of 58 % at the figure's global side]."""
    scale: tuple[float, float] = (0.32, 1.0)
    """Share of the chip's area that a seasonal view covers [ours, as a global view]."""
    weight: float = Field(1.0, ge=0)
    """Weight of the seasonal term [paper]."""
    jitter: bool = False
    """Also change the colours of seasonal views [paper: no]."""
    max_shift_px: float = Field(3.0, ge=0)
    """Dates that lie surely further than this from their place's first one are not paired [ours]."""
    max_gap_days: int | None = Field(None, ge=1)
    """Dates further apart than this are not paired, as the ground itself may have changed; none: any gap [ours]."""
    max_saturated: float = Field(0.2, gt=0, le=1)
    """Dates with a greater share of saturated pixels, such as clouds and snow, are not paired [ours]."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _refuse_range("scale", self.scale)
        return self


class MaskSettings(Settings):
    """Hidden patches of the student's global views."""

    share_of_views: float = Field(0.5, ge=0, le=1)
    """Share of the global views that are masked [dinov2]; the paper's figure masks all (1.0)."""
    ratio: tuple[float, float] = (0.1, 0.5)
    """Least and greatest share of hidden patches in a masked view [paper]."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _refuse_range("ratio", self.ratio)
        return self


class HeadSettings(Settings):
    """Projection from tokens to prototypes."""

    prototypes: int | None = Field(None, ge=2)
    """Prototypes K; none: by the number of chips (256 to 4,096 below 100,000; 16,384 to 32,768 up to a million; 65,536 up to
    ten; 131,072 beyond), at most 16 a class token of a batch [ours; dinov2 65,536 or 131,072]; nano 256."""
    layers: int = Field(3, ge=1, le=6)
    """Linear layers of the MLP [report]."""
    hidden: int = Field(2048, ge=8)
    """Hidden width of the MLP [dinov2]; nano 512."""
    bottleneck: int = Field(256, ge=8)
    """Width of the unit vectors that meet the prototypes [dinov2]; nano 128."""
    shared: bool = False
    """One head for class tokens and patches, or one each [dinov2 at scale: separate]; nano shared."""
    normalise: Literal["unit", "weight"] = "unit"
    """Prototypes of length one [ours], or of a learned length each, as weight normalisation does [dinov2]."""


class LossSettings(Settings):
    """Terms of the objective and their targets."""

    global_weight: float = Field(1.0, ge=0)
    """Weight of the pairs of global views [paper]."""
    local_weight: float = Field(1.0, ge=0)
    """Weight of the pairs with local views [paper]; dinov3 0.5 at high resolution."""
    patch_weight: float = Field(1.0, ge=0)
    """Weight of the masked-patch term [paper]."""
    koleo_weight: float = Field(0.1, ge=0)
    """Weight of the spread of class tokens over the sphere [dinov2]; without it nano collapses to 7 dimensions."""
    student_temperature: float = Field(0.1, gt=0)
    """Temperature of the student [dinov2]."""
    teacher_temperature: tuple[float, float] = (0.04, 0.07)
    """Temperature of the teacher at the start and after its warm-up [dinov2]; nano 0.04 throughout."""
    teacher_warm_up: float = Field(0.3, ge=0, le=1)
    """Share of the run over which the teacher's temperature rises [dinov2: 30 of 100 epochs]."""
    targets: Literal["sinkhorn", "centring"] = "sinkhorn"
    """How teacher scores become probabilities [dinov2]; centring drifts at small batches, so it is watched [ours]."""


class GramSettings(Settings):
    """Dense (Gram) anchor: keeps how alike the patches of a picture are as an earlier teacher saw them, for long runs."""

    weight: float = Field(0.0, ge=0)
    """Weight of the term; 0 is off [ours; dinov3 2, in a late stage of its own]."""
    after: float = Field(0.5, ge=0, lt=1)
    """Share of the steps after which it acts; the anchor is the teacher of that moment, at 0 the weights that the run starts
    from [ours; dinov3 an early teacher after a million steps]; later phases 0."""
    refresh: int | None = Field(None, ge=1)
    """Steps after which the anchor is taken anew from the teacher; none: never [ours; dinov3 10,000]."""
    most_refreshes: int = Field(3, ge=0)
    """Times that it is taken anew at most [dinov3]."""
    zoom: float = Field(2.0, ge=1, le=4)
    """The anchor sees the global crops at this multiple of their side, without blur and colour changes, and its features are
    resampled to the student's grid [dinov3]; at 1 it sees what the teacher sees, for a fifth of the cost."""


class OptimizerSettings(Settings):
    """AdamW and its schedules, all in samples seen."""

    lr: float | None = Field(None, gt=0)
    """Peak learning rate; default: that of the size, times the root of the batch over 1024 (nano: over 32) [dinov2]."""
    warm_up: float = Field(0.1, ge=0, lt=1)
    """Share of the run over which the learning rate rises [dinov2]."""
    end_lr: float = Field(0.01, ge=0, le=1)
    """Last learning rate, as a share of the peak [ours; dinov2 1e-6 absolute]; nano 0.02."""
    weight_decay: tuple[float, float] = (0.04, 0.2)
    """Decay of matrices at the start and the end [dinov2]; nano 0.04 throughout."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Moments of AdamW [dinov2]; large and up 0.99."""
    clip: float = Field(3.0, gt=0)
    """Greatest norm of all gradients together [dinov2]."""
    layer_decay: float = Field(0.9, gt=0, le=1)
    """Factor on the learning rate from each block to the one below [dinov2]; nano, large and up 1."""
    freeze_last: float = Field(0.05, ge=0, lt=1)
    """Share of the run in which prototypes do not move [ours; dinov2 1 %]."""
    ema: tuple[float, float] = (0.992, 1.0)
    """Momentum of the teacher at the start [paper] and the end [dinov2]; nano 0.99."""


class StartSettings(Settings):
    """Weights to continue from, and how carefully."""

    weights: BackboneSpec | None = None
    """A folder that `pretrain` or `export` wrote, or weights of DINOv2, CGEarthEye (MMPretrain), timm or Hugging Face."""
    heads_only: float = Field(0.05, ge=0, lt=1)
    """Share of the run in which only the new heads learn [FINO, a continuation of DINOv3: 3 of 25 thousand steps and more]."""
    ramp: float = Field(0.05, ge=0, lt=1)
    """Share of the run over which the backbone's learning rate then rises [ours]."""
    guard: float | None = Field(0.03, ge=0, le=1, json_schema_extra=NOT_IDENTITY)
    """The run stops when its probe stays this far below the parent's twice in a row; none: never [ours]."""


Size = Literal["nano", "small", "base", "large", "huge", "giant"]
"""The five published sizes and nano."""


class DistilSettings(Settings):
    """A trained network that teaches smaller ones its features, in place of self-distillation."""

    teacher: BackboneSpec | None = None
    """Weights that teach, as `start.weights` names them, of any size with the patch of the students; none: no distillation."""
    students: tuple[Size, ...] = ()
    """Further sizes that learn from the same pass of the teacher, besides `backbone` [dinov3: several at once]."""


class WatchSettings(Settings):
    """What is written while it trains. Nothing here changes the backbone."""

    log_every: int = Field(20, ge=1)
    """Steps between lines of ``metrics.jsonl``, and between two looks at the device [ours]."""
    checkpoint_every: int = Field(200, ge=1, json_schema_extra=NOT_IDENTITY)
    """Steps between checkpoints [ours]."""
    keep: int = Field(2, ge=1, json_schema_extra=NOT_IDENTITY)
    """Newest checkpoints kept, besides the one with the best probe [ours]."""
    asynchronous: bool = Field(default=True, json_schema_extra=NOT_IDENTITY)
    """Write checkpoints in the background from a copy of the state [ours]."""
    probe_every: int = Field(500, ge=0)
    """Steps between probes by nearest neighbours and a linear map; 0 is never [ours]."""
    probe_chips: int = Field(512, ge=2)
    """Chips of a probe at most [ours]."""
    probe_images: UserPath | None = None
    """Folder of pictures in class folders to probe with; none: training chips that have a label, or else a land cover."""
    retrieval_places: int = Field(256, ge=0)
    """Places with two dates that are looked up across dates at each probe; 0 is none [ours]."""
    tensorboard: bool = Field(default=False, json_schema_extra=NOT_IDENTITY)
    """Also write the log for TensorBoard, into ``tensorboard/``; needs the extra ``track``."""
    wandb: str | None = Field(None, min_length=1, json_schema_extra=NOT_IDENTITY)
    """Also send the log to this project of Weights & Biases; needs the extra ``track``."""
