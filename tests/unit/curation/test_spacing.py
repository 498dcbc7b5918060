from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod, Transformer

from cgeartheye.curation.spacing import thin


def one_after_another(lon: np.ndarray, lat: np.ndarray, distance_m: float) -> list[bool]:
    x, y, z = Transformer.from_crs("EPSG:4979", "EPSG:4978", always_xy=True).transform(lon, lat, np.zeros(len(lon)))
    points, kept = np.stack([x, y, z], axis=1), np.zeros(len(lon), bool)
    for number, point in enumerate(points):
        kept[number] = not kept.any() or np.linalg.norm(points[kept] - point, axis=1).min() >= distance_m
    return kept.tolist()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    centre=st.sampled_from([(0.0, 0.0), (179.99, 10.0), (20.0, 89.9), (-100.0, -89.95), (10.0, 60.0)]),
    distance_m=st.sampled_from([1500.0, 7000.0, 40_000.0]),
)
def test_thinning_is_that_of_looking_at_one_point_after_another(
    seed: int, centre: tuple[float, float], distance_m: float
) -> None:
    random = np.random.default_rng(seed)
    lat = np.clip(centre[1] + random.normal(0, 0.2, 300), -90, 90)
    spread = 0.2 / max(np.cos(np.radians(centre[1])), 0.002)
    lon = (centre[0] + random.normal(0, spread, 300) + 180) % 360 - 180
    assert thin(lon, lat, distance_m).tolist() == one_after_another(lon, lat, distance_m)


def test_distances_hold_on_the_ground_across_the_antimeridian() -> None:
    random = np.random.default_rng(0)
    lon, lat = (random.uniform(179.5, 180.5, 500) + 180) % 360 - 180, random.uniform(-0.5, 0.5, 500)
    kept = thin(lon, lat, 10_000.0)
    lon, lat = lon[kept], lat[kept]
    first, second = np.triu_indices(len(lon), 1)
    assert Geod(ellps="WGS84").inv(lon[first], lat[first], lon[second], lat[second])[2].min() >= 10_000
    assert 30 < kept.sum() < 500


@pytest.mark.parametrize("n", [0, 1])
def test_few_points(n: int) -> None:
    assert thin(np.zeros(n), np.zeros(n), 5.0).tolist() == [True] * n
