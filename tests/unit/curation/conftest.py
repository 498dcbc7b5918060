"""A small archive: four dates of 400 x 400 m at 1 m, cut in two scenes each, with layers and a hold-out."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.transform import from_origin
from scipy import ndimage

from cgeartheye.catalog import catalog
from cgeartheye.progress import Progress
from cgeartheye.settings.catalog import CatalogSettings
from cgeartheye.settings.curate import CurateSettings

ORIGIN = (500_000.0, 4_400_000.0)
CRS = "EPSG:32650"
SIDE = 400


def landscape(side: int = SIDE, seed: int = 0) -> np.ndarray:
    """A textured picture (side, side, 3) uint8."""
    random = np.random.default_rng(seed)
    coarse = ndimage.gaussian_filter(random.normal(size=(side, side, 3)), (12, 12, 0)) * 700
    fine = ndimage.gaussian_filter(random.normal(size=(side, side, 1)), (1, 1, 0)) * 60
    return np.clip(120 + coarse + fine, 1, 250).astype(np.uint8)


def write_tif(
    path: Path, image: np.ndarray, x0: float, y0: float, *, gsd: float = 1.0, nodata: float | None = 0, crs: str = CRS
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = np.moveaxis(image, -1, 0) if image.ndim == 3 else image[None]
    profile = {
        "driver": "GTiff",
        "height": bands.shape[1],
        "width": bands.shape[2],
        "count": bands.shape[0],
        "dtype": bands.dtype,
        "nodata": nodata,
    }
    with rasterio.open(path, "w", crs=crs, transform=from_origin(x0, y0, gsd, gsd), **profile) as dataset:
        dataset.write(bands)
    return path


DATES = tuple(dt.date(2023, month, 10) for month in (2, 5, 8, 11))


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with ``catalog/``, ``scenes/`` and ``layers/``."""
    root = tmp_path_factory.mktemp("archive")
    base = landscape()
    for number, date in enumerate(DATES):
        image = np.clip(base.astype(int) + 8 * number, 1, 250).astype(np.uint8)
        for half in (0, 1):
            part = image[:, half * 200 : half * 200 + 200]
            write_tif(root / "scenes" / f"s_{date:%Y%m%d}_{half}.tif", part, ORIGIN[0] + 200 * half, ORIGIN[1])
    cover = np.full((40, 40), 10, np.uint8)
    cover[:, 20:] = 40
    cover[:10] = 50
    write_tif(root / "layers" / "cover.tif", cover, *ORIGIN, gsd=10)
    heights = np.linspace(0, 390, 40, dtype=np.float32)[:, None] * np.ones((1, 40), np.float32)
    write_tif(root / "layers" / "heights.tif", heights, *ORIGIN, gsd=10, nodata=-9999)
    west = shapely.box(ORIGIN[0], ORIGIN[1] - SIDE, ORIGIN[0] + 160, ORIGIN[1])
    east = shapely.box(ORIGIN[0] + 160, ORIGIN[1] - SIDE, ORIGIN[0] + SIDE, ORIGIN[1])
    gpd.GeoDataFrame({"name": ["West", "East"]}, geometry=[west, east], crs=CRS).to_crs(4326).to_file(
        root / "layers" / "regions.geojson"
    )
    held = shapely.box(ORIGIN[0] + 340, ORIGIN[1] - SIDE, ORIGIN[0] + SIDE, ORIGIN[1] - 340)
    gpd.GeoDataFrame(geometry=[held], crs=CRS).to_crs(4326).to_file(root / "layers" / "held.geojson")
    catalog(CatalogSettings(scenes=(root / "scenes",), workers=1, licence="CC0-1.0"), root / "catalog")
    return root


@pytest.fixture
def archive_settings(archive: Path) -> Callable[..., CurateSettings]:
    """Settings for the archive, any of which may be overridden."""

    def make(**changed: object) -> CurateSettings:
        layers = archive / "layers"
        given = {
            "catalog": archive / "catalog",
            "land_cover": layers / "cover.tif",
            "elevation": layers / "heights.tif",
            "regions": layers / "regions.geojson",
            "cell_m": 40,
            "chip_px": 32,
            "workers": 0,
        }
        return CurateSettings.model_validate({**given, **changed})

    return make


@pytest.fixture(scope="session")
def tif() -> Callable[..., Path]:
    """Write an array as GeoTIFF: path, array, west, north; see :func:`write_tif`."""
    return write_tif


class Listener(Progress):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def listener() -> Listener:
    return Listener()


NOT_RESULTS = {"run.log", "stage.lock", "stage.json", "manifest.json"}


@pytest.fixture
def results_of() -> Callable[[Path], dict[str, str]]:
    """Return the SHA-256 of every file of a stage's folder that is a result: hidden folders and what holds times are not."""

    def of(folder: Path) -> dict[str, str]:
        files = [p for p in folder.rglob("*") if p.is_file() and p.name not in NOT_RESULTS]
        named = {p.relative_to(folder).as_posix(): p for p in files}
        return {name: hashlib.sha256(p.read_bytes()).hexdigest() for name, p in named.items() if not name.startswith(".")}

    return of
