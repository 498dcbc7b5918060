"""Files that are either whole or absent, and fingerprints of what a stage has read."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from cgeartheye.errors import DataError, InputError, ResourceError

WHOLE_HASH_LIMIT: Final = 64 * 2**20
"""Files up to this many bytes are fingerprinted by content, larger ones by size, time and first block."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is synced to disk and renamed, on failure removed.

    Raises:
        ResourceError: if the disk is full or the folder may not be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # the suffix stays last, because GDAL and others choose a format by it
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.tmp{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise as_resource_error(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path`` that takes its name on success and is removed on failure.

    Where another process has made ``path`` meanwhile, its folder stays: only for what is the same whoever makes it.

    Raises:
        ResourceError: if the disk is full or the folder may not be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        temporary.mkdir()
        yield temporary
        try:
            temporary.rename(path)
        except OSError:
            if not path.exists():
                raise
    except OSError as error:
        raise as_resource_error(error, path) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def as_resource_error(error: OSError, path: Path) -> OSError | ResourceError:
    """Turn "no space" and "no permission" into a :class:`ResourceError` that names the file; return others as they are."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return ResourceError(
            "the disk is full",
            where=str(path),
            remedy="free some space and repeat the command; finished pieces are kept",
        )
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return ResourceError("may not be written", where=str(path), remedy="choose another output folder or change its rights")
    return error


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 ``text`` to ``path`` atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401 - any JSON value
    """Write ``value`` as indented JSON with sorted keys, atomically."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:  # noqa: ANN401 - any JSON value
    """Read one JSON file.

    Raises:
        DataError: if the file is absent, unreadable or no JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise DataError("no such file", where=str(path)) from error
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read as JSON ({error})", where=str(path)) from error


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a whole file as hexadecimal text."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def fingerprint(path: Path, *, whole: bool = False, limit: int = WHOLE_HASH_LIMIT) -> str:
    """Return a text that changes when the file or folder changes.

    A stage's folder is known by the outputs its manifest lists, another folder by the fingerprints of all its files, a
    file by its content (up to ``limit`` bytes, or always if ``whole``), else by size, time and first block.

    Raises:
        InputError: if there is nothing at ``path`` or it may not be read.
    """
    try:
        if path.is_dir():
            return _fingerprint_folder(path, whole=whole)
        stat = path.stat()
        if whole or stat.st_size <= limit:
            return sha256_file(path)
        with path.open("rb") as handle:
            head = hashlib.sha256(handle.read(2**16)).hexdigest()
    except FileNotFoundError as error:
        raise InputError("there is no such file or folder", where=str(path)) from error
    except PermissionError as error:
        raise InputError("may not be read", where=str(path), remedy="change its rights (chmod u+rX) and try again") from error
    return f"size {stat.st_size} time {stat.st_mtime_ns} head {head}"


def _fingerprint_folder(folder: Path, *, whole: bool) -> str:
    manifest = folder / "manifest.json"
    digest = hashlib.sha256()
    if manifest.exists():
        digest.update(json.dumps(read_json(manifest).get("outputs"), sort_keys=True).encode())
        return f"stage {digest.hexdigest()}"
    for file in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
        digest.update(f"{file.relative_to(folder).as_posix()}\x1f{fingerprint(file, whole=whole)}\x1e".encode())
    return f"folder {digest.hexdigest()}"
