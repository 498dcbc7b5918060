"""`configs/pretraining/naip_chips.py` on the four real dates."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rasterio.windows import Window

from cgeartheye.geometry.registration import measure_shift
from cgeartheye.metrics.quality import LUMA
from cgeartheye.rasters.reader import open_raster, read_window
from cgeartheye.shards.reader import ShardReader

pytestmark = pytest.mark.imagery
SCRIPT = Path(__file__).parents[2] / "configs" / "pretraining" / "naip_chips.py"
NAIP = Path("geotiff/opengeos_data/naip")


def test_halves_are_apart_on_the_first_scenes_pixels_and_dates_lie_on_one_another(imagery: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(SCRIPT), "--scenes", str(imagery / NAIP), "--out", str(tmp_path)], check=True)
    train, test = ShardReader(tmp_path / "train"), ShardReader(tmp_path / "test")
    names = [{reader.place(i) for i in range(len(reader))} for reader in (train, test)]
    assert [len(part) for part in names] == [77, 77]
    assert {name[-2:] for name in names[0]} == {f"{c:02d}" for c in range(7)}
    assert {name[-2:] for name in names[1]} == {f"{c:02d}" for c in range(7, 14)}
    assert {tuple(reader.n_dates()) for reader in (train, test)} == {(4,) * 77}
    with open_raster(min((imagery / NAIP).glob("*.tif"))) as raster:
        stored, _ = read_window(raster, Window(19, 9, 64, 64))
    first = train.decode(0, 0)
    assert train.place(0) == "r00_c00"
    assert np.abs(first.astype(int) - stored).mean() < 4  # JPEG alone
    shifts = [_shift(test, place, date) for place in range(0, 77, 8) for date in (1, 2, 3)]
    assert np.median([length for length in shifts if length is not None]) < 0.6


def _shift(reader: ShardReader, place: int, date: int) -> float | None:
    one, other = (reader.decode(place, d) @ LUMA for d in (0, date))
    found = measure_shift(one, other, valid=np.ones(one.shape, bool))
    return found.length_px if found.certain else None
