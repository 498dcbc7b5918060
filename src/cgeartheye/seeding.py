"""Named streams of random numbers: every draw is a function of (seed, name, keys), never of what ran before.

A resumed run, another worker count or another order of work therefore sees the same numbers.
"""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

_GAMMA: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX_1: Final = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2: Final = np.uint64(0x94D049BB133111EB)


def derive(seed: int, name: str, *keys: int | str) -> int:
    """Return a seed in [0, 2**63) for the stream ``name`` and ``keys``; equal arguments give equal seeds anywhere."""
    text = "\x1f".join([str(seed), name, *map(str, keys)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def stream(seed: int, name: str, *keys: int | str) -> np.random.Generator:
    """Return a NumPy generator for the stream ``name`` and ``keys``."""
    return np.random.Generator(np.random.PCG64(derive(seed, name, *keys)))


def splitmix64(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hash an array of uint64 of any shape, one to one (Steele, Lea and Flood 2014; 0 becomes 0xe220a8397b1dcdaf)."""
    with np.errstate(over="ignore"):
        z = values.astype(np.uint64) + _GAMMA
        z = (z ^ (z >> np.uint64(30))) * _MIX_1
        z = (z ^ (z >> np.uint64(27))) * _MIX_2
        return z ^ (z >> np.uint64(31))


def hash_share(name: str, salt: str = "") -> float:
    """Return a number in [0, 1) that depends on ``name`` and ``salt`` alone; used for splits fixed before training."""
    digest = hashlib.sha256(f"{salt}\x1f{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
