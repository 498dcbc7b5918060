"""Random fields: fractal relief and clouds, and the tileable textures that give every surface its grain.

All fields have mean 0 and standard deviation 1, are float32 and wrap around at their edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from cgeartheye.seeding import stream

Field = NDArray[np.float32]

TEXTURE_PX: Final = 1024
"""Side of the tileable textures."""


def _frequencies(side: int) -> Field:
    fx = np.fft.rfftfreq(side).astype(np.float32)
    fy = np.fft.fftfreq(side).astype(np.float32)
    return np.hypot(fy[:, None], fx[None, :])


def _shaped(rng: np.random.Generator, side: int, amplitude: Field) -> Field:
    white = rng.standard_normal((side, side), dtype=np.float32)
    field = np.fft.irfft2(np.fft.rfft2(white) * amplitude, s=(side, side))
    return np.asarray((field - field.mean()) / field.std(), dtype=np.float32)


def fractal(rng: np.random.Generator, side: int, slope: float) -> Field:
    """Return (side, side) noise whose amplitude falls with frequency to the power ``slope`` (about 2 for natural relief)."""
    frequency = _frequencies(side)
    frequency[0, 0] = np.inf
    return _shaped(rng, side, frequency**-slope)


def band(rng: np.random.Generator, side: int, wavelength_px: float, octaves: float = 1.0) -> Field:
    """Return (side, side) noise around one wavelength: a log-normal band, ``octaves`` wide."""
    frequency = _frequencies(side)
    frequency[0, 0] = 1e-9
    amplitude = np.exp(-0.5 * (np.log2(frequency * wavelength_px) / octaves) ** 2).astype(np.float32)
    # per unit of area low frequencies have few coefficients, which keeps the band where it was asked for
    return _shaped(rng, side, amplitude)


def enlarge(field: Field, height: int, width: int) -> Field:
    """Return a (h, w) field interpolated to (height, width) by cubic convolution; pixel areas keep their place."""
    image = Image.fromarray(np.ascontiguousarray(field, dtype=np.float32), mode="F")
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)


def sample(field: Field, x: NDArray[np.float64], y: NDArray[np.float64], cell_m: float) -> NDArray[np.float64]:
    """Return the values (n,) of a field of ``cell_m`` pixels at points in metres, bilinear, held at the edges."""
    at = np.stack([y / cell_m - 0.5, x / cell_m - 0.5])
    return np.asarray(ndimage.map_coordinates(field, at, order=1, mode="nearest"), dtype=np.float64)


@dataclass(frozen=True)
class Textures:
    """Tileable (1024, 1024) float32 textures in pixels of the scene: white grain, clumps, patches, mottling."""

    grain: Field
    clump: Field
    patch: Field
    mottle: Field

    def rows(self, name: str, first: int, last: int, width: int) -> Field:
        """Return rows ``first`` to ``last`` of the texture ``name``, repeated to ``width`` columns; rows may be negative."""
        tile: Field = getattr(self, name)
        rows = np.take(tile, np.arange(first, last), axis=0, mode="wrap")
        return np.tile(rows, (1, -(-width // TEXTURE_PX)))[:, :width]


def make_textures(seed: int, gsd_m: float) -> Textures:
    """Return the textures of a world; their wavelengths are 1.8 m (clump), 9 m (patch) and 60 m (mottle)."""
    return Textures(
        grain=stream(seed, "texture", "grain").standard_normal((TEXTURE_PX, TEXTURE_PX), dtype=np.float32),
        clump=band(stream(seed, "texture", "clump"), TEXTURE_PX, 1.8 / gsd_m),
        patch=band(stream(seed, "texture", "patch"), TEXTURE_PX, 9.0 / gsd_m),
        mottle=band(stream(seed, "texture", "mottle"), TEXTURE_PX, 60.0 / gsd_m, 1.5),
    )
