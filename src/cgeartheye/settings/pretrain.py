"""Settings of ``pretrain``; whatever a user leaves out is filled in for the chosen size, once, and stored with the run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, Literal, Self

from pydantic import Field, model_validator

from cgeartheye.settings.base import NOT_IDENTITY, Address, Settings, StageSettings
from cgeartheye.settings.pretrain_sections import (
    DistilSettings,
    GramSettings,
    HeadSettings,
    LocalSettings,
    LossSettings,
    MaskSettings,
    OptimizerSettings,
    SeasonSettings,
    Size,
    StartSettings,
    ViewSettings,
    WatchSettings,
)


class PretrainSettings(StageSettings):
    """Everything that decides a backbone."""

    curated: Address | None = Field(None, json_schema_extra=NOT_IDENTITY)  # an input is known by its content
    """Folder of shards (default: the project's own ``curated``), or its address: ``http(s)://``, or what fsspec knows."""
    window: int | None = Field(None, ge=1)
    """Shards whose places are mixed at a time, for stores that lie far away or do not fit in memory; none: all places of the
    data set, and 16 shards at an address [ours]."""
    backbone: Size = "nano"
    """Size [paper: five sizes; nano ours]. It also decides the defaults of whatever is left out below."""
    drop_path: float = Field(0.1, ge=0, lt=1)
    """Share of rows that residual branches of the student drop [dinov2 0.3 to 0.4 for large and up]; nano 0."""
    steps: int | None = Field(None, ge=1)
    """Length of the run in steps (nano: 3000 if neither this nor ``epochs`` is given) [ours]."""
    epochs: float | None = Field(None, gt=0)
    """Length of the run in passes over the places (100 if neither is given) [dinov2]."""
    batch: int = Field(64, ge=1)
    """Samples a step [ours: one device]; nano 32, because many small steps learn more a minute than few large ones."""
    microbatch: int | None = Field(None, ge=1)
    """Samples of one pass through the networks; a batch is ``batch / microbatch`` of them, shared among the processes, the
    rest one after the other. None: the batch divided by the processes that begin the run [ours]."""
    phases: tuple[dict[str, Any], ...] = ()
    """What changes in later phases (the paper's second stage: 518 px), each a set of this section's keys; each begins from the
    networks of the one before, with positions resampled, at constant decay, temperature and a tenth of the learning rate."""
    start: StartSettings = StartSettings()
    """Weights to continue from; none: from scratch."""
    distil: DistilSettings = DistilSettings()
    """A trained network to learn from; none: the network teaches itself."""
    views: ViewSettings = ViewSettings()
    """Global views, and what all views of the anchor date share."""
    local: LocalSettings = LocalSettings()
    """Local views."""
    season: SeasonSettings = SeasonSettings()
    """Views of other dates."""
    masks: MaskSettings = MaskSettings()
    """Hidden patches."""
    head: HeadSettings = HeadSettings()
    """Projection and prototypes."""
    loss: LossSettings = LossSettings()
    """Terms of the objective."""
    gram: GramSettings = GramSettings()
    """Anchor of dense features, for long runs."""
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
    compile: bool = Field(default=False, json_schema_extra=NOT_IDENTITY)
    """Compile each block of the networks (torch.compile); a gain on GPUs, none on a CPU."""
    recompute: Literal["nothing", "activations", "blocks"] = Field("nothing", json_schema_extra=NOT_IDENTITY)
    """What the backward pass computes again instead of keeping it: nothing; the wide side of each MLP's activation [ours: a
    sixth less memory, about 1 % more work]; whole blocks, of which only the input is kept (a third more work)."""
    shard: bool = Field(default=False, json_schema_extra=NOT_IDENTITY)
    """Shard parameters, gradients, moments and teacher over the processes (FSDP2), where one device cannot hold them."""
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
        defaults = OF_SIZE.get(size, {}) if isinstance(size, str) else {}
        if _names(given, "start", "weights"):
            defaults = _under(CONTINUED, defaults)
        if _names(given, "distil", "teacher"):
            defaults = _under(DISTILLED, defaults)
        return _under(given, defaults)

    @model_validator(mode="after")
    def _fill_in_what_depends(self) -> Self:
        if self.steps is not None and self.epochs is not None:
            message = "give steps or epochs, not both"
            raise ValueError(message)
        if self.season.mode == "replace" and self.season.views > self.local.views:
            message = f"season.mode replace needs local.views >= season.views, but {self.local.views} < {self.season.views}"
            raise ValueError(message)
        if self.microbatch is not None and self.batch % self.microbatch:
            message = f"batch must be a multiple of microbatch, but {self.batch} is no multiple of {self.microbatch}"
            raise ValueError(message)
        changes: dict[str, Any] = {}
        if self.window is None and isinstance(self.curated, str):
            changes["window"] = REMOTE_WINDOW
        if self.steps is None and self.epochs is None:
            changes |= {"steps": 3000} if self.backbone == "nano" else {"epochs": 100.0}
        if self.season.size_px is None:
            changes["season"] = self.season.model_copy(update={"size_px": max(self.local.sizes_px)})
        if self.optimizer.lr is None:
            lr, batch = (CONTINUED_LR if self.start.weights is not None else PEAK_LR)[self.backbone]
            changes["optimizer"] = self.optimizer.model_copy(update={"lr": lr * math.sqrt(self.batch / batch)})
        for name, value in changes.items():
            object.__setattr__(self, name, value)  # the model is frozen for its users, not for its own defaults
        return self

    @model_validator(mode="after")
    def _distillation_is_possible(self) -> Self:
        teacher, students = self.distil.teacher, self.distil.students
        together = [
            (teacher is None and bool(students), "distil.students need a distil.teacher"),
            (len({self.backbone, *students}) <= len(students), "backbone and distil.students are different sizes"),
            (teacher is not None and self.start.weights is not None, "give start.weights or distil.teacher, not both"),
            (teacher is not None and bool(self.phases), "distil.teacher knows no phases"),
            (teacher is not None and self.gram.weight > 0, "distil.teacher needs no gram anchor: its own features never move"),
            (teacher is not None and self.shard, "distil.teacher knows no shard: networks are whole in every process"),
        ]
        for impossible, message in together:
            if impossible:
                raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _phases_are_valid(self) -> Self:
        for number, changes in enumerate(self.phases, 1):
            fixed = sorted(set(changes) - PHASE_KEYS)
            if fixed:
                message = f"phases.{number - 1} cannot change {', '.join(fixed)}; it may change {', '.join(sorted(PHASE_KEYS))}"
                raise ValueError(message)
            self.phase(number)
        return self

    def phase(self, number: int) -> PretrainSettings:
        """Return the settings of one phase, resolved: 0 is this section itself, number ``n`` has ``phases[n - 1]`` laid over it.

        A later phase keeps what the first one ended with: constant decay and temperature, no warm-up of prototypes, a slow
        teacher, an anchor (if any) from its first step on, and a tenth of the peak learning rate, unless it says otherwise.
        """
        if number == 0:
            return self if not self.phases else self.model_copy(update={"phases": ()})
        base = self.model_dump(exclude={"phases", "start", "steps", "epochs"})
        changes = self.phases[number - 1]
        o, loss = self.optimizer, self.loss
        later: dict[str, Any] = {
            "optimizer": {
                "lr": (o.lr or 0.0) / 10,
                "weight_decay": (o.weight_decay[1], o.weight_decay[1]),
                "ema": (LATER_EMA, 1.0),
                "freeze_last": 0.0,
            },
            "loss": {"teacher_temperature": (loss.teacher_temperature[1], loss.teacher_temperature[1])},
            "gram": {"after": 0.0},
        }
        if "local" in changes and "season" not in changes:
            later["season"] = {"size_px": None}  # follows the local side
        return PretrainSettings.model_validate(_under(changes, _under(later, base)))


PHASE_KEYS: Final = frozenset(
    {
        *("steps", "epochs", "batch", "microbatch", "views", "local", "season", "masks", "loss", "gram", "optimizer"),
        *("drop_path", "recompute"),
    }
)
"""What a later phase may change: everything but the network, its heads and the data."""

REMOTE_WINDOW: Final = 16
"""Shards that are mixed at a time where they lie at an address [ours]: 12,000 places of four dates in shards of 256 MB."""

LATER_EMA: Final = 0.999
"""Momentum at which the teacher of a later phase begins [dinov3, high resolution]."""

PEAK_LR: Final[dict[str, tuple[float, int]]] = {
    "nano": (5e-4, 32),
    "small": (1e-3, 1024),
    "base": (7e-4, 1024),
    "large": (3.5e-4, 1024),
    "huge": (2.5e-4, 1024),
    "giant": (2e-4, 1024),
}
"""Peak learning rate of a size and the batch it holds for [ours, between dinov2's 4e-3 (fast) and 2e-4 (long)]."""

CONTINUED_LR: Final[dict[str, tuple[float, int]]] = dict.fromkeys(PEAK_LR, (5e-05, 1024)) | {"nano": (1e-4, 32)}
"""Learning rate and its batch where a run continues from weights [FINO 5e-5; nano ours]."""

CONTINUED: Final[dict[str, Any]] = {
    "drop_path": 0.1,
    "optimizer": {
        "end_lr": 1.0,
        "weight_decay": (0.04, 0.04),
        "betas": (0.9, 0.99),
        "layer_decay": 0.9,
        "freeze_last": 0.0,
        "ema": (0.996, 1.0),
    },
}
"""Defaults of a run that continues from weights [FINO, a continuation of DINOv3; ema ours]: small, constant, careful."""

DISTILLED: Final[dict[str, Any]] = {"drop_path": 0.0}
"""Defaults of students of a trained network [dinov2, section 5: neither masks nor stochastic depth]."""

_WIDE: Final[dict[str, Any]] = {
    "head": {"bottleneck": 384},
    "optimizer": {"betas": (0.9, 0.99), "layer_decay": 1.0},
}

OF_SIZE: Final[dict[str, dict[str, Any]]] = {
    "nano": {
        "drop_path": 0.0,
        "batch": 32,
        "chip_px": 128,
        "views": {
            "global_px": 48,
            "global_scale": (0.4, 1.0),
            "jitter": {"channel_gain": 0.15, "share": 1.0},
            "blur": {"share": 0.0},
        },
        "local": {"sizes_px": (24,), "views": 4, "scale": (0.05, 0.4)},
        "head": {"prototypes": 256, "hidden": 512, "bottleneck": 128, "shared": True},
        "loss": {"teacher_temperature": (0.04, 0.04)},
        "optimizer": {"end_lr": 0.02, "weight_decay": (0.04, 0.04), "layer_decay": 1.0, "ema": (0.99, 1.0)},
    },
    "large": {**_WIDE, "drop_path": 0.3},
    "huge": {**_WIDE, "drop_path": 0.4},
    "giant": {**_WIDE, "drop_path": 0.4},
}
"""Defaults that differ by size; the fields' own defaults are those of small and base."""


def peak_lr(size: str, *, batch: int) -> float:
    """Return the default peak learning rate of a size that begins from scratch, for a batch."""
    lr, of_batch = PEAK_LR[size]
    return lr * math.sqrt(batch / of_batch)


def _names(given: Mapping[str, Any], section: str, key: str) -> bool:
    """Whether the user gives weights under ``section.key``."""
    inner = given.get(section)
    return (inner.get(key) if isinstance(inner, Mapping) else getattr(inner, key, None)) is not None


def _under(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``given`` with ``defaults`` filled in below it, section by section."""
    merged = dict(given)
    for key, value in defaults.items():
        below = merged.get(key, {} if isinstance(value, Mapping) else value)
        if isinstance(below, Settings):
            continue  # a whole section in Python is taken as it is
        merged[key] = _under(below, value) if isinstance(value, Mapping) and isinstance(below, Mapping) else below
    return merged
