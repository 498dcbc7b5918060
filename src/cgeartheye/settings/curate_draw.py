"""Settings of the draw of places beyond the published formula: where, with which budgets, weights and distances."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from cgeartheye.settings.base import Settings, UserPath


class BudgetSettings(Settings):
    """Places of one area, drawn by the formula among the cells of that area alone."""

    name: str = Field(pattern=r"^[^/]+$")
    """What the tables call it."""
    places: int = Field(ge=1)
    """Places to draw there (M); the report's are 2,015,000 in China and 7,985,000 elsewhere."""
    regions: tuple[str, ...] = ()
    """Names of regions (curate.regions) it is made of; with neither `regions` nor `area` it is everywhere else."""
    area: UserPath | None = None
    """Polygons it is made of (GeoJSON, GeoPackage, GeoParquet)."""
    min_quarters: int = Field(1, ge=1, le=4)
    """A place needs dates in at least so many quarters of the year; the report's are 4 in China and 1 elsewhere."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.regions and self.area is not None:
            message = "a budget is made of regions or of an area, not of both"
            raise ValueError(message)
        return self

    @property
    def is_rest(self) -> bool:
        """Whether it takes every cell that no other budget names."""
        return not self.regions and self.area is None


class WeightSettings(Settings):
    """A layer that makes cells more likely within their stratum; a cell's weight is the product over layers of
    ``base + value / scale``, at most ``most``.
    """

    layer: UserPath
    """Raster (night lights), or polygons, lines or points (buildings, roads)."""
    measure: Literal["mean", "share", "length", "count"] = "mean"
    """Value of a cell: a raster's mean; the share of it that polygons cover; metres of lines in it; points in it."""
    scale: float = Field(1.0, gt=0)
    """Value that adds 1 to the weight [ours]."""
    base: float = Field(1.0, ge=0)
    """Weight where the layer says nothing; 0: such cells are never drawn [ours]."""
    most: float = Field(100.0, gt=0)
    """Highest weight [ours]."""


class DrawSettings(Settings):
    """Where places are drawn, how many of each area, and how."""

    area: UserPath | None = None
    """Polygons in which cells' centres must lie; none: everywhere."""
    budgets: tuple[BudgetSettings, ...] = ()
    """Numbers of places by area, instead of curate.places; a cell belongs to the first that names it."""
    weights: tuple[WeightSettings, ...] = ()
    """Layers that make cells more likely within their stratum; how many cells a stratum gives stays the formula's [ours]."""
    min_distance_m: float = Field(0.0, ge=0, le=1_000_000)
    """Least distance between the centres of drawn cells; 0: cells may touch [ours]."""
    small_budget: Literal["refuse", "empty_strata"] = "refuse"
    """If fewer places are wanted than there are strata: stop and name the number needed, or leave the smallest strata empty."""

    @model_validator(mode="after")
    def _budgets_apart(self) -> Self:
        names = [budget.name for budget in self.budgets]
        if len(set(names)) < len(names):
            message = "two budgets have the same name"
            raise ValueError(message)
        if any(budget.is_rest for budget in self.budgets[:-1]):
            message = "a budget without regions and area takes every cell that is left; name it last"
            raise ValueError(message)
        return self
