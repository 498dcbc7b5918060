"""Decoded chips: kept in memory when all of them fit, else decoded by threads one microbatch ahead."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cgeartheye.errors import DataError
from cgeartheye.shards.reader import ShardReader
from cgeartheye.units import BYTES_PER_MB

_LOG = logging.getLogger(__name__)

DIVISORS: Final = (8, 4, 2, 1)
"""Sizes at which a JPEG can be decoded, as shares of its sides."""
GAP: Final = 2.0
"""A chip is shrunk from a version at least this many times as large [as Pillow's thumbnails; measured: performance/loader.py]."""
_ALL_VERSIONS: Final = 4 / 3  # 1 + 1/4 + 1/16 + 1/64 of a chip's pixels


class Picture(NamedTuple):
    """A decoded chip."""

    pixels: NDArray[np.uint8]
    """(h, w, 3) RGB; channels are last, as decoders leave them and resizing on a CPU wants them."""
    full: tuple[int, int]
    """Height and width of the chip itself; larger than h and w if it was decoded at a smaller size."""
    row: int
    """The row of the index it really is: another one than was asked for if that one is left out."""


class Chips:
    """Rows of a shard index as decoded pictures.

    Args:
        reader: the shards.
        place_of_row: (chips,) int64 place of every row.
        shrink_px: chips with a longer shorter side are shrunk to it; None leaves them as stored.
        cache_mb: memory that decoded chips may take; if they need more, none are kept.
        decoders: threads.
    """

    def __init__(
        self, reader: ShardReader, place_of_row: NDArray[np.int64], *, shrink_px: int | None, cache_mb: int, decoders: int
    ) -> None:
        self._reader, self._shrink_px = reader, shrink_px
        self._count = len(place_of_row)
        self._stored = _stored_sizes(reader)
        self._kept: dict[tuple[int, int], Picture] = {}
        self._coming: dict[tuple[int, int], Future[Picture]] = {}
        self._pool = ThreadPoolExecutor(max_workers=decoders, thread_name_prefix="decode")
        self._lock, self._warned = threading.Lock(), set[str]()
        self.left_out: dict[int, str] = {}
        self.waited = 0.0
        """Seconds that :meth:`fetch` has waited for the threads."""
        self.keeps = decoded_bytes(reader, shrink_px) <= cache_mb * BYTES_PER_MB

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)

    def get(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return pictures of index rows (R,) int64 at full size, as :func:`padded` does."""
        return padded(self.fetch(rows))

    def fetch(self, rows: NDArray[np.int64], divisors: NDArray[np.int64] | None = None) -> list[Picture]:
        """Return pictures of index rows, decoding what was not asked for before.

        Args:
            rows: (R,) int64.
            divisors: (R,) int64 in 1, 2, 4, 8: decode at this share of the sides; None: all at full size.

        Raises:
            DataError: if no chip at all can be decoded.
        """
        keys = _keys(rows, divisors)
        self._ask(keys)
        before = time.monotonic()
        pictures = [self._kept[key] if key in self._kept else self._coming[key].result() for key in keys]
        self.waited += time.monotonic() - before
        if self.keeps:
            self._kept.update(zip(keys, pictures, strict=True))
        for key in keys:
            self._coming.pop(key, None)
        return pictures

    def ask(self, rows: NDArray[np.int64], divisors: NDArray[np.int64] | None = None) -> None:
        """Begin to decode rows (n,) int64 that will be wanted soon, with the divisors (n,) that will be asked for."""
        self._ask(_keys(rows, divisors))

    def divisors(self, rows: NDArray[np.int64], cut_px: NDArray[np.int64], *, least_px: float) -> NDArray[np.int64]:
        """Choose at which size to decode chips of which only a large cut is wanted, from the index alone.

        Args:
            rows: (R,) int64.
            cut_px: (R,) int64, shorter side of the cut in pixels of the chip as the index knows it.
            least_px: pixels that the cut's shorter side keeps at least.

        Returns:
            (R,) int64, the largest of 1, 2, 4, 8 that leaves so many pixels; 1 for chips that are shrunk anyway.
        """
        shrunk = np.zeros(len(rows), dtype=bool) if self._shrink_px is None else self._stored[rows].min(1) > self._shrink_px
        room = np.where(shrunk, 0, cut_px) / least_px
        chosen: NDArray[np.int64] = np.select([room >= divisor for divisor in DIVISORS], DIVISORS, 1).astype(np.int64)
        return chosen

    def sizes(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return heights and widths (R, 2) int64 of rows (R,) as the index knows them, 1 x 1 where it does not."""
        return np.nan_to_num(self._stored[rows], nan=1.0).astype(np.int64)

    def _ask(self, keys: list[tuple[int, int]]) -> None:
        wanted = [key for key in keys if key not in self._kept and key not in self._coming]
        wanted.sort()  # the dates of a place one after the other: one request where they lie far away, one piece of a disk
        if wanted:
            self._pool.submit(self._reader.expect, [row for row, _ in wanted])  # by a thread: a disk's full queue lets one wait
        for key in wanted:
            if key not in self._coming:
                self._coming[key] = self._pool.submit(self._decode_or_next, *key)

    def _decode_or_next(self, row: int, divisor: int) -> Picture:
        """Decode a row; one that is broken is left out for good and the next sound one takes its turn."""
        for step in range(self._count):
            candidate = (row + step) % self._count
            if candidate in self.left_out:
                continue
            try:
                return self._decode(candidate, divisor)
            except DataError as error:
                self._leave_out(candidate, error.what)
            except OSError as error:  # a disk or a network file system that fails while it reads
                self._leave_out(candidate, f"cannot be read ({error})")
        raise DataError("no chip can be decoded", where=str(self._reader.folder), remedy="curate again")

    def _leave_out(self, row: int, reason: str) -> None:
        """Note a row as left out; the first of a shard is also told, as a vanished shard would flood the log."""
        shard = self._reader.shard_of(row)
        with self._lock:
            first = shard not in self._warned
            self._warned.add(shard)
            self.left_out[row] = reason
        if first:
            _LOG.warning("left out: %s: %s; further chips of this shard are left out silently", shard, reason)

    def _decode(self, row: int, divisor: int) -> Picture:
        divisor = self._decoded_at(row, divisor)
        pixels = self._reader.decode_row(row, divisor=divisor)
        height, width = pixels.shape[:2] if divisor == 1 else self._stored[row].astype(int).tolist()
        if self._shrink_px and min(height, width) > self._shrink_px:
            factor = min(height, width) / self._shrink_px
            height, width = round(height / factor), round(width / factor)
            pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))
        return Picture(pixels, (height, width), row)

    def _decoded_at(self, row: int, asked: int) -> int:
        """Return the divisor to decode a row with: what shrinking leaves room for, else what was asked for."""
        shorter = self._stored[row].min()
        if np.isnan(shorter):
            return 1
        if self._shrink_px and shorter > self._shrink_px:
            return next(divisor for divisor in DIVISORS if divisor == 1 or shorter >= GAP * self._shrink_px * divisor)
        return asked


def decoded_bytes(reader: ShardReader, shrink_px: int | None) -> float:
    """Estimate the memory of all decoded chips from the index, at every size that may be asked for; infinite if it is unknown."""
    height, width = _stored_sizes(reader).T
    if shrink_px:
        factor = np.maximum(np.fmin(width, height) / shrink_px, 1)
        width, height = width / factor, height / factor
    return _ALL_VERSIONS * float(np.where(np.isnan(width * height), np.inf, 3 * width * height).sum())


def padded(pictures: list[Picture]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Stack pictures.

    Returns:
        (R, 3, H, W) uint8, smaller ones padded at the bottom and right with 0, channels last in memory, and (R, 2) int64 heights
        and widths of what was decoded.
    """
    sizes = np.array([picture.pixels.shape[:2] for picture in pictures], dtype=np.int64).reshape(-1, 2)
    height, width = sizes.max(0, initial=1)
    same = len(sizes) > 0 and bool((sizes == (height, width)).all())
    canvas = (np.empty if same else np.zeros)((len(pictures), height, width, 3), dtype=np.uint8)
    for place, picture in zip(canvas, pictures, strict=True):
        place[: picture.pixels.shape[0], : picture.pixels.shape[1]] = picture.pixels
    return canvas.transpose(0, 3, 1, 2), sizes


def _keys(rows: NDArray[np.int64], divisors: NDArray[np.int64] | None) -> list[tuple[int, int]]:
    return list(zip(rows.tolist(), [1] * len(rows) if divisors is None else divisors.tolist(), strict=True))


def _stored_sizes(reader: ShardReader) -> NDArray[np.float64]:
    """Return heights and widths (chips, 2) of the index, NaN where it does not know them."""
    table = reader.table(["height", "width"])
    columns = [table[name].to_numpy(zero_copy_only=False).astype(np.float64) for name in ("height", "width")]
    sizes: NDArray[np.float64] = np.stack(columns, axis=1)
    return sizes
