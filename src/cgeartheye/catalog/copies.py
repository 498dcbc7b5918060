"""Files of one content: found by fingerprints, and hashed whole only where size, head and tail agree."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cgeartheye.catalog.search import Found, LeftOut
from cgeartheye.errors import CGEarthEyeError
from cgeartheye.files import fingerprint, sha256_file
from cgeartheye.rasters.opening import address_of, is_remote

WHOLE_LIMIT: Final = 2**20
"""Scenes up to this many bytes are fingerprinted by content, larger ones by size, time and first block: an archive of tens of
terabytes is not read to be listed [ours]."""
_TAIL: Final = 2**16


def print_of(found: Found) -> str | LeftOut:
    """Return the fingerprint of a file, or why it has none; that of a file on the network is what its listing tells."""
    if is_remote(found.path):
        return found.told.fingerprint or f"address {address_of(found.path)}"
    try:
        return fingerprint(found.path, limit=WHOLE_LIMIT)
    except CGEarthEyeError as error:
        return LeftOut.by(found.path, error)
    except OSError as error:
        return LeftOut(found.path, f"cannot be read ({error.strerror or error})", "check the link or the disk")


def copies_of(files: Sequence[Found], prints: Sequence[str | LeftOut]) -> dict[Path, Path]:
    """Return file -> the earlier file of the same content."""
    first: dict[str, Path] = {}
    copies: dict[Path, Path] = {}
    large: dict[str, list[Path]] = defaultdict(list)
    for found, known in zip(files, prints, strict=True):
        if isinstance(known, LeftOut):
            continue
        if not known.startswith("size "):
            if first.setdefault(known, found.path) != found.path:
                copies[found.path] = first[known]
            continue
        size, head = known.split(" time ")[0], known.split(" head ")[1]
        large[size + head].append(found.path)
    for paths in large.values():
        copies.update(_same(paths) if len(paths) > 1 else {})
    return copies


def _same(paths: Sequence[Path]) -> dict[Path, Path]:
    """Compare files of one size and head by their tails, then whole."""
    tails: dict[bytes, list[Path]] = defaultdict(list)
    for path in paths:
        with path.open("rb") as handle:
            handle.seek(-min(_TAIL, path.stat().st_size), 2)
            tails[hashlib.sha256(handle.read()).digest()].append(path)
    first: dict[str, Path] = {}
    copies: dict[Path, Path] = {}
    for alike in tails.values():
        for path in alike if len(alike) > 1 else ():
            if (before := first.setdefault(sha256_file(path), path)) != path:
                copies[path] = before
    return copies
