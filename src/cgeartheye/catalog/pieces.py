"""Looking at files in pieces: each a list of candidates, looked at by one process, stored whole, skipped if it is there."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rasterio.errors import NotGeoreferencedWarning

from cgeartheye.catalog.acquisitions import Sketch
from cgeartheye.catalog.inspect import look
from cgeartheye.catalog.pairs import Candidate
from cgeartheye.catalog.search import LeftOut
from cgeartheye.errors import DataError
from cgeartheye.files import read_json, write_json
from cgeartheye.processes import Pool
from cgeartheye.progress import Advance
from cgeartheye.rasters.opening import address_of
from cgeartheye.rasters.scenes import Scene, read_scenes, write_scenes
from cgeartheye.settings.catalog import CatalogSettings

PIECE: Final = 256
"""Candidates of a piece [ours]."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What looking at some candidates gave, in their order.

    Args:
        scenes: what is kept.
        sketches: number of a 16-bit scene that may be a tile -> the distribution of its values.
        left_out: number of the candidate -> why it is not used.
    """

    scenes: list[Scene]
    sketches: dict[int, Sketch]
    left_out: dict[int, LeftOut]


def look_at_all(candidates: Sequence[Candidate], settings: CatalogSettings, folder: Path, cache: Path, advance: Advance) -> Piece:
    """Look at every candidate, several processes at a time; pieces that ``folder`` holds are not looked at again.

    Raises:
        ResourceError: if the disk is full or a process was killed from outside.
    """
    parts = [candidates[start : start + PIECE] for start in range(0, len(candidates), PIECE)]
    todo = [number for number in range(len(parts)) if not _note(folder, number).exists()]
    advance(len(candidates) - sum(len(parts[number]) for number in todo))
    jobs = ((parts[number], settings, folder, number, cache) for number in todo)
    with Pool(min(settings.workers, len(todo)), "catalog.workers") as pool:
        for looked_at in pool.finished(_make, jobs, len(todo)):
            advance(looked_at)
    return _joined([_load(folder, number) for number in range(len(parts))], [len(part) for part in parts])


def _make(candidates: Sequence[Candidate], settings: CatalogSettings, folder: Path, number: int, cache: Path) -> int:
    scenes, sketches, left_out = list[Scene](), dict[str, Sketch](), dict[str, list[str]]()
    with _quiet():
        for index, candidate in enumerate(candidates):
            seen = _seen(candidate, settings, cache)
            if isinstance(seen, LeftOut):
                left_out[str(index)] = [str(seen.path), seen.reason, seen.remedy]
                continue
            scene, drawn = seen
            if drawn is not None:
                sketches[str(len(scenes))] = drawn
            scenes.append(scene)
    write_scenes(_rows(folder, number), scenes)
    # the note comes last: a piece with a note is whole
    write_json(_note(folder, number), {"sketches": sketches, "left_out": left_out})
    return len(candidates)


def _seen(candidate: Candidate, settings: CatalogSettings, cache: Path) -> tuple[Scene, Sketch | None] | LeftOut:
    where = address_of(candidate.found.path)
    try:
        return look(candidate, settings, cache)
    except DataError as error:
        return LeftOut.by(where, error)
    except OSError as error:
        return LeftOut(where, f"cannot be read ({error.strerror or error})", "copy or download it again, or leave it out")


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # it becomes a reason of its own
        yield


def _load(folder: Path, number: int) -> Piece:
    note = read_json(_note(folder, number))
    left_out = {int(index): LeftOut(*entry) for index, entry in note["left_out"].items()}
    return Piece(read_scenes(_rows(folder, number)), {int(index): value for index, value in note["sketches"].items()}, left_out)


def _joined(pieces: Sequence[Piece], lengths: Sequence[int]) -> Piece:
    whole, start = Piece([], {}, {}), 0
    for piece, length in zip(pieces, lengths, strict=True):
        whole.sketches.update({len(whole.scenes) + index: value for index, value in piece.sketches.items()})
        whole.scenes.extend(piece.scenes)
        whole.left_out.update({start + index: entry for index, entry in piece.left_out.items()})
        start += length
    return whole


def _rows(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.parquet"


def _note(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.json"
