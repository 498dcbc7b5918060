"""A stage's folder: begun, resumed, finished or stale.

``stage.json`` is written first (what is being made, from what), ``manifest.json`` last: a folder with a manifest is
finished and never written again; one with only ``stage.json`` was interrupted and is resumed by the same command.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from cgeartheye import __version__
from cgeartheye.errors import DataError, ResourceError, StaleStageError
from cgeartheye.files import as_resource_error, fingerprint, read_json, sha256_file, write_json
from cgeartheye.settings.base import StageSettings

SCHEMA_VERSION: Final = 1
MANIFEST: Final = "manifest.json"
BEGUN: Final = "stage.json"
LOG: Final = "run.log"
PARTS: Final = ".parts"
"""Folder of the locks of processes that make parts of a stage side by side."""
_PART_WAITS_S: Final = 120.0
"""Seconds a part waits for others to begin; they hold the folder for moments only."""
_NOT_OUTPUTS: Final = {
    MANIFEST,
    BEGUN,
    LOG,
    "stage.lock",
    PARTS,
    "metrics.jsonl",
    "tensorboard",
    "wandb",
}  # what holds times is no result


@dataclass
class Stage:
    """One run of a stage in its folder; made by :func:`open_stage`."""

    folder: Path
    name: str
    finished: bool
    _begun: dict[str, Any] = field(repr=False)
    _clock: float = field(default_factory=time.monotonic, repr=False)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """List and hash the outputs, then write the manifest; ``summary`` is what reports and later stages quote."""
        self._add_seconds()
        write_json(
            self.folder / MANIFEST,
            {**self._begun, "package_version": __version__, "summary": dict(summary), "outputs": _outputs(self.folder)},
        )
        self.finished = True

    def _add_seconds(self) -> None:
        now = time.monotonic()
        self._begun["seconds"] = round(self._begun["seconds"] + now - self._clock, 3)
        self._clock = now


@contextmanager
def open_stage(folder: Path, name: str, settings: StageSettings, inputs: Mapping[str, Path]) -> Iterator[Stage]:
    """Begin or resume the stage ``name`` in ``folder``; log to its ``run.log`` meanwhile.

    The caller returns at once when ``stage.finished`` is true.

    Raises:
        StaleStageError: if the folder was made with other settings or inputs; the differing keys are named.
        ResourceError: if another process works in the folder, or it cannot be written.
        InputError: if an input is missing or unreadable.
    """
    asked = _asked(name, settings, inputs)
    with _locked(folder, wait_s=0):
        _refuse_parts(folder)
        stage = _begin(folder, name, asked)
        with _log_to(folder / LOG):
            try:
                yield stage
            finally:
                if not stage.finished:
                    stage._add_seconds()
                    write_json(folder / BEGUN, stage._begun)


@contextmanager
def open_part(folder: Path, name: str, settings: StageSettings, inputs: Mapping[str, Path], *, part: str) -> Iterator[Stage]:
    """Begin or join a stage of which several processes make a part each; ``part`` names this one's, fit for a file name.

    Parts work side by side; :func:`open_stage` is refused meanwhile, and they are refused while it is open.

    Raises:
        StaleStageError: as :func:`open_stage`.
        ResourceError: as :func:`open_stage`, or if the same part is being made.
        InputError: as :func:`open_stage`.
    """
    asked = _asked(name, settings, inputs)
    with ExitStack() as closing:
        with _locked(folder, wait_s=_PART_WAITS_S):
            stage = _begin(folder, name, asked)
            closing.enter_context(_exclusive(folder / PARTS / f"{part}.lock", folder, wait_s=0))
        closing.enter_context(_log_to(folder / LOG))
        before = stage._begun["seconds"]
        try:
            yield stage
        finally:
            stage._add_seconds()
            with _locked(folder, wait_s=_PART_WAITS_S):
                if not stage.finished:
                    begun = read_json(folder / BEGUN)
                    spent = stage._begun["seconds"] - before
                    write_json(folder / BEGUN, {**begun, "seconds": round(begun["seconds"] + spent, 3)})


def known_parts(folder: Path) -> list[str]:
    """Return the names of the parts of a stage that were ever begun, in order."""
    return sorted(path.stem for path in (folder / PARTS).glob("*.lock"))


def _asked(name: str, settings: StageSettings, inputs: Mapping[str, Path]) -> dict[str, Any]:
    return {"schema_version": SCHEMA_VERSION, "stage": name, "settings": settings.identity(), "inputs": _fingerprints(inputs)}


@contextmanager
def _locked(folder: Path, *, wait_s: float) -> Iterator[None]:
    """Hold the stage's folder, which is made if need be; what goes wrong with its disk becomes a :class:`ResourceError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _exclusive(folder / "stage.lock", folder, wait_s=wait_s):
            yield
    except OSError as error:
        raise as_resource_error(error, folder) from error


@contextmanager
def _exclusive(path: Path, folder: Path, *, wait_s: float) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=wait_s)
    try:
        lock.acquire()
    except Timeout as error:
        what = "another process is working in this folder" + ("" if path.parent == folder else f" on part {path.stem}")
        raise ResourceError(what, where=str(folder), remedy="wait for it, or choose another --out") from error
    try:
        yield
    finally:
        lock.release()


def _refuse_parts(folder: Path) -> None:
    for path in sorted((folder / PARTS).glob("*.lock")):
        with _exclusive(path, folder, wait_s=0):
            pass


def _begin(folder: Path, name: str, asked: dict[str, Any]) -> Stage:
    begun_path, manifest_path = folder / BEGUN, folder / MANIFEST
    known = manifest_path if manifest_path.exists() else begun_path if begun_path.exists() else None
    if known is None:
        if any(p for p in folder.iterdir() if p.name not in _NOT_OUTPUTS):
            raise DataError(
                "the folder is not empty and holds no stage",
                where=str(folder),
                remedy="choose an empty or a new folder with --out",
            )
        begun = {**asked, "seconds": 0.0}
        write_json(begun_path, begun)
    else:
        begun = read_json(known)
        if known == begun_path and not any(p for p in folder.iterdir() if p.name not in _NOT_OUTPUTS):
            begun = {**asked, "seconds": begun["seconds"]}  # nothing was made yet that other settings could spoil
            write_json(begun_path, begun)
        refuse_stale(folder, begun, asked)
        begun = {key: begun[key] for key in (*asked, "seconds")}
    return Stage(folder, name, finished=known == manifest_path, _begun=begun)


def refuse_stale(folder: Path, begun: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raise :class:`StaleStageError` naming every key in which a folder's record differs from what is asked for."""
    changed = changed_keys(begun, asked)
    if changed:
        raise StaleStageError(
            f"this folder was made with other {'settings or inputs' if len(changed) > 1 else changed[0].split('.')[0]}: "
            + ", ".join(changed),
            where=str(folder),
            remedy=f"--redo {asked['stage']} makes it again in a new folder and keeps the old one, or undo the change",
        )


def changed_keys(begun: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """Return the dotted keys of settings and inputs that differ between two records."""
    if begun.get("schema_version") != asked["schema_version"]:
        return ["schema_version"]
    before = {**_flat(begun.get("settings", {}), "settings"), **_flat(begun.get("inputs", {}), "inputs")}
    now = {**_flat(asked["settings"], "settings"), **_flat(asked["inputs"], "inputs")}
    missing = object()
    return sorted(key for key in before.keys() | now.keys() if before.get(key, missing) != now.get(key, missing))


def _flat(value: Any, prefix: str) -> dict[str, Any]:  # noqa: ANN401 - any JSON value
    if isinstance(value, Mapping) and value:
        return {k: v for key, inner in value.items() for k, v in _flat(inner, f"{prefix}.{key}").items()}
    return {prefix: value}


def read_manifest(folder: Path, name: str | None = None) -> dict[str, Any]:
    """Return the manifest of a finished stage folder.

    Raises:
        DataError: if the stage is not finished, is another stage's, or has an unknown schema version.
    """
    path = folder / MANIFEST
    if not path.exists():
        what = "the stage was interrupted" if (folder / BEGUN).exists() else "there is no finished stage here"
        raise DataError(what, where=str(folder), remedy=f"finish it first: cgeartheye {name or 'run'}")
    manifest: dict[str, Any] = read_json(path)
    if name is not None and manifest.get("stage") != name:
        raise DataError(f"holds the stage {manifest.get('stage')!r}, not {name!r}", where=str(folder))
    if manifest.get("schema_version") != SCHEMA_VERSION:
        raise DataError(f"schema_version {manifest.get('schema_version')!r} is not known to this release", where=str(path))
    return manifest


def retire(folder: Path) -> Path:
    """Move a stage's folder aside to the first free name ``folder.1``, ``folder.2`` ... and return that name."""
    aside = folder.with_name(f"{folder.name}.{len(retired(folder)) + 1}")
    folder.rename(aside)
    return aside


def retired(folder: Path) -> list[Path]:
    """Return the folders that :func:`retire` moved aside, the newest first."""
    found: list[Path] = []
    while (aside := folder.with_name(f"{folder.name}.{len(found) + 1}")).exists():
        found.append(aside)
    return found[::-1]


def _fingerprints(inputs: Mapping[str, Path]) -> dict[str, str]:
    return {key: fingerprint(path) for key, path in sorted(inputs.items())}


def _outputs(folder: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for base, folders, names in os.walk(folder):
        beside = _NOT_OUTPUTS if Path(base) == folder else set()
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in beside)
        for name in sorted(names):
            path = Path(base) / name
            key = path.relative_to(folder).as_posix()
            if name.startswith(".") or key in _NOT_OUTPUTS:
                continue
            found[key] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
    return found


@contextmanager
def _log_to(path: Path) -> Iterator[None]:
    logger = logging.getLogger("cgeartheye")
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
