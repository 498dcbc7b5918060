"""The counts and pictures that the report shows, against the tables they come from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from cgeartheye.curation import curate
from cgeartheye.reporting import report
from cgeartheye.settings.curate import CurateSettings
from cgeartheye.settings.report import ReportSettings
from cgeartheye.shards.reader import ShardReader, decode_chip

Make = Callable[..., CurateSettings]


@pytest.fixture(scope="module")
def curated(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    layers = archive / "layers"
    given = {"land_cover": layers / "cover.tif", "elevation": layers / "heights.tif", "regions": layers / "regions.geojson"}
    settings = CurateSettings.model_validate(
        {
            **given,
            "catalog": archive / "catalog",
            "cell_m": 40,
            "chip_px": 32,
            "places": 60,
            "workers": 0,
            "clusters": {"levels": [7, 2], "keep_places": 35},
        }
    )
    return curate(settings, tmp_path_factory.mktemp("balance") / "out")


def _measure(curated: Path, name: str) -> pd.DataFrame:
    table = pq.read_table(curated / "balance.parquet").to_pandas()
    return table[table["measure"] == name].set_index("name")


@pytest.mark.parametrize("name", ["land_cover", "region", "stratum", "elevation_bin"])
def test_every_step_is_counted_as_its_table_has_it(curated: Path, name: str) -> None:
    cells = pq.read_table(curated / "cells.parquet").to_pandas()
    places = gpd.read_parquet(curated / "places.parquet")
    places = places.drop(columns=[name], errors="ignore").merge(cells[["cell", name]], on="cell")
    found = _measure(curated, name)
    for step, expected in (
        ("available", cells[name]),
        ("drawn", cells.loc[cells["drawn"], name]),
        ("good", places[name]),
        ("kept", places.loc[places["kept"], name]),
    ):
        counted = found[step][found[step] > 0].astype(int).to_dict()
        assert counted == expected.value_counts().to_dict()


def test_elevation_bins_have_their_edges(curated: Path) -> None:
    found = _measure(curated, "elevation_bin")
    cells = pq.read_table(curated / "cells.parquet").to_pandas()
    for name, row in found.iterrows():
        inside = cells.loc[cells["elevation_bin"] == name, "elevation_m"]
        assert row["low"] <= inside.min()
        assert inside.max() < row["high"]


def test_seasons_and_quality_are_those_of_the_chips(curated: Path) -> None:
    kept = pq.read_table(curated / "index.parquet").to_pandas()
    seasons = kept.groupby("place")["quarter"].nunique().value_counts()
    assert _measure(curated, "seasons")["kept"].to_dict() == {str(n): int(count) for n, count in seasons.items()}
    found = _measure(curated, "q_std")
    edges = [*found["low"], found["high"].iloc[-1]]
    assert found["kept"].tolist() == np.histogram(kept["q_std"], bins=edges)[0].tolist()
    assert found["good"].sum() > found["kept"].sum() == len(kept)


def test_the_gallery_shows_both_ends_and_what_was_dropped(curated: Path) -> None:
    gallery = pq.read_table(curated / "gallery.parquet").to_pandas()
    places = gpd.read_parquet(curated / "places.parquet").set_index("place")
    sizes = places["cluster"].value_counts()
    assert set(gallery["group"]) == {"largest", "smallest", "dropped"}
    assert (gallery["size"] == gallery["cluster"].map(sizes)).all()
    assert (gallery["kept"] == gallery["place"].map(places["kept"])).all()
    ends = gallery.groupby("group")["size"]
    assert ends.min()["largest"] >= ends.max()["smallest"]
    assert ends.max()["largest"] == sizes.max()
    dropped = gallery[gallery["group"] == "dropped"]
    assert len(dropped) == min(24, (~places["kept"]).sum())
    reader = ShardReader(curated)
    names = {reader.place(i): i for i in range(len(reader))}
    shown = gallery[gallery["kept"]].iloc[0]
    small = decode_chip(shown["jpeg"]).astype(float)
    assert np.abs(small - reader.decode(names[shown["place"]], 0)).mean() < 12  # 32 px: not shrunk, coded twice


def test_the_report_shows_all_of_it(curated: Path, tmp_path: Path) -> None:
    page = (report(ReportSettings(curated=curated), tmp_path / "report") / "report.html").read_text()
    for words in (
        "Places by stratum",
        "Kept and dropped places",
        "Land cover before and after",
        "Elevation before and after",
        "Regions before and after",
        "Seasons of a place before and after",
        "Quality: contrast",
        "Balance in numbers",
        "The largest clusters",
        "The smallest clusters",
        "Dropped places",
        "published alpha",
    ):
        assert words in page
    assert "Left out" not in page.split('id="curation"', 1)[1].split("<section", 1)[0].replace("Left out: all chips have", "")
