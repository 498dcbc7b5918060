"""The stage `catalog`: an archive -> a catalogue of scenes, and a list of what was left out and why."""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from cgeartheye.catalog.acquisitions import share_stretch
from cgeartheye.catalog.copies import copies_of, print_of
from cgeartheye.catalog.dates import DateTable, read_dates
from cgeartheye.catalog.pairs import Candidate, pair_up
from cgeartheye.catalog.pieces import look_at_all
from cgeartheye.catalog.search import Found, LeftOut, Listing, nothing_left
from cgeartheye.catalog.sources import gather
from cgeartheye.catalog.summary import summarise
from cgeartheye.errors import DataError, InputError
from cgeartheye.files import write_json, write_text
from cgeartheye.progress import SILENT, Progress
from cgeartheye.rasters.opening import address_of
from cgeartheye.rasters.scenes import Scene, write_scenes
from cgeartheye.settings.catalog import CatalogSettings
from cgeartheye.stage import open_stage

CATALOG = "catalog.parquet"
LEFT_OUT = "left_out.json"
_WORK: Final = ".work"
_LOG = logging.getLogger(__name__)


def catalog(settings: CatalogSettings, out: Path, *, progress: Progress = SILENT) -> Path:
    """List the scenes of an archive in ``out/catalog.parquet`` and what was left out in ``out/left_out.json``.

    A file that cannot be used never stops the others. A killed run goes on with the pieces of 256 files that it had finished.

    Args:
        settings: where the archive is.
        out: the stage's folder.
        progress: who is told.

    Returns: ``out``.

    Raises:
        InputError: if the settings name no source or one that is not there, or the CSV file of dates is wrong.
        DataError: if no scene is left; the reasons are in the message and in ``out/left_out.json``.
        ResourceError: if the disk is full, a process was killed, or a server does not answer.
        StaleStageError: if the folder holds another catalogue.
    """
    if not settings.scenes and settings.stac_api.url is None:
        raise InputError(
            "no folder of scenes is given", where="catalog.scenes", remedy="name the archive's folder: --scenes FOLDER"
        )
    cache = settings.sharpened or out.absolute().parent / "sharpened"
    listing = gather(settings, out, cache, say=progress.say)
    with ThreadPoolExecutor(max(1, settings.workers)) as pool:
        prints = list(progress.track(pool.map(print_of, listing.files), "fingerprints", len(listing.files)))
    with (
        _written(listing.files, prints) as archive,
        open_stage(
            out, "catalog", settings, {"scenes": archive} | ({"dates": settings.dates} if settings.dates else {})
        ) as stage,
    ):
        if not stage.finished:
            table = read_dates(settings.dates) if settings.dates else DateTable()
            scenes = _scenes(listing, _candidates(listing, prints, table, settings), settings, (out / _WORK, cache), progress)
            write_json(out / LEFT_OUT, [_entry(entry) for entry in listing.left_out])
            if not scenes:
                raise nothing_left(listing, settings.extensions)
            write_scenes(out / CATALOG, scenes)
            stage.finish(summarise(scenes, listing, unused_rows=len(table.entries.keys() - table.used)))
        shutil.rmtree(out / _WORK, ignore_errors=True)
    return out


def _candidates(
    listing: Listing, prints: Sequence[str | LeftOut], table: DateTable, settings: CatalogSettings
) -> list[Candidate | LeftOut]:
    """Return what is to be looked at, and what is known not to be, in the listing's order; halves of pairs once."""
    table.expect(listing.files)
    copies = copies_of(listing.files, prints)
    known: list[tuple[Found, str]] = []
    judged: dict[Path, LeftOut] = {}
    for found, told in zip(listing.files, prints, strict=True):
        if isinstance(told, LeftOut):
            judged[found.path] = told
        elif found.path in copies:
            what = f"has the same content as {copies[found.path]}"
            judged[found.path] = LeftOut(address_of(found.path), what, "remove one of them, or ignore this")
        else:
            known.append((found, told))
    paired = dict(zip((found.path for found, _ in known), pair_up(known, jilin1=settings.profile == "jilin1"), strict=True))
    halves = {entry.pan for entry in paired.values() if isinstance(entry, Candidate)}
    order = [found.path for found in listing.files if found.path not in halves]
    return [_dated(judged.get(path) or paired[path], table) for path in order]


def _dated(entry: Candidate | LeftOut, table: DateTable) -> Candidate | LeftOut:
    if isinstance(entry, LeftOut):
        return entry
    try:
        return replace(entry, entry=table.find(entry.found))
    except DataError as error:
        return LeftOut.by(address_of(entry.found.path), error)


def _scenes(
    listing: Listing,
    entries: Sequence[Candidate | LeftOut],
    settings: CatalogSettings,
    folders: tuple[Path, Path],
    progress: Progress,
) -> list[Scene]:
    """Look at the candidates, add to the listing what is left out, and return the scenes."""
    candidates = [entry for entry in entries if isinstance(entry, Candidate)]
    with progress.task("scenes", len(entries)) as advance:
        advance(len(entries) - len(candidates))
        piece = look_at_all(candidates, settings, folders[0], folders[1], advance)
    number = -1
    for entry in entries:
        number += isinstance(entry, Candidate)
        lost = entry if isinstance(entry, LeftOut) else piece.left_out.get(number)
        if lost is None:
            continue
        _LOG.warning("%s is left out: %s", lost.path, lost.reason)
        listing.left_out.append(lost)
        if isinstance(entry, Candidate) and entry.pan is not None:
            listing.left_out.append(replace(lost, path=entry.pan))
    return _with_own_ids(share_stretch(piece.scenes, piece.sketches))


def _with_own_ids(scenes: Sequence[Scene]) -> list[Scene]:
    """Files of one name in several folders are told apart by eight characters of a hash of content, or content and path."""
    named = list(scenes)
    for told in (lambda scene: scene.file_fingerprint, lambda scene: f"{scene.file_fingerprint} {scene.path}"):
        names = Counter(scene.id for scene in named)
        named = [
            replace(new, id=f"{old.id}-{hashlib.sha256(told(old).encode()).hexdigest()[:8]}") if names[new.id] > 1 else new
            for old, new in zip(scenes, named, strict=True)
        ]
    return [
        replace(new, acquisition=new.id) if old.acquisition == old.id else new for old, new in zip(scenes, named, strict=True)
    ]


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
