from __future__ import annotations

import itertools

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from cgeartheye.errors import ShapeError
from cgeartheye.geometry.overlap import overlapping_squares

DEGREE_M = 111_195.0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.floats(-70, 70), st.floats(-179, 179), st.sampled_from([0.2, 0.5, 0.9]))
def test_pairs_are_those_of_boxes_on_a_plane(seed: int, lat0: float, lon0: float, share: float) -> None:
    random = np.random.default_rng(seed)
    x, y = random.uniform(0, 3000, (2, 40))
    side = random.uniform(300, 900, 40)
    lat = lat0 + y / DEGREE_M
    lon = lon0 + x / DEGREE_M / np.cos(np.radians(lat0))
    boxes = [shapely.box(a - s / 2, b - s / 2, a + s / 2, b + s / 2) for a, b, s in zip(x, y, side, strict=True)]
    parts = {
        (i, j): boxes[i].intersection(boxes[j]).area / min(boxes[i].area, boxes[j].area)
        for i, j in itertools.combinations(range(40), 2)
    }
    found = set(map(tuple, overlapping_squares(lon, lat, side, share).tolist()))
    margin = 0.01  # the plane is taken at another latitude
    assert {pair for pair, part in parts.items() if part >= share + margin} <= found
    assert found <= {pair for pair, part in parts.items() if part >= share - margin}


def test_squares_meet_across_the_antimeridian() -> None:
    lon, lat = np.array([179.999, -179.999, 179.9, 0.0]), np.full(4, -18.0)
    assert overlapping_squares(lon, lat, np.full(4, 500.0), 0.5).tolist() == [[0, 1]]
    assert overlapping_squares(lon, lat, np.full(4, 100.0), 0.5).tolist() == []


def test_a_grid_of_cells_has_no_pairs() -> None:
    lat, lon = (axis.ravel() for axis in np.meshgrid(np.arange(40) * 0.009, np.arange(40) * 0.009))
    assert len(overlapping_squares(lon, lat, np.full(1600, 504.0), 0.5)) == 0


def test_shapes() -> None:
    assert overlapping_squares(np.empty(0), np.empty(0), np.empty(0), 0.5).shape == (0, 2)
    with pytest.raises(ShapeError):
        overlapping_squares(np.zeros(2), np.zeros(3), np.zeros(2), 0.5)
