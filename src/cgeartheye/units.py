"""Conversions between the units that names carry as suffixes."""

from __future__ import annotations

from typing import Final

BYTES_PER_MB: Final = 10**6


def megabytes(count: float) -> float:
    """Return a number of bytes in MB (10**6 bytes)."""
    return count / BYTES_PER_MB
