"""Decoded chips: kept or not, they are the same; a broken one costs itself only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

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
