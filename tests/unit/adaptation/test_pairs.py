from __future__ import annotations

from pathlib import Path

import pytest

from cgeartheye.adaptation.pairs import find_pairs
from cgeartheye.errors import DataError, InputError
from cgeartheye.settings.adapt import Pair


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    return folder


def test_files_are_paired_by_stem_and_the_rest_is_listed(tmp_path: Path) -> None:
    images = touch(tmp_path / "images", "b.JPG", "a.tif", "c.png", "notes.txt", ".hidden.png")
    masks = touch(tmp_path / "masks", "a.png", "b.png", "d.png", "c.jpg")
    found, left_out = find_pairs((Pair(images=images, masks=masks, gsd_m=0.5),))
    assert [(p.image.name, p.mask.name, p.gsd_m) for p in found] == [("a.tif", "a.png", 0.5), ("b.JPG", "b.png", 0.5)]
    assert sorted(Path(item.path).name for item in left_out) == ["c.png", "d.png"]  # a JPEG is no mask


def test_two_files_need_no_common_name(tmp_path: Path) -> None:
    folder = touch(tmp_path / "x", "mosaic.tif", "cover.tif")
    found, left_out = find_pairs((Pair(images=folder / "mosaic.tif", masks=folder / "cover.tif"),) * 2)
    assert [p.name for p in found] == ["0/mosaic", "1/mosaic"]
    assert left_out == []


def test_no_pair_and_no_path_are_errors(tmp_path: Path) -> None:
    images, masks = touch(tmp_path / "images", "a.png"), touch(tmp_path / "masks", "b.png")
    with pytest.raises(DataError, match="same name"):
        find_pairs((Pair(images=images, masks=masks),))
    with pytest.raises(InputError, match="no such file"):
        find_pairs((Pair(images=tmp_path / "nowhere", masks=masks),))
