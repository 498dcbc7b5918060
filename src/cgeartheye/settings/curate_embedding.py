"""Settings of `curate`: what clusters are made of."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from cgeartheye.settings.base import NOT_IDENTITY, BackboneSpec, Settings

BackboneChoice = Literal["colour"] | BackboneSpec
"""``colour``, or a backbone."""


class EmbeddingSettings(Settings):
    """What the clusters are made of."""

    backbone: BackboneChoice = "colour"
    """`colour` (root of the joint 8 x 8 x 8 colour histogram), a backbone's path, `timm:NAME` or `hf:PATH` [ours]."""
    size_px: int = Field(224, ge=16, le=2048)
    """Side to which chips are resized for a backbone [dinov2]; `colour` reads them as stored."""
    levels: tuple[int, ...] = Field((-1,), min_length=1)
    """Blocks of the backbone whose tokens are taken, from 0, negative ones from the end: the multi-level representation
    [report] read as depths of the network. The final norm is applied at every depth [dinov2]. Default: the last block [ours]."""
    readouts: tuple[Literal["class", "mean"], ...] = Field(("class", "mean"), min_length=1)
    """What is taken of each level: the class token, the mean of the patch tokens [ours]; each is brought to unit length."""
    combine: Literal["jointly", "in_turn"] = "jointly"
    """`jointly`: all levels lie side by side in one vector. `in_turn`: places are clustered by the first level, each cluster by
    the second, and so on; the tree then has as many levels as are listed here [ours; the report does not say]."""
    device: Literal["auto", "cpu", "cuda"] = Field("auto", json_schema_extra=NOT_IDENTITY)
    """Where the backbone runs; `auto` takes a GPU if there is one. Both agree to rounding, not to the bit."""
    batch: int = Field(32, ge=1, json_schema_extra=NOT_IDENTITY)
    """Chips given to a backbone at a time."""

    @model_validator(mode="after")
    def _levels_differ(self) -> Self:
        for name in ("levels", "readouts"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                message = f"{name} names one thing twice"
                raise ValueError(message)
        if self.combine == "in_turn" and (len(self.levels) < 2 or self.backbone == "colour"):
            message = "combine: in_turn needs a backbone and at least two levels, for example levels: [-1, 3]"
            raise ValueError(message)
        return self
