"""Truth: classes of neighbourhoods and of pixels, buildings, changes, and the layers that strata are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import geopandas
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import LineString, box
from shapely.geometry.base import BaseGeometry
from shapely.ops import split

from cgeartheye.files import atomic_path
from cgeartheye.synthesis.buildings import ARCH
from cgeartheye.synthesis.canvas import NEVER, Canvas, class_raster
from cgeartheye.synthesis.files import CRS, to_crs
from cgeartheye.synthesis.layout import UNUSED, Layout
from cgeartheye.synthesis.materials import MATERIALS, NAMES
from cgeartheye.synthesis.parcels import polygons_of
from cgeartheye.synthesis.relief import RELIEF_M, relief_side
from cgeartheye.synthesis.render import mixture
from cgeartheye.synthesis.seasons import SPOIL
from cgeartheye.synthesis.uses import CLASSES, COVERS
from cgeartheye.synthesis.vegetation import TINTS

Rgb = tuple[int, int, int]

CLASS_COLOURS: Final[dict[str, Rgb]] = {
    "forest": (27, 94, 32),
    "orchard": (124, 179, 66),
    "field": (240, 212, 96),
    "greenhouse": (236, 140, 200),
    "grass": (174, 213, 129),
    "water": (41, 121, 204),
    "road": (97, 97, 97),
    "dense_housing": (198, 40, 40),
    "sparse_housing": (255, 138, 101),
    "bare": (188, 150, 110),
}
COVER_COLOURS: Final[dict[str, Rgb]] = {
    "water": (41, 121, 204),
    "road": (97, 97, 97),
    "building": (198, 40, 40),
    "tree": (27, 94, 32),
    "field": (240, 212, 96),
    "grass": (174, 213, 129),
    "bare": (188, 150, 110),
}
LAND_COVERS: Final = ("forest", "grassland", "cropland", "water", "wetland", "built-up", "other")
"""Classes of ``layers/land_cover.tif``, numbered from 1."""
_TO_LAND_COVER: Final = {
    "forest": 1,
    "orchard": 3,
    "field": 3,
    "greenhouse": 3,
    "grass": 2,
    "water": 4,
    "road": 6,
    "dense_housing": 6,
    "sparse_housing": 6,
    "bare": 7,
}


def class_labels(canvas: Canvas) -> NDArray[np.uint8]:
    """Return the class of neighbourhoods (H, W), 255 where there is none or where the ground changes within the year."""
    return np.where(canvas.since == NEVER, canvas.classes, UNUSED).astype(np.uint8)


def cover_labels(canvas: Canvas) -> NDArray[np.uint8]:
    """Return the class of every pixel (H, W), 255 where the ground changes within the year.

    Crowns hide what is below them also while they are bare. Greenhouses are ``field``: land under crops.
    """
    kinds = list(MATERIALS.values())
    first, second = (np.array([COVERS.index(kind.cover[i]) for kind in kinds], dtype=np.uint8) for i in range(2))
    material = np.asarray(canvas.layout.surfaces.material, dtype=np.uint8)[canvas.ground]
    cover = first[material]
    for top in range(0, len(cover), 256):
        rows = slice(top, min(top + 256, len(cover)))
        textures = (canvas.textures.rows(name, rows.start, rows.stop, cover.shape[1]) for name in ("mottle", "patch"))
        cover[rows] = np.where(mixture(*textures) > 0.5, second[material[rows]], cover[rows])
    # heaps of spoil come after all trees in the numbers of kinds
    is_tree = (canvas.kind > 0) & (canvas.kind <= SPOIL * TINTS)
    form = np.concatenate([[0], canvas.layout.buildings.form])
    roofs = np.where(form == ARCH, COVERS.index("field"), COVERS.index("building")).astype(np.uint8)
    cover = np.where(canvas.building > 0, roofs[canvas.building], cover)
    cover = np.where(is_tree & (canvas.building == 0), COVERS.index("tree"), cover)
    return np.where(canvas.since == NEVER, cover, UNUSED).astype(np.uint8)


def land_cover(layout: Layout, size_m: float) -> NDArray[np.uint8]:
    """Return the seven land-cover classes (h, w), 1 to 7, on the relief's grid; reed is wetland."""
    ground, classes = class_raster(layout, relief_side(size_m), RELIEF_M)
    table = np.full(256, 2, dtype=np.uint8)
    for name, value in _TO_LAND_COVER.items():
        table[CLASSES.index(name)] = value
    reed = np.asarray(layout.surfaces.material) == NAMES.index("reed")
    return np.where(reed[ground], 5, table[classes]).astype(np.uint8)


def change_labels(canvas: Canvas) -> NDArray[np.uint8]:
    """Return 1 where the ground differs between the first and the last quarter (H, W), else 0."""
    return np.asarray(canvas.since != NEVER, dtype=np.uint8)


def regions(layout: Layout, size_m: float) -> dict[str, BaseGeometry]:
    """Return named regions in local metres that cover the landscape: both banks of the river, the eastern one in two."""
    whole = box(0.0, 0.0, size_m, size_m)
    banks = sorted(polygons_of(split(whole, layout.water.centre), 1.0), key=lambda part: part.area, reverse=True)
    centres = [part.centroid.x for part in banks]
    east = banks[int(np.argmax(centres[:2]))]
    west = whole.difference(east)
    across = LineString(shapely.get_coordinates(layout.motorways.lines[0]))
    north = shapely.Polygon([(-500, -500), *across.coords, (size_m + 500, -500)])
    return {"West Bank": west, "North-East": east.intersection(north), "South-East": east.difference(north)}


def write_buildings(path: Path, layout: Layout, quarters: tuple[str, ...]) -> None:
    """Write the footprints as GeoParquet with kind, height and the quarter in which they appear."""
    buildings = layout.buildings
    shapes = [to_crs(shape) for shape in buildings.footprints()]
    table = geopandas.GeoDataFrame(
        {
            "kind": np.where(buildings.form == ARCH, "greenhouse", "house"),
            "height_m": np.round(buildings.eaves + buildings.rise, 2),
            "appears": [quarters[index] for index in buildings.appears],
        },
        geometry=shapes,
        crs=CRS,
    )
    with atomic_path(path) as temporary:
        table.to_parquet(temporary, index=False)
