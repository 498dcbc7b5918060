from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy import ndimage

from cgeartheye.curation import curate
from cgeartheye.curation.pictures import label_of, place_name
from cgeartheye.errors import DataError, InputError
from cgeartheye.seeding import hash_share
from cgeartheye.settings.curate import CurateSettings
from cgeartheye.shards.format import PLACE_PATTERN
from cgeartheye.shards.reader import ShardReader
from cgeartheye.stage import read_manifest


def texture(seed: int, side: int = 64) -> np.ndarray:
    random = np.random.default_rng(seed)
    fine = ndimage.gaussian_filter(random.normal(size=(side, side, 1)), (1, 1, 0))
    coarse = ndimage.gaussian_filter(random.normal(size=(side, side, 3)), (8, 8, 0))
    return np.clip(120 + 150 * fine + 500 * coarse, 0, 254).astype(np.uint8)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    for label in ("forest", "water"):
        (root / label).mkdir(parents=True)
        for i in range(12):
            Image.fromarray(texture(i + 100 * (label == "water"))).save(root / label / f"{label}_{i:03d}.jpg", quality=93)
    return root


def settings_for(root: Path, **changed: object) -> CurateSettings:
    return CurateSettings.model_validate({"source": "images", "images": root, "workers": 0, **changed})


def test_jpegs_are_stored_as_they_are_with_their_folder_as_label(pictures: Path, tmp_path: Path) -> None:
    reader = ShardReader(curate(settings_for(pictures), tmp_path / "out"))
    assert len(reader) == 24
    for i in range(len(reader)):
        (record,) = reader.dates(i)
        path = pictures / str(record.scene)
        assert reader.read(i, 0) == path.read_bytes()
        assert record.label == path.parent.name
        assert (record.date, record.year, record.quarter) == (None, 0, 0)


@pytest.mark.parametrize("part", ["train", "test"])
def test_split_is_the_published_rule(pictures: Path, tmp_path: Path, part: str) -> None:
    out = curate(settings_for(pictures, split={"part": part, "salt": "x"}), tmp_path / "out")
    reader = ShardReader(out)
    names = {str(reader.dates(i)[0].scene) for i in range(len(reader))}
    every = {p.relative_to(pictures).as_posix() for p in pictures.rglob("*.jpg")}
    assert names == {name for name in every if (hash_share(name, "x") < 0.3) == (part == "test")}
    assert 0 < len(names) < 24


def test_the_split_does_not_depend_on_where_the_folder_lies(pictures: Path, tmp_path: Path) -> None:
    above, inside = (
        ShardReader(curate(settings_for(root, split={"part": "test"}), tmp_path / name))
        for root, name in ((pictures.parent / "pictures", "a"), (pictures.parent, "b"))
    )
    names = [{Path(str(r.dates(i)[0].scene)).name for i in range(len(r))} for r in (above, inside)]
    assert names[0] == names[1]


def test_bad_pictures_cost_only_themselves(pictures: Path, tmp_path: Path) -> None:
    (pictures / "forest" / "cut.jpg").write_bytes((pictures / "forest" / "forest_000.jpg").read_bytes()[:700])
    (pictures / "forest" / "text.png").write_bytes(b"no picture")
    Image.new("RGB", (64, 64), (255, 255, 255)).save(pictures / "forest" / "white.png")
    Image.new("RGB", (64, 64), (9, 90, 9)).save(pictures / "forest" / "flat.png")
    Image.fromarray(np.zeros((64, 64), np.uint16)).save(pictures / "forest" / "deep.tif")
    Image.fromarray(texture(5)[:20, :20]).save(pictures / "forest" / "small.png")
    out = curate(settings_for(pictures), tmp_path / "out")
    assert len(ShardReader(out)) == 24
    rejected = dict(
        zip(*(pq.read_table(out / "rejected.parquet")[name].to_pylist() for name in ("scene", "reason")), strict=True)
    )
    words = {
        "cut.jpg": "read",
        "text.png": "read",
        "white.png": "255",
        "flat.png": "empty",
        "deep.tif": "not 8-bit",
        "small.png": "20 x 20",
    }
    assert set(rejected) == {f"forest/{name}" for name in words}
    assert all(word in rejected[f"forest/{name}"] for name, word in words.items())
    funnel = read_manifest(out, "curate")["summary"]["funnel"]
    assert (funnel["found"], funnel["unreadable"], funnel["saturated"], funnel["empty"], funnel["chips"]) == (30, 4, 1, 1, 24)


def _reads(path: Path, save: Callable[[Path], None], tmp_path: Path) -> np.ndarray:
    path.parent.mkdir()
    save(path)
    reader = ShardReader(curate(settings_for(path.parent, jpeg_quality=100, max_px=128), tmp_path / "out"))
    assert reader.dates(0)[0].label is None
    return reader.decode(0, 0)


def test_other_formats_become_upright_rgb(tmp_path: Path) -> None:
    image = texture(1)

    def turned(path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6  # stored turned; upright is a quarter turn clockwise
        Image.fromarray(np.ascontiguousarray(np.rot90(image))).save(path, exif=exif, quality=100, subsampling=0)

    found = _reads(tmp_path / "p" / "turned.jpg", turned, tmp_path)
    assert np.abs(found.astype(int) - image).mean() < 6
    assert np.abs(found.astype(int) - np.rot90(image)).mean() > 12


@pytest.mark.parametrize("mode", ["L", "P", "RGBA"])
def test_modes_of_eight_bits(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(texture(1)).convert(mode)
    found = _reads(tmp_path / "p" / "x.png", picture.save, tmp_path)
    grey = np.array([0.299, 0.587, 0.114])  # the colours of dithered palettes do not survive the halved chroma of a JPEG
    assert np.abs((found - np.asarray(picture.convert("RGB")).astype(float)) @ grey).mean() < 6
    assert (mode == "L") == bool((np.ptp(found, axis=2) < 3).all())


def test_a_transparent_corner_is_no_data(tmp_path: Path) -> None:
    alpha = np.full((64, 64), 255, np.uint8)
    alpha[:8] = 0
    (tmp_path / "p").mkdir()
    Image.fromarray(np.dstack([texture(1), alpha])).save(tmp_path / "p" / "x.png")
    with pytest.raises(DataError, match="no data 1"):
        curate(settings_for(tmp_path / "p"), tmp_path / "out")


def test_large_pictures_shrink_to_the_limit(tmp_path: Path) -> None:
    found = _reads(tmp_path / "p" / "wide.jpg", Image.fromarray(texture(2, 256)[:128]).save, tmp_path)
    assert found.shape == (64, 128, 3)


def test_large_pictures_are_cut_into_squares_of_their_own_pixels(tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    (root / "a").mkdir(parents=True)
    whole = texture(1, 200)[:150]
    Image.fromarray(whole).save(root / "a" / "large.png")
    Image.fromarray(texture(2, 64)).save(root / "a" / "small.png")
    (root / "masks").mkdir()
    Image.fromarray(texture(3, 64)).save(root / "masks" / "large.png")
    out = curate(settings_for(root, cut_px=64, include=["a/*"], jpeg_quality=100), tmp_path / "out")
    reader = ShardReader(out)
    chips = {reader.place(i): reader.decode(i, 0) for i in range(len(reader))}
    assert len(chips) == 2 * 3 + 1
    assert {str(reader.dates(i)[0].scene) for i in range(len(reader))} == {"a/large.png", "a/small.png"}
    corner = next(chip for place, chip in chips.items() if place.startswith("a-large_64_128"))
    assert np.abs(corner.astype(int) - whole[64:128, 128:192]).mean() < 4


def test_nothing_to_read(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no picture here"):
        curate(settings_for(tmp_path / "empty"), tmp_path / "out")
    with pytest.raises(InputError, match="no such file or folder"):
        curate(settings_for(tmp_path / "absent"), tmp_path / "out2")
    with pytest.raises(InputError, match="no folder of pictures"):
        curate(CurateSettings(source="images"), tmp_path / "out3")


def test_names_of_places_are_unique_and_plain() -> None:
    names = ["a/b.jpg", "a/b.png", "a-b.jpg", "x/a/b.jpg", "grün/ä ö.jpg", "a/" + "y" * 200 + ".jpg"]
    made = [place_name(name) for name in names]
    assert len(set(made)) == len(names)
    assert all(PLACE_PATTERN.fullmatch(name) for name in made)
    assert [label_of(name) for name in names[:3]] == ["a", "a", None]


def test_processes_change_nothing(pictures: Path, tmp_path: Path) -> None:
    pieces = {"piece_places": 1}
    made = [curate(settings_for(pictures, workers=n, shard_mb=0.03, work=pieces), tmp_path / str(n)) for n in (0, 2)]
    first, second = (
        {
            p.relative_to(out): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in out.rglob("*.*")
            if p.suffix in {".tar", ".parquet", ".npy"}
        }
        for out in made
    )
    assert first == second
    assert len(first) > 6


def test_stored_bytes_are_what_pillow_opens(pictures: Path, tmp_path: Path) -> None:
    Image.fromarray(texture(50)).save(pictures / "forest" / "new.png")
    out = curate(settings_for(pictures), tmp_path / "out")
    reader = ShardReader(out)
    (at,) = [i for i in range(len(reader)) if reader.place(i).startswith("forest-new")]
    with Image.open(io.BytesIO(reader.read(at, 0))) as stored:
        assert (stored.format, stored.mode, stored.size) == ("JPEG", "RGB", (64, 64))
