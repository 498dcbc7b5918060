"""The stage `catalog`: folders of GeoTIFF -> a catalogue of scenes, and a list of what was left out and why."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rasterio.errors import NotGeoreferencedWarning

from cgeartheye.catalog.dates import DateTable, read_dates
from cgeartheye.catalog.inspect import inspect
from cgeartheye.catalog.search import Found, LeftOut, Listing, nothing_left, search
from cgeartheye.catalog.summary import summarise
from cgeartheye.errors import CGEarthEyeError, DataError, InputError
from cgeartheye.files import fingerprint, sha256_file, write_json, write_text
from cgeartheye.progress import SILENT, Progress
from cgeartheye.rasters.scenes import Scene, write_scenes
from cgeartheye.settings.catalog import CatalogSettings
from cgeartheye.stage import open_stage

CATALOG = "catalog.parquet"
LEFT_OUT = "left_out.json"
_LOG = logging.getLogger(__name__)


def catalog(settings: CatalogSettings, out: Path, *, progress: Progress = SILENT) -> Path:
    """List the scenes of an archive in ``out/catalog.parquet`` and what was left out in ``out/left_out.json``.

    A file that cannot be used never stops the others.

    Args:
        settings: where the archive is.
        out: the stage's folder.
        progress: who is told.

    Returns: ``out``.

    Raises:
        InputError: if ``settings.scenes`` is empty or names nothing, or the CSV file of dates is wrong.
        DataError: if no scene is left; the reasons are in the message and in ``out/left_out.json``.
        StaleStageError: if the folder holds another catalogue.
    """
    if not settings.scenes:
        raise InputError(
            "no folder of scenes is given", where="catalog.scenes", remedy="name the archive's folder: --scenes FOLDER"
        )
    listing = search(settings.scenes, settings.extensions, out=out)
    with ThreadPoolExecutor(settings.workers) as pool:
        prints = list(progress.track(pool.map(_fingerprint, listing.files), "fingerprints", len(listing.files)))
    with (
        _written(listing.files, prints) as archive,
        open_stage(
            out, "catalog", settings, {"scenes": archive} | ({"dates": settings.dates} if settings.dates else {})
        ) as stage,
    ):
        if stage.finished:
            return out
        table = read_dates(settings.dates) if settings.dates else DateTable()
        scenes = _inspect_all(listing, prints, table, settings, progress)
        write_json(out / LEFT_OUT, [_entry(entry) for entry in listing.left_out])
        if not scenes:
            raise nothing_left(listing, settings.extensions)
        write_scenes(out / CATALOG, scenes)
        stage.finish(summarise(scenes, listing, unused_rows=len(table.entries.keys() - table.used)))
    return out


def _inspect_all(
    listing: Listing, prints: Sequence[str | LeftOut], table: DateTable, settings: CatalogSettings, progress: Progress
) -> list[Scene]:
    table.expect(listing.files)
    copies = _copies(listing.files, prints)

    def look(found: Found, known: str | LeftOut) -> Scene | LeftOut:
        if isinstance(known, LeftOut):
            return known
        try:
            if found.path in copies:
                raise DataError(
                    f"has the same content as {copies[found.path]}",
                    where=str(found.path),
                    remedy="remove one of them, or ignore this",
                )
            return inspect(found, table.find(found), known, settings)
        except DataError as error:
            return LeftOut.by(found.path, error)
        except OSError as error:
            return LeftOut(
                found.path, f"cannot be read ({error.strerror or error})", "copy or download it again, or leave it out"
            )

    scenes: list[Scene] = []
    with warnings.catch_warnings(), ThreadPoolExecutor(settings.workers) as pool:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # it becomes a reason of its own
        for result in progress.track(pool.map(look, listing.files, prints), "scenes", len(listing.files)):
            if isinstance(result, Scene):
                scenes.append(result)
            else:
                _LOG.warning("%s is left out: %s", result.path, result.reason)
                listing.left_out.append(result)
    return _with_own_ids(scenes)


def _with_own_ids(scenes: Sequence[Scene]) -> list[Scene]:
    """Files of one name in several folders are told apart by eight characters of their content's hash."""
    stems = Counter(scene.id for scene in scenes)
    return [
        replace(scene, id=f"{scene.id}-{scene.file_fingerprint.split()[-1][:8]}") if stems[scene.id] > 1 else scene
        for scene in scenes
    ]


def _fingerprint(found: Found) -> str | LeftOut:
    try:
        return fingerprint(found.path)
    except CGEarthEyeError as error:
        return LeftOut.by(found.path, error)
    except OSError as error:
        return LeftOut(found.path, f"cannot be read ({error.strerror or error})", "check the link or the disk")


def _copies(files: Sequence[Found], prints: Sequence[str | LeftOut]) -> dict[Path, Path]:
    """Return file -> the earlier file of the same content; large ones are hashed whole only if size and first block agree."""
    first: dict[str, Path] = {}
    copies: dict[Path, Path] = {}
    large: dict[str, list[Path]] = {}
    for found, known in zip(files, prints, strict=True):
        if isinstance(known, LeftOut):
            continue
        if not known.startswith("size "):
            if first.setdefault(known, found.path) != found.path:
                copies[found.path] = first[known]
            continue
        size, head = known.split(" time ")[0], known.split(" head ")[1]
        large.setdefault(size + head, []).append(found.path)
    for paths in large.values():
        for path in paths if len(paths) > 1 else ():
            whole = sha256_file(path)
            if first.setdefault(whole, path) != path:
                copies[path] = first[whole]
    return copies


@contextmanager
def _written(files: Sequence[Found], prints: Sequence[str | LeftOut]) -> Iterator[Path]:
    """Yield a file that lists the archive's files and their fingerprints: the stage's input, as far as it could be read."""
    lines = [
        f"{found.name}\t{known if isinstance(known, str) else known.reason}\n" for found, known in zip(files, prints, strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "archive.tsv"
        write_text(path, "".join(lines))
        yield path


def _entry(entry: LeftOut) -> dict[str, Any]:
    return {"path": str(entry.path), "reason": entry.reason, "remedy": entry.remedy}
