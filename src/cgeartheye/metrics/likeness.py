"""Whether two pictures show the same thing: a hash that finds candidates, and a correlation of pixels that decides.

The eight orientations are numbered by bits: 1 reverses the columns, 2 reverses the rows, 4 swaps rows and columns; the swap
comes first. Because a DCT of a reversed picture only changes signs, the hash of every orientation follows from one hash.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import fft, ndimage

from cgeartheye.errors import ShapeError

SIDE_PX: Final = 128
"""Side of the grey pictures that are compared [ours]."""
ORIENTATIONS: Final = 8
INVERSE: Final = (0, 1, 2, 3, 4, 6, 5, 7)
"""The orientation that undoes each orientation: only the two quarter turns, 5 and 6, undo one another."""
MAX_SHIFT_PX: Final = SIDE_PX // 8
"""Shifts beyond an eighth of the side are not looked for [ours]: little is left to compare, and smooth slopes begin to fit."""

_ODD_COLUMNS: Final = np.uint64(0xAAAAAAAAAAAAAAAA)
_ODD_ROWS: Final = np.uint64(0xFF00FF00FF00FF00)
_SWAPS: Final = (
    (np.uint64(7), np.uint64(0x00AA00AA00AA00AA)),
    (np.uint64(14), np.uint64(0x0000CCCC0000CCCC)),
    (np.uint64(28), np.uint64(0x00000000F0F0F0F0)),
)
"""Shifts and masks that transpose an 8 x 8 matrix of bits (Warren, Hacker's Delight, section 7-3)."""
_HASH_PX: Final = 32
_SMOOTH_PX: Final = 1.2
"""Blur before comparing [ours]: half-size and recompressed copies lose what is finer."""
_DETAIL_PX: Final = 8.0
"""Detail is what is left after a blur of this width is taken away [ours]."""
_HOPELESS: Final = 0.4
"""Pictures that correlate less after a shift by whole pixels are not refined [ours]: half a pixel never mends so much."""
_STEPS: Final = 2
"""Newton steps of the sub-pixel alignment [ours]."""

Grey = NDArray[np.float32]
Hashes = NDArray[np.uint64]


class Likeness(NamedTuple):
    """How alike two pictures are once one is shifted onto the other.

    ``correlation`` and ``detail`` are normalised correlations in [-1, 1] on the overlap: of the pictures, and of what is finer
    than 8 px (the first again, where that is far too low already).
    """

    correlation: float
    detail: float


def grey_thumbnail(image: NDArray[np.uint8]) -> Grey:
    """Return a picture (H, W, 3) uint8 RGB as grey (128, 128) float32 in [0, 255], sides squeezed to equal length.

    Raises: ShapeError: if the picture has another shape or type.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ShapeError(f"a picture is (H, W, 3) uint8, got {image.shape} {image.dtype}")
    small = Image.fromarray(image).convert("L").convert("F").resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(small, np.float32), 0, 255)


def perceptual_hash(grey: Grey) -> int:
    """Return the signs of the 63 lowest frequencies of a thumbnail (128, 128) as a number below 2**64.

    Bit 8 r + c is set if the DCT coefficient of r waves down and c across is positive; bit 0 is never set. Brightness and
    contrast therefore change nothing.
    Source: pHash (Zauner 2010), with signs in place of a median so that orientations are exact.
    """
    small = grey.reshape(_HASH_PX, SIDE_PX // _HASH_PX, _HASH_PX, SIDE_PX // _HASH_PX).mean(axis=(1, 3), dtype=np.float64)
    signs = fft.dctn(small, norm="ortho")[:8, :8] > 0
    signs[0, 0] = False
    return int.from_bytes(np.packbits(signs.ravel(), bitorder="little").tobytes(), "little")


def oriented_hashes(hashes: Hashes, orientation: int) -> Hashes:
    """Return the hashes (any shape, uint64) that the pictures have in another orientation."""
    turned = np.array(hashes, np.uint64)
    if orientation & 4:
        for shift, mask in _SWAPS:
            moved = (turned ^ (turned >> shift)) & mask
            turned ^= moved ^ (moved << shift)
    if orientation & 1:
        turned ^= _ODD_COLUMNS
    if orientation & 2:
        turned ^= _ODD_ROWS
    return turned


def oriented(picture: Grey, orientation: int) -> Grey:
    """Return a picture (H, W, ...) in one of the eight orientations; see the head of this file."""
    if orientation & 4:
        picture = picture.swapaxes(0, 1)
    if orientation & 1:
        picture = picture[:, ::-1]
    return picture[::-1] if orientation & 2 else picture


def composed(first: int, then: int) -> int:
    """Return the orientation that brings a picture into ``first`` and the result into ``then``."""
    probe = np.arange(4, dtype=np.float32).reshape(2, 2)
    wanted = oriented(oriented(probe, first), then)
    return next(o for o in range(ORIENTATIONS) if np.array_equal(oriented(probe, o), wanted))


def hamming(first: Hashes, second: Hashes) -> NDArray[np.uint8]:
    """Return the number of bits in which hashes differ, 0 to 64, broadcast."""
    return np.asarray(np.bitwise_count(first ^ second), np.uint8)


def compare(first: Grey, second: Grey) -> Likeness:
    """Shift ``second`` onto ``first`` by a fraction of a pixel and correlate what overlaps.

    The whole-pixel shift is the best correlated one of three: none, and the peaks of the cross-correlations of the pictures
    and of their edges; then Newton steps on the squared difference refine it (Lucas and Kanade 1981).

    Args:
        first: (128, 128) float32 grey.
        second: the same.

    Raises: ShapeError: if a picture has another shape.
    """
    if first.shape != (SIDE_PX, SIDE_PX) or second.shape != first.shape:
        raise ShapeError(f"pictures to compare are ({SIDE_PX}, {SIDE_PX}), got {first.shape} and {second.shape}")
    a, b = (ndimage.gaussian_filter(picture, _SMOOTH_PX) for picture in (first, second))
    edges = [ndimage.laplace(picture) for picture in (a, b)]
    shifts = {(0, 0), _peak(a, b), _peak(edges[0], edges[1])}
    rows, columns = max(sorted(shifts), key=lambda shift: _correlation(*_overlap(a, b, *shift)))
    a, b = _overlap(a, b, rows, columns)
    if (rough := _correlation(a, b)) < _HOPELESS:
        return Likeness(rough, rough)
    a, b = _refined(a, b)
    margin = int(1.5 * _DETAIL_PX)  # a blur near the border takes a slope for detail
    inner = slice(margin, -margin)
    fine = [(picture - ndimage.gaussian_filter(picture, _DETAIL_PX))[inner, inner] for picture in (a, b)]
    return Likeness(_correlation(a, b), _correlation(fine[0], fine[1]))


def _peak(first: Grey, second: Grey) -> tuple[int, int]:
    """Return the shift (rows, columns) of ``second`` against ``first`` within the limit, by the tapered cross-correlation."""
    taper = np.hanning(SIDE_PX).astype(np.float32)
    spectra = [fft.rfft2((picture - picture.mean()) * taper * taper[:, None]) for picture in (first, second)]
    found = fft.irfft2(spectra[0] * spectra[1].conj(), s=(SIDE_PX, SIDE_PX))
    near = np.roll(found, (MAX_SHIFT_PX, MAX_SHIFT_PX), (0, 1))[: 2 * MAX_SHIFT_PX + 1, : 2 * MAX_SHIFT_PX + 1]
    row, column = divmod(int(near.argmax()), near.shape[1])
    return row - MAX_SHIFT_PX, column - MAX_SHIFT_PX


def _overlap(first: Grey, second: Grey, rows: int, columns: int) -> tuple[Grey, Grey]:
    a = first[max(rows, 0) : SIDE_PX + min(rows, 0), max(columns, 0) : SIDE_PX + min(columns, 0)]
    b = second[max(-rows, 0) : SIDE_PX + min(-rows, 0), max(-columns, 0) : SIDE_PX + min(-columns, 0)]
    return a, b


def _refined(first: Grey, second: Grey) -> tuple[Grey, Grey]:
    """Move ``second`` by a fraction of a pixel onto ``first`` and cut the margin that has no neighbours."""
    moved, shift = second, np.zeros(2)
    for _ in range(_STEPS):
        down, across = np.gradient(moved)
        system = np.stack([down.ravel(), across.ravel(), moved.ravel(), np.ones(moved.size, np.float32)])
        normal = (system @ system.T).astype(np.float64)
        if np.linalg.cond(normal) > 1e12:
            break
        step = np.linalg.solve(normal, (system @ first.ravel()).astype(np.float64))
        if step[2] <= 0:
            break
        shift = np.clip(shift - step[:2] / step[2], -1, 1)
        moved = _shifted(second, shift)
    if _correlation(*_inner(first, moved)) < _correlation(*_inner(first, second)):
        moved = second
    return _inner(first, moved)


def _shifted(picture: Grey, shift: NDArray[np.float64]) -> Grey:
    """Shift by up to a pixel down and across, by cubic convolution (Keys 1981), one axis after the other."""
    for axis, by in enumerate(shift.tolist()):
        x = np.abs(np.arange(-3, 4) + by)
        near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
        weights = np.where(x <= 1, near, np.where(x < 2, far, 0))
        picture = ndimage.correlate1d(picture, weights, axis=axis, mode="nearest")
    return picture


def _inner(first: Grey, second: Grey) -> tuple[Grey, Grey]:
    return first[2:-2, 2:-2], second[2:-2, 2:-2]


def _correlation(first: Grey, second: Grey) -> float:
    a, b = first - first.mean(dtype=np.float64), second - second.mean(dtype=np.float64)
    power = float((a * a).sum()) * float((b * b).sum())
    return float((a * b).sum()) / power**0.5 if power > 0 else 0.0
