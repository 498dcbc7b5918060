"""Settings of ``pretrain``; whatever a user leaves out is filled in for the chosen size, once, and stored with the run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, Literal, Self

from pydantic import Field, model_validator

from cgeartheye.settings.base import NOT_IDENTITY, Settings, StageSettings, UserPath


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


class ViewSettings(Settings):
    """Global and local views of the anchor date."""

    global_px: int = Field(224, ge=8)
    """Side of the two global views [paper]; nano 48."""
    local_px: int = Field(98, ge=8)
    """Side of the local views [paper]; nano 24."""
    locals: int = Field(8, ge=0, le=64)
    """Local views a sample, before seasonal views replace some [paper]; nano 4."""
    global_scale: tuple[float, float] = (0.32, 1.0)
    """Share of the chip's area that a global view covers [dinov2]; nano 0.4 to 1."""
    local_scale: tuple[float, float] = (0.05, 0.32)
    """Share of the chip's area that a local view covers [dinov2]; nano 0.05 to 0.4."""
    aspect: float = Field(1.1, ge=1, le=4)
    """Greatest ratio of a crop's sides: ground pixels are square, so little stretch [ours; dinov2 4/3]."""
    turns: bool = True
    """Draw the eight flips and quarter turns, because a picture from above has no upper side [report: flips; turns ours]."""
    jitter: JitterSettings = JitterSettings()
    """Colour changes of global and local views."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for name in ("global_scale", "local_scale"):
            _refuse_range(name, getattr(self, name))
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

    prototypes: int = Field(65_536, ge=2)
    """Prototypes K [dinov2: 65,536 or 131,072]; nano 256."""
    layers: int = Field(3, ge=1, le=6)
    """Linear layers of the MLP [report]."""
    hidden: int = Field(2048, ge=8)
    """Hidden width of the MLP [dinov2]; nano 512."""
    bottleneck: int = Field(256, ge=8)
    """Width of the unit vectors that meet the prototypes [dinov2]; nano 128."""
    shared: bool = False
    """One head for class tokens and patches, or one each [dinov2 at scale: separate]; nano shared."""


class LossSettings(Settings):
    """Terms of the objective and their targets."""

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
    """How teacher scores become probabilities [dinov2]; centring suits batches below 32 [ours]."""


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


class WatchSettings(Settings):
    """What is written while it trains. Nothing here changes the backbone."""

    log_every: int = Field(20, ge=1)
    """Steps between lines of ``metrics.jsonl`` [ours]."""
    checkpoint_every: int = Field(200, ge=1, json_schema_extra=NOT_IDENTITY)
    """Steps between checkpoints [ours]."""
    keep: int = Field(2, ge=1, json_schema_extra=NOT_IDENTITY)
    """Checkpoints kept [ours]."""
    probe_every: int = Field(500, ge=0)
    """Steps between probes by nearest neighbours on some training chips; 0 is never [ours]."""
    probe_chips: int = Field(512, ge=2)
    """Chips of a probe at most [ours]."""


class PretrainSettings(StageSettings):
    """Everything that decides a backbone."""

    curated: UserPath | None = None
    """Folder of shards (default: the project's own ``curated``)."""
    backbone: Literal["nano", "small", "base", "large", "huge", "giant"] = "nano"
    """Size [paper: five sizes; nano ours]. It also decides the defaults of whatever is left out below."""
    drop_path: float = Field(0.1, ge=0, lt=1)
    """Share of rows that residual branches of the student drop [dinov2 0.3 to 0.4 for large and up]; nano 0."""
    steps: int | None = Field(None, ge=1)
    """Length of the run in steps (nano: 3000 if neither this nor ``epochs`` is given) [ours]."""
    epochs: float | None = Field(None, gt=0)
    """Length of the run in passes over the places (100 if neither is given) [dinov2]."""
    batch: int = Field(64, ge=1)
    """Samples a step [ours: one device]; nano 32, because many small steps learn more a minute than few large ones."""
    views: ViewSettings = ViewSettings()
    """Global and local views."""
    season: SeasonSettings = SeasonSettings()
    """Views of other dates."""
    masks: MaskSettings = MaskSettings()
    """Hidden patches."""
    head: HeadSettings = HeadSettings()
    """Projection and prototypes."""
    loss: LossSettings = LossSettings()
    """Terms of the objective."""
    optimizer: OptimizerSettings = OptimizerSettings()
    """AdamW, schedules, teacher momentum."""
    watch: WatchSettings = WatchSettings()
    """Log, checkpoints, probes."""
    normalise: Literal["data", "imagenet"] = "data"
    """Whose channel means and deviations the backbone subtracts: the chips' own [ours], or ImageNet's [dinov2]."""
    chip_px: int | None = Field(None, ge=8)
    """Chips with a longer shorter side are shrunk to this once, before any view; none: as stored [ours]; nano 128."""
    cache_mb: int = Field(1024, ge=0, json_schema_extra=NOT_IDENTITY)
    """Decoded chips are kept in memory if all of them fit into this many MB, else decoded again each time [ours]."""
    decoders: int = Field(2, ge=1, json_schema_extra=NOT_IDENTITY)
    """Threads that decode chips [ours]."""
    device: Literal["auto", "cpu", "cuda"] = Field("auto", json_schema_extra=NOT_IDENTITY)
    """Where it trains; ``auto`` takes a GPU if there is one."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the networks; ``auto`` is bfloat16 on a GPU, float32 on a CPU. Losses and weights stay float32 [dinov3]."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_the_size(cls, given: Any) -> Any:  # noqa: ANN401 - whatever the user wrote
        if not isinstance(given, Mapping):
            return given
        size = given.get("backbone", "nano")
        return _under(given, OF_SIZE.get(size, {})) if isinstance(size, str) else given

    @model_validator(mode="after")
    def _fill_in_what_depends(self) -> Self:
        if self.steps is not None and self.epochs is not None:
            message = "give steps or epochs, not both"
            raise ValueError(message)
        if self.season.mode == "replace" and self.season.views > self.views.locals:
            message = f"season.mode replace needs views.locals >= season.views, but {self.views.locals} < {self.season.views}"
            raise ValueError(message)
        changes: dict[str, Any] = {}
        if self.steps is None and self.epochs is None:
            changes |= {"steps": 3000} if self.backbone == "nano" else {"epochs": 100.0}
        if self.season.size_px is None:
            changes["season"] = self.season.model_copy(update={"size_px": self.views.local_px})
        if self.optimizer.lr is None:
            lr, batch = PEAK_LR[self.backbone]
            changes["optimizer"] = self.optimizer.model_copy(update={"lr": lr * math.sqrt(self.batch / batch)})
        for name, value in changes.items():
            object.__setattr__(self, name, value)  # the model is frozen for its users, not for its own defaults
        return self


PEAK_LR: Final[dict[str, tuple[float, int]]] = {
    "nano": (5e-4, 32),
    "small": (1e-3, 1024),
    "base": (7e-4, 1024),
    "large": (3.5e-4, 1024),
    "huge": (2.5e-4, 1024),
    "giant": (2e-4, 1024),
}
"""Peak learning rate of a size and the batch it holds for [ours, between dinov2's 4e-3 (fast) and 2e-4 (long)]."""

_WIDE: Final[dict[str, Any]] = {
    "head": {"prototypes": 131_072, "bottleneck": 384},
    "optimizer": {"betas": (0.9, 0.99), "layer_decay": 1.0},
}

OF_SIZE: Final[dict[str, dict[str, Any]]] = {
    "nano": {
        "drop_path": 0.0,
        "batch": 32,
        "chip_px": 128,
        "views": {
            "global_px": 48,
            "local_px": 24,
            "locals": 4,
            "global_scale": (0.4, 1.0),
            "local_scale": (0.05, 0.4),
            "jitter": {"channel_gain": 0.15, "share": 1.0},
        },
        "head": {"prototypes": 256, "hidden": 512, "bottleneck": 128, "shared": True},
        "loss": {"teacher_temperature": (0.04, 0.04)},
        "optimizer": {"end_lr": 0.02, "weight_decay": (0.04, 0.04), "layer_decay": 1.0, "ema": (0.99, 1.0)},
    },
    "large": {**_WIDE, "drop_path": 0.3},
    "huge": {**_WIDE, "drop_path": 0.4},
    "giant": {**_WIDE, "drop_path": 0.4},
}
"""Defaults that differ by size; the fields' own defaults are those of small and base."""


def _under(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``given`` with ``defaults`` filled in below it, section by section."""
    merged = dict(given)
    for key, value in defaults.items():
        below = merged.get(key, {} if isinstance(value, Mapping) else value)
        if isinstance(below, Settings):
            continue  # a whole section in Python is taken as it is
        merged[key] = _under(below, value) if isinstance(value, Mapping) and isinstance(below, Mapping) else below
    return merged
