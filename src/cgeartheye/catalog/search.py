"""Which files an archive has: every folder once, in one order, whatever stands in the way of some of them."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cgeartheye.errors import CGEarthEyeError, DataError, InputError
from cgeartheye.rasters.opening import is_remote
from cgeartheye.stage import BEGUN

RIGHTS = "change its rights (chmod u+rX) and try again"


@dataclass(frozen=True, slots=True)
class Told:
    """What a STAC item or a listing of a bucket tells about a file.

    Args:
        id: of the item.
        moment: of acquisition, UTC.
        licence: of the picture.
        cloud_share: share of it under clouds, 0 to 1.
        fingerprint: of a file on the network, which is not read whole to know it.
    """

    id: str | None = None
    moment: dt.datetime | None = None
    licence: str | None = None
    cloud_share: float | None = None
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A file that may be a scene.

    Args:
        path: the file, or GDAL's virtual path of one on the network.
        name: its path from the folder it was found under, with forward slashes.
        told: what is known of it before it is opened.
    """

    path: Path
    name: str
    told: Told = Told()

    @property
    def named(self) -> Path:
        """The path whose parts mean something: a virtual path of GDAL's may be a quoted address."""
        return Path(self.name) if is_remote(self.path) else self.path


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file, folder or address that is not used, why, and what can be done about it."""

    path: Path | str
    reason: str
    remedy: str

    @classmethod
    def by(cls, path: Path | str, error: CGEarthEyeError) -> LeftOut:
        """Return the entry of a file that raised ``error``."""
        return cls(path, error.what, error.remedy or "leave it out")


@dataclass
class Listing:
    """What a search found: files in order, what could not be looked at, and how many files have other endings."""

    files: list[Found] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    ignored: int = 0


def search(roots: Sequence[Path], extensions: Sequence[str], *, out: Path, cache: Path | None = None) -> Listing:
    """List the files with given endings in folders and below; links are followed, but no folder is entered twice.

    Hidden files are passed over, and so is ``out`` with the finished and begun stages beside it.

    Args:
        roots: folders and single files.
        extensions: endings in lower case, with their dots.
        out: the stage's own folder.
        cache: a folder of pan-sharpened scenes, passed over, too.

    Raises:
        InputError: if one of ``roots`` does not exist.
    """
    listing = Listing()
    seen: set[tuple[int, int]] = set()
    if cache is not None and cache.is_dir():
        seen.add((cache.stat().st_dev, cache.stat().st_ino))
    known: set[Path] = set()
    for root in roots:
        if not os.path.lexists(root):
            raise InputError(
                "there is no such file or folder, or its folder is closed", where=str(root), remedy="check catalog.scenes"
            )
        below = _below(root, "", seen, listing, out.absolute()) if root.is_dir() else [Found(root, root.name)]
        for found in below:
            if found.path.suffix.lower() not in extensions and found.path not in roots:
                listing.ignored += 1
            elif found.path not in known:
                known.add(found.path)
                listing.files.append(found)
    return listing


def _below(folder: Path, prefix: str, seen: set[tuple[int, int]], listing: Listing, out: Path) -> Iterator[Found]:
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as handle:
            entries = sorted(handle, key=lambda entry: entry.name)
    except OSError as error:
        listing.left_out.append(LeftOut(folder, _fault("the folder", error), RIGHTS))
        return
    for entry in entries:
        path = folder / entry.name
        if entry.name.startswith(".") or _is_ours(path, out):
            continue
        try:
            is_folder = entry.is_dir()
        except OSError as error:
            listing.left_out.append(LeftOut(path, _fault("it", error), RIGHTS))
            continue
        if is_folder:
            yield from _below(path, f"{prefix}{entry.name}/", seen, listing, out)
        else:
            yield Found(path, prefix + entry.name)


def _fault(what: str, error: OSError) -> str:
    if isinstance(error, PermissionError):
        return f"{what} may not be read"
    return f"{what} cannot be looked at ({error.strerror})"


def _is_ours(path: Path, out: Path) -> bool:
    absolute = path.absolute()
    return absolute == out or (absolute.parent == out.parent and (absolute / BEGUN).exists())


def nothing_left(listing: Listing, extensions: Sequence[str]) -> DataError:
    """Return the error that says why no scene is left, with the first reasons."""
    if not listing.files and not listing.left_out:
        return DataError(
            f"no file ends with {', '.join(extensions)} ({listing.ignored} others were passed over)",
            where="catalog.scenes",
            remedy="give the folder of the archive, or set catalog.extensions",
        )
    shown = [f"  {entry.path}: {entry.reason}\n    -> {entry.remedy}" for entry in listing.left_out[:20]]
    more = len(listing.left_out) - len(shown)
    return DataError(
        "no scene can be used:\n" + "\n".join(shown) + (f"\n  and {more} more" if more else ""),
        where="catalog.scenes",
        remedy="mend at least one of them; all reasons are in left_out.json",
    )
