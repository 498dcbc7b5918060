"""Pan-sharpening on the QuickBird files of Toulouse.

Their PAN and XS crops show different ground (nowhere do they correlate), so quality is measured by Wald's protocol
on the real XS bands, and the chain of files on a stated, synthetic georeference.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from cgeartheye.catalog import catalog
from cgeartheye.rasters.scenes import read_scenes
from cgeartheye.settings.catalog import CatalogSettings
from cgeartheye.transforms.pansharpen import Placement, pansharpen

pytestmark = pytest.mark.imagery
PRODUCT = "JL1GF03D13_PMS_20230101073000_200097070_101_0017_001_L3D"
PLACE = Affine(0.6, 0, 370_000, 0, -0.6, 4_835_000)


@pytest.fixture(scope="module")
def toulouse(imagery: Path) -> tuple[np.ndarray, np.ndarray]:
    folder = imagery / "geotiff/OTB/Examples/Data"
    with rasterio.open(folder / "QB_Toulouse_Ortho_PAN.tif") as pan, rasterio.open(folder / "QB_Toulouse_Ortho_XS.tif") as bands:
        return pan.read(1), bands.read()


def halved(values: np.ndarray, n: int = 4) -> np.ndarray:
    height, width = values.shape[-2:]
    return values.reshape(*values.shape[:-2], height // n, n, width // n, n).mean(axis=(-3, -1))


def ergas(made: np.ndarray, truth: np.ndarray) -> float:
    """Wald 2000: relative error in per cent of the mean, of all bands together, for a ratio of 4."""
    errors = [np.mean((m - t) ** 2) / t.mean() ** 2 for m, t in zip(made, truth, strict=True)]
    return float(100 / 4 * np.sqrt(np.mean(errors)))


def test_degraded_bands_come_back_better_than_by_interpolation(toulouse: tuple[np.ndarray, np.ndarray]) -> None:
    truth = toulouse[1].astype(np.float64)
    pan = truth.mean(axis=0)  # a panchromatic band that sees all four
    low, placement = halved(truth), Placement(0.25, 0, 0.25, 0)
    everywhere = {"pan_valid": np.ones(pan.shape, bool), "bands_valid": np.ones(low.shape[1:], bool)}
    sharp, valid = pansharpen(pan, low, placement, **everywhere)
    smooth, _ = pansharpen(np.ones_like(pan), low, placement, **everywhere)
    assert valid.all()
    assert ergas(sharp, truth) < 0.6 * ergas(smooth, truth)
    brovey = smooth * (pan / smooth.mean(axis=0))  # GDAL's weighted Brovey with equal weights
    assert ergas(sharp, truth) < 1.3 * ergas(brovey, truth)


def test_two_files_become_one_scene(toulouse: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    pan, bands = toulouse[0], toulouse[1][:, :125, :125]
    files = {"PAN": (pan[None], PLACE), "MSS": (bands, PLACE @ Affine.scale(4))}
    for kind, (values, transform) in files.items():
        path = tmp_path / "a" / f"{PRODUCT}_{kind}.tif"
        path.parent.mkdir(exist_ok=True)
        with rasterio.open(
            path, "w", driver="GTiff", count=len(values), height=values.shape[1], width=values.shape[2], dtype="uint16",
            crs="EPSG:32631", transform=transform,
        ) as file:  # fmt: skip
            file.write(values.astype(np.uint16))
    (scene,) = read_scenes(catalog(CatalogSettings(scenes=(tmp_path / "a",)), tmp_path / "catalog") / "catalog.parquet")
    with rasterio.open(scene.path) as file:
        made = file.read().astype(float)
    assert scene.gsd_m == pytest.approx(0.6) and made.shape == (4, 500, 500) and scene.rgb_bands == (1, 2, 3)
    np.testing.assert_allclose(halved(made).mean(axis=(1, 2)), bands[[2, 1, 0, 3]].mean(axis=(1, 2)), rtol=0.02)
    fine = made.mean(axis=0) - np.kron(halved(made.mean(axis=0)), np.ones((4, 4)))
    detail = pan - np.kron(halved(pan.astype(float)), np.ones((4, 4)))
    assert np.corrcoef(fine.ravel(), detail.ravel())[0, 1] > 0.7
