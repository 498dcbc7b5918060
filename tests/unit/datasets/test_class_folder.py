from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cgeartheye.datasets.folder import read_class_folder, read_picture
from cgeartheye.errors import DataError, InputError
from cgeartheye.seeding import hash_share


def picture(path: Path, seed: int, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 9, 3), dtype=np.uint8)).convert(mode).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number, (name, suffix) in enumerate(
        [(c, s) for c in ("water", "Forest", "city") for s in ("png", "jpg", "TIF", "tiff")] * 5
    ):
        picture(tmp_path / name / f"{number:03d}.{suffix}", number)
    (tmp_path / "water" / "notes.txt").write_text("no picture")
    (tmp_path / ".cache").mkdir()
    return tmp_path


def test_hash_split_is_fixed_by_name_and_salt(root: Path) -> None:
    found = read_class_folder(root, split="hash", test_share=0.4, salt="s")
    assert found.classes == ("Forest", "city", "water")
    assert len(found.train) + len(found.test) == 60
    assert {r.name for r in found.test} == {
        f"{p.parent.name}/{p.name}"
        for p in root.glob("*/*.*")
        if p.suffix != ".txt" and hash_share(f"{p.parent.name}/{p.name}", "s") < 0.4
    }
    assert all(found.classes[r.label] == r.path.parent.name for r in found.train + found.test)
    for extra in range(10):
        picture(root / "water" / f"later{extra}.png", 1000 + extra)
    again = read_class_folder(root, split="hash", test_share=0.4, salt="s")
    assert set(found.test) <= set(again.test)
    assert set(found.train) <= set(again.train)
    assert {r.name for r in read_class_folder(root, split="hash", test_share=0.4, salt="t").test} != {r.name for r in again.test}


def test_bad_pictures_are_left_out_and_listed(root: Path) -> None:
    cut = (root / "city" / "009.jpg").read_bytes()
    (root / "city" / "009.jpg").write_bytes(cut[: len(cut) // 2])
    (root / "city" / "empty.png").write_bytes(b"")
    (root / "city" / "other.png").write_bytes(b"GIF89a")
    Image.fromarray(np.full((4, 4), 4000, np.uint16)).save(root / "city" / "deep.png")
    found = read_class_folder(root, split="hash")
    reasons = {entry.name: entry.reason for entry in found.left_out}
    assert set(reasons) == {"city/009.jpg", "city/empty.png", "city/other.png", "city/deep.png"}
    assert "8 bits" in reasons["city/deep.png"]
    assert "truncated" in reasons["city/009.jpg"].lower()
    assert len(found.train) + len(found.test) == 59


def test_pictures_of_the_test_part_leave_the_bank(tmp_path: Path) -> None:
    for number in range(6):
        for part in ("train", "test"):
            picture(tmp_path / part / ("a" if number % 2 else "b") / f"{part}{number}.png", number + 100 * (part == "test"))
    shutil.copy(tmp_path / "test" / "a" / "test1.png", tmp_path / "train" / "a" / "copy.png")
    Image.open(tmp_path / "test" / "b" / "test2.png").save(tmp_path / "train" / "b" / "recoded.tif")
    found = read_class_folder(tmp_path, split="folders")
    assert found.duplicates == 2
    assert len(found.train) == len(found.test) == 6
    assert {r.path.parent.parent.name for r in found.test} == {"test"}


@pytest.mark.parametrize(("mode", "suffix"), [("L", "png"), ("P", "png"), ("RGBA", "png"), ("CMYK", "jpg"), ("1", "png")])
def test_every_eight_bit_mode_becomes_rgb(tmp_path: Path, mode: str, suffix: str) -> None:
    picture(tmp_path / f"x.{suffix}", 0, mode)
    pixels = read_picture(tmp_path / f"x.{suffix}")
    assert pixels.shape == (8, 9, 3)
    assert pixels.dtype == np.uint8


def test_wrong_layouts_are_named(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(InputError, match="nowhere"):
        read_class_folder(root / "nowhere", split="hash")
    with pytest.raises(InputError, match="train"):
        read_class_folder(root, split="folders")
    with pytest.raises(DataError, match="two classes"):
        read_class_folder(tmp_path_factory.mktemp("empty"), split="hash")
    with pytest.raises(DataError, match="no test picture"):
        read_class_folder(root, split="hash", test_share=1e-9)
    lonely = tmp_path_factory.mktemp("lonely")
    for part, names in (("train", "ab"), ("test", "ac")):
        for name in names:
            picture(lonely / part / name / f"{part}.png", ord(name) + 9 * len(part))
    with pytest.raises(DataError, match="learn from: c"):
        read_class_folder(lonely, split="folders")
