from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageEnhance
from scipy import ndimage

from cgeartheye.curation import curate
from cgeartheye.curation.duplicates import VISITED, Stacked, _through_dropped, mean_directions, visited_leaves
from cgeartheye.errors import DataError
from cgeartheye.metrics.likeness import composed
from cgeartheye.pretraining.card import describe
from cgeartheye.pretraining.places import Places
from cgeartheye.settings.curate import CurateSettings
from cgeartheye.settings.pretrain import PretrainSettings
from cgeartheye.settings.pretrain_sections import SeasonSettings
from cgeartheye.shards.reader import ShardReader
from cgeartheye.stage import read_manifest


def texture(seed: int, side: int = 96) -> Image.Image:
    random = np.random.default_rng(seed)
    fine = ndimage.gaussian_filter(random.normal(size=(side, side, 1)), (1.5, 1.5, 0))
    coarse = ndimage.gaussian_filter(random.normal(size=(side, side, 3)), (8, 8, 0))
    return Image.fromarray(np.clip(110 + 150 * fine + 500 * coarse, 0, 220).astype(np.uint8))


def kept(out: Path) -> set[str]:
    reader = ShardReader(out)
    return {str(reader.dates(i)[0].scene) for i in range(len(reader))}


def reasons(out: Path) -> dict[str, str]:
    table = pq.read_table(out / "rejected.parquet")
    return dict(zip(table["place"].to_pylist(), table["reason"].to_pylist(), strict=True))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    (root / "a").mkdir(parents=True)
    for number in range(12):
        texture(number).save(root / "a" / f"{number:02d}.jpg", quality=95)
    return root


def settings_for(root: Path, **changed: object) -> CurateSettings:
    return CurateSettings.model_validate({"source": "images", "images": root, "workers": 0, **changed})


def recompressed(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "recompressed": lambda image: recompressed(image, 40),
    "halved": lambda image: image.resize((48, 48), Image.Resampling.LANCZOS),
    "brightened": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "turned": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "flipped": lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    "shifted": lambda image: Image.fromarray(np.pad(np.asarray(image), ((2, 0), (2, 0), (0, 0)), "reflect")[:96, :96]),
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_is_dropped_and_the_better_one_kept(pictures: Path, tmp_path: Path, kind: str) -> None:
    whole = kept(curate(settings_for(pictures), tmp_path / "whole"))
    assert len(whole) == 12
    (pictures / "b").mkdir()
    for number in (3, 7):
        COPIES[kind](Image.open(pictures / "a" / f"{number:02d}.jpg")).save(pictures / "b" / f"copy_{number:02d}.jpg", quality=90)
    out = curate(settings_for(pictures), tmp_path / "out")
    left = kept(out)
    assert len(left) == 12
    if kind in {"halved", "recompressed"}:
        assert left == whole  # the copy has fewer pixels, or fewer bytes
    assert {name[-6:] for name in left} == {name[-6:] for name in whole}
    assert read_manifest(out, "curate")["summary"]["funnel"]["near_duplicates"] == 2
    assert sum("near duplicate of" in reason for reason in reasons(out).values()) == 2
    places = pq.read_table(out / "places.parquet")
    assert (len(places), sum(places["kept"].to_pylist())) == (14, 12)


def test_what_follows_from_a_dropped_picture_becomes_a_candidate() -> None:
    edges = np.array([[0, 1, 4], [1, 2, 5], [3, 4, 0]])  # 1 transposed is 0, 2 turned is 1
    further = _through_dropped(edges, np.array([-1, 0, -1, -1, 3]), edges)
    assert further.tolist() == [[0, 2, composed(5, 4)]]
    assert len(_through_dropped(edges, np.array([-1, 0, -1, -1, 3]), np.concatenate([edges, further]))) == 0


def unit_rows(n: int, path: Path) -> tuple[np.ndarray, Stacked]:
    rows = np.random.default_rng(n).normal(size=(n, 6)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.save(path, rows)
    return rows, Stacked.of([path])


def test_a_place_visits_the_clusters_nearest_to_itself(tmp_path: Path) -> None:
    rows, stacked = unit_rows(3000, tmp_path / "rows.npy")
    leaves = np.argmax(rows @ rows[:9].T, axis=1).astype(np.int32)
    means = mean_directions(stacked, np.arange(len(rows)), leaves)
    visited = visited_leaves(stacked, np.arange(len(rows)), leaves, means)
    cosines = rows.astype(np.float64) @ means.T
    cosines[np.arange(len(rows)), leaves] = -np.inf
    found, best = np.take_along_axis(cosines, visited, axis=1), np.sort(cosines, axis=1)[:, : -VISITED - 1 : -1]
    np.testing.assert_allclose(found, best, atol=1e-6)


def test_copies_on_both_sides_of_a_border_visit_one_another(tmp_path: Path) -> None:
    """Each of 40 clusters in six dimensions has many borders, more than its two nearest clusters."""
    n, path = 3000, tmp_path / "rows.npy"
    rows, _ = unit_rows(n, path)
    both = np.concatenate([rows, rows + np.float32(0.01)])
    np.save(path, both / np.linalg.norm(both, axis=1, keepdims=True))
    stacked, centres = Stacked.of([path]), rows[:40]
    for _ in range(4):  # of k-means
        leaves = np.argmax(both @ centres.T, axis=1).astype(np.int32)
        centres = mean_directions(stacked, np.arange(2 * n), leaves)
    visited = visited_leaves(stacked, np.arange(2 * n), leaves, centres)
    apart = np.flatnonzero(leaves[:n] != leaves[n:])
    there = (visited[apart] == leaves[apart + n, None]).any(axis=1)
    back = (visited[apart + n] == leaves[apart, None]).any(axis=1)
    assert len(apart) > 50
    assert np.mean(there | back) > 0.95


@pytest.mark.parametrize("leaves", [1, 2])
def test_few_clusters_have_few_to_visit(tmp_path: Path, leaves: int) -> None:
    rows, stacked = unit_rows(10, tmp_path / "rows.npy")
    labels = (np.arange(10) % leaves).astype(np.int32)
    means = mean_directions(stacked, np.arange(len(rows)), labels)
    visited = visited_leaves(stacked, np.arange(len(rows)), labels, means)
    assert visited.tolist() == [[1 - label] if leaves == 2 else [] for label in labels]


def test_copies_of_the_same_bytes_are_found_even_without_texture(pictures: Path, tmp_path: Path) -> None:
    ramp = np.clip(100 + np.random.default_rng(0).normal(size=(96, 96, 3)) * 3.5, 0, 255)
    Image.fromarray(ramp.astype(np.uint8)).save(pictures / "a" / "flat.jpg", quality=100)
    shutil.copy(pictures / "a" / "flat.jpg", pictures / "a" / "flat_again.jpg")
    shutil.copy(pictures / "a" / "00.jpg", pictures / "a" / "00_again.jpg")
    out = curate(settings_for(pictures), tmp_path / "out")
    assert len(kept(out)) == 13
    assert not any("correlation" in reason for reason in reasons(out).values())
    off = curate(settings_for(pictures, duplicates={"enabled": False}), tmp_path / "off")
    assert len(kept(off)) == 15
    assert "near_duplicates" not in read_manifest(off, "curate")["summary"]["funnel"]


def test_flat_pictures_are_no_near_duplicates(pictures: Path, tmp_path: Path) -> None:
    for number in range(4):
        water = np.clip(60 + np.random.default_rng(number).normal(size=(96, 96, 3)) * 3.3, 0, 255)
        Image.fromarray(water.astype(np.uint8)).save(pictures / "a" / f"water_{number}.jpg", quality=95)
    assert len(kept(curate(settings_for(pictures), tmp_path / "out"))) == 16


def test_the_budget_counts_what_is_left(pictures: Path, tmp_path: Path) -> None:
    for number in range(6):
        shutil.copy(pictures / "a" / f"{number:02d}.jpg", pictures / "a" / f"again_{number:02d}.jpg")
    out = curate(settings_for(pictures, clusters={"keep_share": 0.5}), tmp_path / "out")
    assert len(kept(out)) == 6


def test_copies_change_nothing_of_what_is_kept(pictures: Path, tmp_path: Path) -> None:
    """Clusters are made of what is left; else copies own some of them, and take part of the budget along."""
    chosen = {"clusters": {"levels": [5, 2], "keep_places": 6}}
    plain = kept(curate(settings_for(pictures, **chosen), tmp_path / "plain"))
    for number in range(5):
        image = Image.open(pictures / "a" / f"{number:02d}.jpg")
        for quality in range(40, 80, 4):
            recompressed(image, quality).save(pictures / "a" / f"{number:02d}_{quality}.jpg", quality=quality)
    assert kept(curate(settings_for(pictures, **chosen), tmp_path / "copied")) == plain


@pytest.fixture
def benchmark(tmp_path: Path, pictures: Path) -> Path:
    root = tmp_path / "benchmark"
    (root / "test").mkdir(parents=True)
    for number in (2, 5):
        Image.open(pictures / "a" / f"{number:02d}.jpg").transpose(Image.Transpose.ROTATE_90).save(
            root / "test" / f"{number}.png"
        )
    texture(77).save(root / "test" / "other.png")
    (root / "test" / "broken.png").write_bytes(b"no picture")
    return root


@pytest.mark.parametrize("enabled", [True, False])
def test_what_shows_an_excluded_picture_is_never_drawn(pictures: Path, tmp_path: Path, benchmark: Path, enabled: bool) -> None:
    shutil.copy(pictures / "a" / "02.jpg", pictures / "a" / "again.jpg")
    out = curate(settings_for(pictures, exclude=[benchmark], duplicates={"enabled": enabled}), tmp_path / "out")
    assert kept(out) == {f"a/{number:02d}.jpg" for number in range(12) if number not in {2, 5}}
    summary = read_manifest(out, "curate")["summary"]
    assert summary["excluded"] == {"pictures": 3, "unreadable": 1, "places": 3}
    assert summary["funnel"]["excluded"] == 3
    told = reasons(out)
    assert sum(reason.startswith("excluded: shows") for reason in told.values()) == 3
    reader = ShardReader(out)
    card = describe(reader, Places(reader, SeasonSettings()), PretrainSettings(), {})
    assert card["data"]["excluded"] == summary["excluded"]


def test_excluded_pictures_need_a_folder_of_pictures(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="no picture here"):
        curate(settings_for(pictures, exclude=[tmp_path / "none"]), tmp_path / "out")
    (tmp_path / "area.geojson").write_text("{}")
    with pytest.raises(DataError, match="no place on the ground"):
        curate(settings_for(pictures, exclude=[tmp_path / "area.geojson"]), tmp_path / "out2")


def test_nothing_is_sampled_around_excluded_footprints(
    tmp_path: Path, archive: Path, archive_settings: Callable[..., CurateSettings]
) -> None:
    held = archive / "layers" / "held.geojson"
    by_exclusion = curate(archive_settings(exclude=[held]), tmp_path / "a")
    by_hold_out = curate(archive_settings(hold_out=held), tmp_path / "b")
    names = [{ShardReader(out).place(i) for i in range(len(ShardReader(out)))} for out in (by_exclusion, by_hold_out)]
    assert names[0] == names[1]
    summary = read_manifest(by_exclusion, "curate")["summary"]
    covered, left = (summary["funnel"][name] for name in ("cells_covered", "cells_in_budgets"))
    assert summary["excluded"]["cells"] == summary["funnel"]["cells_excluded"] == covered - left > 0
    assert 0 < len(names[0]) < len(ShardReader(curate(archive_settings(), tmp_path / "c")))


def test_processes_change_nothing(pictures: Path, tmp_path: Path, benchmark: Path) -> None:
    for number in range(6):
        shutil.copy(pictures / "a" / f"{number:02d}.jpg", pictures / "a" / f"again_{number:02d}.jpg")
    small = {"piece_places": 1}  # several pieces
    made = [curate(settings_for(pictures, exclude=[benchmark], workers=n, work=small), tmp_path / str(n)) for n in (0, 2)]
    for name in ("index.parquet", "places.parquet", "rejected.parquet", "shards/000000.tar", "embeddings/000000.npy"):
        assert (made[0] / name).read_bytes() == (made[1] / name).read_bytes()
