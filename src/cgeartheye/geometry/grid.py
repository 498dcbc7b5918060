"""A metric, north-up pixel grid: where every chip of a place, or every window of a map, lies."""

from __future__ import annotations

from dataclasses import dataclass

from cgeartheye.errors import ShapeError
from cgeartheye.geometry.crs import LONLAT, Affine6, transformer, utm_crs


@dataclass(frozen=True, slots=True)
class Grid:
    """``height`` x ``width`` square pixels of ``gsd_m`` metres, north up.

    Args:
        crs: coordinate reference system, as "EPSG:32640" or WKT; its unit is the metre.
        x0: x of the top-left corner, metres.
        y0: y of the top-left corner, metres.
        gsd_m: side of a pixel in metres, > 0.
        width: columns, >= 1.
        height: rows, >= 1.

    Raises:
        ShapeError: if a size is not positive.
    """

    crs: str
    x0: float
    y0: float
    gsd_m: float
    width: int
    height: int

    def __post_init__(self) -> None:
        if self.gsd_m <= 0 or self.width < 1 or self.height < 1:
            raise ShapeError(f"a grid of {self.width} x {self.height} pixels of {self.gsd_m} m holds nothing")

    @property
    def transform(self) -> Affine6:
        """The affine transform (a, b, c, d, e, f) from (column, row) to (x, y)."""
        return (self.gsd_m, 0.0, self.x0, 0.0, -self.gsd_m, self.y0)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north in the grid's system, metres."""
        return (self.x0, self.y0 - self.height * self.gsd_m, self.x0 + self.width * self.gsd_m, self.y0)

    def window(self, row: int, column: int, height: int, width: int) -> Grid:
        """Return the grid of a part of this one, by its first row and column and its size in pixels; it may reach outside."""
        return Grid(self.crs, self.x0 + column * self.gsd_m, self.y0 - row * self.gsd_m, self.gsd_m, width, height)


def local_grid(lon: float, lat: float, *, gsd_m: float, size_px: int | tuple[int, int], crs: str | None = None) -> Grid:
    """Return the grid of a place: centred on a point, its origin on whole multiples of the GSD.

    Args:
        lon: longitude of the centre, degrees.
        lat: latitude of the centre, degrees.
        gsd_m: side of a pixel in metres.
        size_px: side of a square grid, or (height, width).
        crs: metric system; default: the UTM zone of the centre.
    """
    height, width = size_px if isinstance(size_px, tuple) else (size_px, size_px)
    system = crs or utm_crs(lon, lat)
    x, y = transformer(LONLAT, system).transform(lon, lat)
    first = round(x / gsd_m - width / 2)
    top = round(y / gsd_m + height / 2)
    return Grid(system, first * gsd_m, top * gsd_m, gsd_m, width, height)
