"""Decoded chips: kept in memory when all of them fit, else decoded by threads one batch ahead."""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cgeartheye.errors import DataError
from cgeartheye.shards.reader import ShardReader
from cgeartheye.units import BYTES_PER_MB

_LOG = logging.getLogger(__name__)
Picture = NDArray[np.uint8]


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
        self._reader, self._place_of_row = reader, place_of_row
        self._starts = reader.starts()
        self._shrink_px = shrink_px
        self._kept: dict[int, Picture] = {}
        self._coming: dict[int, Future[Picture]] = {}
        self._pool = ThreadPoolExecutor(max_workers=decoders, thread_name_prefix="decode")
        self.left_out: dict[int, str] = {}
        self.keeps = self._bytes() <= cache_mb * BYTES_PER_MB

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)

    def get(self, rows: NDArray[np.int64]) -> tuple[Picture, NDArray[np.int64]]:
        """Return pictures of index rows.

        Args:
            rows: (R,) int64.

        Returns:
            (R, 3, H, W) uint8, smaller ones padded at the bottom and right with 0, and (R, 2) int64 heights and widths.
        """
        self.ask(rows)
        pictures = [self._kept[row] if row in self._kept else self._coming[row].result() for row in rows.tolist()]
        if self.keeps:
            self._kept.update(zip(rows.tolist(), pictures, strict=True))
        for row in rows.tolist():
            self._coming.pop(row, None)
        sizes = np.array([picture.shape[1:] for picture in pictures], dtype=np.int64)
        H, W = sizes.max(0)
        if (sizes == (H, W)).all():
            return np.stack(pictures), sizes
        canvas = np.zeros((len(pictures), 3, H, W), dtype=np.uint8)
        for place, picture in zip(canvas, pictures, strict=True):
            place[:, : picture.shape[1], : picture.shape[2]] = picture
        return canvas, sizes

    def ask(self, rows: NDArray[np.int64]) -> None:
        """Begin to decode rows (n,) int64 of the index that will be wanted soon."""
        for row in rows.tolist():
            if row not in self._kept and row not in self._coming:
                self._coming[row] = self._pool.submit(self._decode_or_next, row)

    def _decode_or_next(self, row: int) -> Picture:
        """Decode a row; one that is broken is left out for good and the next sound one takes its turn."""
        for step in range(len(self._place_of_row)):
            candidate = (row + step) % len(self._place_of_row)
            try:
                return self._decode(candidate)
            except DataError as error:
                if candidate not in self.left_out:
                    _LOG.warning("left out: %s", error)
                self.left_out[candidate] = error.what
        raise DataError("no chip can be decoded", where=str(self._reader.folder), remedy="curate again")

    def _decode(self, row: int) -> Picture:
        place = int(self._place_of_row[row])
        picture = self._reader.decode(place, row - int(self._starts[place]))
        factor = min(picture.shape[:2]) / self._shrink_px if self._shrink_px else 1.0
        if factor > 1:
            size = (round(picture.shape[1] / factor), round(picture.shape[0] / factor))
            picture = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))
        return np.ascontiguousarray(picture.transpose(2, 0, 1))

    def _bytes(self) -> float:
        """Estimate the memory of all decoded chips from the index."""
        table = self._reader.table(["width", "height"])
        width, height = (table[name].to_numpy(zero_copy_only=False).astype(np.float64) for name in ("width", "height"))
        if self._shrink_px:
            factor = np.maximum(np.fmin(width, height) / self._shrink_px, 1)
            width, height = width / factor, height / factor
        return float(np.where(np.isnan(width * height), np.inf, 3 * width * height).sum())
