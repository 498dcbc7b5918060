"""Decoded chips: kept or not, they are the same; a broken one costs itself only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cgeartheye.errors import DataError
from cgeartheye.pretraining.chips import Chips
from cgeartheye.shards.reader import ShardReader

Maker = Callable[..., Path]


def chips_of(folder: Path, *, cache_mb: int = 100, shrink_px: int | None = None) -> Chips:
    reader = ShardReader(folder)
    rows = np.repeat(np.arange(len(reader)), reader.n_dates())
    return Chips(reader, rows, shrink_px=shrink_px, cache_mb=cache_mb, decoders=2)


def test_kept_and_decoded_again_are_the_same(curated: Path) -> None:
    kept, fresh = chips_of(curated), chips_of(curated, cache_mb=0)
    assert kept.keeps
    assert not fresh.keeps
    rows = np.array([3, 30, 3, 0])
    for _ in range(2):
        a, b = kept.get(rows), fresh.get(rows)
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], [[32, 32]] * 4)
    expected = ShardReader(curated).decode(0, 3).transpose(2, 0, 1)
    np.testing.assert_array_equal(a[0][0], expected)
    kept.close()
    fresh.close()


def test_chips_of_several_sizes_are_padded_and_shrunk(shards: Maker, place: Callable[..., object]) -> None:
    folder = shards([place("big", (1,), side=64), place("small", (1,), side=24)])
    chips = chips_of(folder, shrink_px=32)
    pixels, sizes = chips.get(np.array([0, 1]))
    assert pixels.shape == (2, 3, 32, 32)
    np.testing.assert_array_equal(sizes, [[32, 32], [24, 24]])
    assert not pixels[1, :, 24:].any()
    original = ShardReader(folder).decode(0, 0).astype(float)
    halved = original.reshape(32, 2, 32, 2, 3).mean((1, 3)).transpose(2, 0, 1)
    assert np.abs(pixels[0] - halved).mean() < 2  # bicubic against a box, smooth picture
    chips.close()


def test_a_broken_chip_is_left_out_and_the_next_takes_its_turn(curated: Path) -> None:
    index = ShardReader(curated).dates(0)[1]
    tar = curated / "shards" / index.shard
    data = bytearray(tar.read_bytes())
    data[index.offset + 50] ^= 255
    tar.write_bytes(bytes(data))
    chips = chips_of(curated)
    pixels, _ = chips.get(np.array([1, 2]))
    np.testing.assert_array_equal(pixels[0], pixels[1])
    assert list(chips.left_out) == [1]
    assert "checksum" in chips.left_out[1]
    chips.close()


def test_nothing_but_broken_chips(curated: Path) -> None:
    tar = next((curated / "shards").iterdir())
    tar.write_bytes(bytes(len(tar.read_bytes())))
    chips = chips_of(curated)
    with pytest.raises(DataError, match="no chip"):
        chips.get(np.array([0]))
    chips.close()


def test_a_vanished_shard_is_told_once(shards: Maker, place: Callable[..., object], caplog: pytest.LogCaptureFixture) -> None:
    folder = shards([place("a", (1, 2, 3, 4), side=32), place("b", (1, 2), side=32)])
    reader = ShardReader(folder)
    record = reader.dates(1)[0]
    other = folder / "shards" / "000001.tar"
    other.write_bytes((folder / "shards" / record.shard).read_bytes())
    table = pq.read_table(folder / "index.parquet")
    names = pa.array([name.as_py() if row < 4 else other.name for row, name in enumerate(table["shard"])])
    pq.write_table(table.set_column(table.column_names.index("shard"), "shard", names), folder / "index.parquet")
    chips = chips_of(folder)
    (folder / "shards" / record.shard).unlink()
    pictures = chips.fetch(np.arange(6))
    assert [picture.row for picture in pictures] == [4, 4, 4, 4, 4, 5]
    assert sorted(chips.left_out) == [0, 1, 2, 3]
    assert all("missing" in reason for reason in chips.left_out.values())
    assert len(caplog.records) == 1
    assert record.shard in caplog.text
    chips.close()


def test_a_truncated_member_and_a_failing_disk(curated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chips = chips_of(curated)
    read = ShardReader.read_row

    def failing(self: ShardReader, row: int) -> bytes:
        if row == 0:
            raise OSError(5, "Input/output error")
        return read(self, row)[:200] if row == 1 else read(self, row)

    monkeypatch.setattr(ShardReader, "read_row", failing)
    assert [picture.row for picture in chips.fetch(np.array([0, 1, 2]))] == [2, 2, 2]
    assert "Input/output error" in chips.left_out[0]
    assert "cannot be decoded" in chips.left_out[1]
    chips.close()


def test_smaller_versions_are_kept_apart(shards: Maker, place: Callable[..., object]) -> None:
    folder = shards([place("a", (1,), side=65)])
    for cache_mb in (0, 10):
        chips = chips_of(folder, cache_mb=cache_mb)
        rows, divisors = np.zeros(4, dtype=np.int64), np.array([1, 2, 4, 8])
        for _ in range(2):
            found = chips.fetch(rows, divisors)
            assert [picture.pixels.shape[0] for picture in found] == [65, 33, 17, 9]
            assert {picture.full for picture in found} == {(65, 65)}
        means = np.array([picture.pixels.mean((0, 1)) for picture in found])
        assert np.abs(means - means[0]).max() < 4
        chips.close()


def test_the_size_to_decode_at_leaves_what_is_needed(shards: Maker, place: Callable[..., object]) -> None:
    sizes = {"width": [None], "height": [None]}
    folder = shards([place("a", (1,), side=64), place("b", (1,), side=64, **sizes)])
    chips, rows = chips_of(folder), np.array([0, 0, 0, 0, 0])
    cut = np.array([64, 40, 39, 20, 64])
    np.testing.assert_array_equal(chips.divisors(rows, cut, least_px=10), [4, 4, 2, 2, 4])
    assert chips.sizes(np.array([0, 1])).tolist() == [[64, 64], [1, 1]]
    shrunk = chips_of(folder, shrink_px=16)
    np.testing.assert_array_equal(shrunk.divisors(rows, cut, least_px=2), 1)  # it is decoded at a smaller size anyway
    assert [shrunk._decoded_at(row, 1) for row in (0, 1)] == [2, 1]
    assert [picture.full for picture in shrunk.fetch(np.array([0, 1]))] == [(16, 16)] * 2
    chips.close()
    shrunk.close()


def test_shrinking_from_a_smaller_version_shows_the_same(shards: Maker, place: Callable[..., object]) -> None:
    """Within 1.5 of 255 in the mean of shrinking the whole picture."""
    folder = shards([place("a", (1, 2), side=200)])
    chips = chips_of(folder, shrink_px=40)
    assert chips._decoded_at(0, 1) == 2
    found, _ = chips.get(np.array([0, 1]))
    for row, pixels in enumerate(found):
        whole = Image.fromarray(ShardReader(folder).decode_row(row)).resize((40, 40), Image.Resampling.BICUBIC)
        assert np.abs(pixels.transpose(1, 2, 0).astype(float) - np.asarray(whole)).mean() < 1.5
    chips.close()
