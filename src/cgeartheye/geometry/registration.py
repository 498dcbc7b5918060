"""Measure how far two pictures of one place are shifted against each other, and whether the answer can be trusted.

Between real seasons, phase correlation of the pictures themselves finds a tenth to a half of planted shifts. What survives
the seasons is where edges lie: here the Laplacian and the gradient's magnitude (which a turned contrast leaves alone), each
divided by its local strength so that no roof outvotes a field, are correlated without whitening in several windows. The
windows' normalised surfaces are averaged, so that a shift is what most of the chip agrees upon, and once it is known to the
pixel the windows are cut anew so that both see the same ground: the taper then favours no shift.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from cgeartheye.errors import ShapeError

SEARCH_PX: Final = 24
"""Farthest shift along an axis that is looked for, if the window is at least four times as large [ours]."""
CERTAIN: Final = ((128, 4.75), (64, 5.25), (0, 5.85))
"""Confidence from which a shift is certain, by the least side of the windows in pixels [ours]: of pairs of different places
on real dates, 2 to 6 in 100 reach it; small windows have few edges to agree on. The last is for chips of about 64 px: of 414
real pairs 3 then reach it with a shift that is wrong by pixels, and 14 would reach the one before."""
UPSAMPLING: Final = 20
"""Steps a pixel of the refined peak (Guizar-Sicairos et al. 2008), before a parabola through three of them [ours]."""
_WINDOW_PX: Final = 256
_WINDOW_SHARE: Final = 0.75
"""Side of the windows in chips too small for several of 256 px: their shorter side's share."""
_LEAST_PX: Final = 16
_SIGMA_PX: Final = 1.0
_LOCAL_PX: Final = 31
_LOCAL_FLOOR: Final = 0.3
"""Strength added to the local one, as a share of the mean: nothing is no edge, however weak its surroundings."""
_PEAK_RADIUS_PX: Final = 4
_RECUT_PX: Final = 2
"""How far the peak may still move once the windows are cut anew."""
_REFINED_PX: Final = 1.5
_NEAR_NODATA_PX: Final = 4
_NOTHING: Final = 1e-6
"""Strength of edges, in grey levels, below which a window is empty."""

Grey = NDArray[np.float32]
Mask = NDArray[np.bool_]
_Edges = NDArray[np.float32]
_Spectra = NDArray[np.complex64]
_Surface = NDArray[np.float32]
_Pixels = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Shift:
    """Where the second picture's content lies against the first's.

    Args:
        rows: pixels down, positive if the content of the second lies further down.
        columns: pixels to the right.
        confidence: height of the correlation's peak over its surroundings' mean, in their standard deviations; 0 for nothing.
        certain: whether the shift can be acted upon; an uncertain one is unknown, not bad.
    """

    rows: float
    columns: float
    confidence: float
    certain: bool

    @property
    def length_px(self) -> float:
        """Length of the shift in pixels."""
        return float(np.hypot(self.rows, self.columns))


UNKNOWN: Final = Shift(0.0, 0.0, 0.0, certain=False)


@dataclass(frozen=True, slots=True)
class _Plan:
    """Windows of a chip: its size, their side, how far is searched."""

    height: int
    width: int
    side: int
    reach: int

    def corners(self, shift: _Pixels) -> tuple[list[_Pixels], list[_Pixels]]:
        """Return the windows' corners in the first and second picture, so that both see ground that lies ``shift`` apart."""
        rows = _starts(self.height, self.side, shift[0])
        columns = _starts(self.width, self.side, shift[1])
        first = [(y, x) for y in rows for x in columns]
        return first, [(y + shift[0], x + shift[1]) for y, x in first]


def measure_shift(
    reference: Grey, moved: Grey, *, valid: Mask, search_px: int = SEARCH_PX, certain_from: float | None = None
) -> Shift:
    """Return the shift of ``moved`` against ``reference``.

    Args:
        reference: (H, W) float32, grey.
        moved: (H, W) float32, grey, another date.
        valid: (H, W) bool, True where both have data.
        search_px: farthest shift along an axis that is looked for; at most 3/16 of the shorter side are.
        certain_from: confidence from which the shift is certain; None: that of :data:`CERTAIN`.

    Returns: the shift, to about 0.02 px where it is certain; one beyond the search is uncertain.
    Raises: ShapeError: if the three differ in shape or are smaller than 16 px.
    """
    if not reference.shape == moved.shape == valid.shape or reference.ndim != 2 or min(reference.shape) < _LEAST_PX:
        message = f"expected three equal shapes of at least 16 x 16, got {reference.shape}, {moved.shape}, {valid.shape}"
        raise ShapeError(message)
    plan = _plan(reference.shape[0], reference.shape[1], search_px)
    edges = _edges(reference, valid), _edges(moved, valid)
    spectra = _cross(*edges, plan, (0, 0))
    if spectra is None:
        return UNKNOWN
    surface, sign = _surface(spectra, plan)
    row, column = _highest(surface)
    whole = (row - plan.reach, column - plan.reach)
    if whole != (0, 0):
        spectra = _cross(*edges, plan, whole)
        if spectra is None:
            return UNKNOWN
        surface, sign = _surface(spectra, plan)
    middle = slice(plan.reach - _RECUT_PX, plan.reach + _RECUT_PX + 1)
    row, column = (at - _RECUT_PX for at in _highest(surface[middle, middle]))
    rest = _refined(spectra[0] + sign * spectra[1], plan.side, (row, column))
    confidence = _confidence(surface, (plan.reach + row, plan.reach + column), plan.side)
    least = certain_from if certain_from is not None else next(c for side, c in CERTAIN if plan.side >= side)
    return Shift(whole[0] + rest[0], whole[1] + rest[1], confidence, certain=confidence >= least)


def _plan(height: int, width: int, search_px: int) -> _Plan:
    least = min(height, width)
    side = _WINDOW_PX if least * _WINDOW_SHARE >= _WINDOW_PX else int(least * _WINDOW_SHARE)
    side -= side % 2
    return _Plan(height, width, side, max(3, min(search_px, side // 4)))


def _starts(length: int, side: int, shift: int) -> list[int]:
    """Return where windows start so that they and their shifted counterparts lie inside, at least half overlapping up to 3."""
    first, last = max(0, -shift), length - side - max(0, shift)
    count = min(3, 1 + -(-(last - first) // (side // 2)))
    return sorted({first + round(i * (last - first) / max(1, count - 1)) for i in range(count)})


def _edges(picture: Grey, valid: Mask) -> _Edges:
    """Return (2, H, W): gradient's magnitude and Laplacian over their local strength; 0 near missing data.

    The outline of a common hole would else match itself perfectly.
    """
    whole = bool(valid.all())
    if not valid.any():
        return np.zeros((2, *picture.shape), np.float32)
    filled = picture if whole else np.where(valid, picture, picture[valid].mean())
    smooth = ndimage.gaussian_filter(np.asarray(filled, np.float32), _SIGMA_PX, truncate=3.0)
    down, across = np.gradient(smooth)
    slope = np.hypot(down, across)
    edges = np.stack([slope - ndimage.uniform_filter(slope, _LOCAL_PX // 2), ndimage.laplace(smooth)])
    if not whole:
        edges[:, ndimage.binary_dilation(~valid, iterations=_NEAR_NODATA_PX)] = 0
    strength = np.sqrt(np.maximum(ndimage.uniform_filter(edges * edges, (1, _LOCAL_PX, _LOCAL_PX)), 0))
    return np.asarray(edges / (strength + _LOCAL_FLOOR * strength.mean((1, 2), keepdims=True) + _NOTHING), np.float32)


def _taper(side: int) -> NDArray[np.float32]:
    return np.asarray(np.hanning(side + 2)[1:-1], np.float32)


def _cross(first: _Edges, second: _Edges, plan: _Plan, shift: _Pixels) -> _Spectra | None:
    """Return (2, side, side // 2 + 1): mean cross-spectra, normalised, of both kinds of edges; None if all windows are empty."""
    total, count = np.zeros((2, plan.side, plan.side // 2 + 1), np.complex64), 0
    taper = np.outer(_taper(plan.side), _taper(plan.side))
    for (y, x), (v, u) in zip(*plan.corners(shift), strict=True):
        one = first[:, y : y + plan.side, x : x + plan.side] * taper
        other = second[:, v : v + plan.side, u : u + plan.side] * taper
        energy = np.sqrt((one * one).sum((1, 2)) * (other * other).sum((1, 2)))
        if (energy > _NOTHING).all():
            total += fft.rfft2(one).conj() * fft.rfft2(other) / energy[:, None, None]
            count += 1
    return total / count if count else None


def _surface(spectra: _Spectra, plan: _Plan) -> tuple[_Surface, int]:
    """Return (2 reach + 1, 2 reach + 1), correlation at whole shifts, none in the middle, and the sign of the Laplacians' part.

    The sign is -1 where contrast is turned, which leaves the slopes' part as it is: the higher of both peaks decides.
    """
    size = 2 * plan.reach + 1
    lags = np.roll(fft.irfft2(spectra, s=(plan.side, plan.side)), (plan.reach, plan.reach), (1, 2))[:, :size, :size]
    same, turned = lags[0] + lags[1], lags[0] - lags[1]
    return (same, 1) if same.max() >= turned.max() else (turned, -1)


def _highest(surface: _Surface) -> _Pixels:
    row, column = divmod(int(surface.argmax()), surface.shape[1])
    return row, column


def _confidence(surface: _Surface, peak: _Pixels, side: int) -> float:
    """Return how far the peak stands out of the surface around it.

    Chance agreement is weaker at larger shifts, where tapered windows overlap less, and is brought to one strength; the means of
    rows and columns are taken off, as section roads or a sensor's stripes agree along themselves at any place.
    """
    reach = surface.shape[0] // 2
    power = _taper(side) ** 2
    overlap = np.sqrt(
        [(power[: side - abs(lag)] * power[abs(lag) :]).sum() for lag in range(-reach, reach + 1)] / (power**2).sum()
    )
    level = surface / np.outer(overlap, overlap)
    level = level - level.mean(0) - level.mean(1)[:, None] + level.mean()
    rows, columns = np.ogrid[: level.shape[0], : level.shape[1]]
    around = level[np.maximum(abs(rows - peak[0]), abs(columns - peak[1])) > _PEAK_RADIUS_PX]
    if not around.size or not (spread := around.std()) > 0:
        return 0.0
    return float((level[peak] - around.mean()) / spread)


def _refined(cross: _Spectra, side: int, peak: _Pixels) -> tuple[float, float]:
    """Return the shift of the highest correlation near ``peak``, by the transform at fractions of a pixel."""
    steps = np.arange(-round(_REFINED_PX * UPSAMPLING), round(_REFINED_PX * UPSAMPLING) + 1) / UPSAMPLING
    frequencies, half = fft.fftfreq(side), np.arange(side // 2 + 1) / side
    twice = np.where((half == 0) | (half == 0.5), 1, 2)
    down = np.exp(2j * np.pi * np.outer(peak[0] + steps, frequencies)).astype(np.complex64)
    across = (np.exp(2j * np.pi * np.outer(half, peak[1] + steps)) * twice[:, None]).astype(np.complex64)
    surface = (down @ cross @ across).real
    row, column = _highest(surface)
    return (
        float(peak[0] + steps[row] + _vertex(surface[:, column], row) / UPSAMPLING),
        float(peak[1] + steps[column] + _vertex(surface[row], column) / UPSAMPLING),
    )


def _vertex(line: NDArray[np.float32], at: int) -> float:
    """Return where the parabola through a maximum and its neighbours peaks, in steps from it."""
    if not 0 < at < len(line) - 1:
        return 0.0
    before, here, after = (float(value) for value in line[at - 1 : at + 2])
    bend = before - 2 * here + after
    return 0.5 * (before - after) / bend if bend < 0 else 0.0
