"""The hidden folder of pieces: where it lies, and what an update takes from that of an earlier run.

A piece is known by a fingerprint of all it is made of: places, the content of their scenes, the settings that cut them
and this package's version. Another run with the same fingerprint would write the same bytes, so its files are taken.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from cgeartheye import __version__
from cgeartheye.curation.embedding import features_of
from cgeartheye.curation.pictures import PictureTask
from cgeartheye.curation.pieces import Workers, note_path, part_path
from cgeartheye.curation.places import PlaceBlock
from cgeartheye.errors import InputError
from cgeartheye.files import atomic_path, fingerprint, read_json, write_json
from cgeartheye.rasters.scenes import Scene
from cgeartheye.settings.curate import CurateSettings
from cgeartheye.shards.format import SHARD_FOLDER, shard_name
from cgeartheye.shards.writer import write_table
from cgeartheye.stage import retired

_WORK: Final = ".work"
_KEPT: Final = ".pieces"
_LIST: Final = "pieces.json"
_CHIPS: Final = "chips"
_FEATURES: Final = "features"
_TAKEN: Final = {_LIST, _CHIPS, _FEATURES}
"""What a later run takes from a folder of pieces; the rest of the work is of no use to it."""
_NOT_CUTTING: Final = ("places", "shares", "shortage", "embedding", "clusters", "shard_mb", "hold_out")
"""Settings that choose among places or come after chips: they leave a place's chips as they are."""


def work_folder(out: Path) -> Path:
    """Return the folder that holds what an unfinished run has made."""
    return out / _WORK


def chips_folder(out: Path) -> Path:
    """Return where the pieces of an unfinished run are."""
    return out / _WORK / _CHIPS


def features_folder(out: Path) -> Path:
    """Return where the embeddings of the pieces of an unfinished run are."""
    return out / _WORK / _FEATURES


def put_away(out: Path, *, keep: bool) -> None:
    """Remove the work of a finished run, or keep its pieces for a later one."""
    work, kept = work_folder(out), out / _KEPT
    if keep and work.exists() and not kept.exists() and (work / _LIST).exists():
        for path in work.iterdir():
            if path.name not in _TAKEN:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        work.rename(kept)
    shutil.rmtree(work, ignore_errors=True)


def note_pieces(tasks: Sequence[PlaceBlock | PictureTask], settings: CurateSettings, out: Path) -> None:
    """Write down what each piece of a run is made of, if they are to be kept."""
    if settings.work.keep_pieces:
        known = {"pieces": fingerprints(tasks, settings), "embedding": _embedding(settings)}
        write_json(work_folder(out) / _LIST, {"schema_version": 1, **known})


def take_over(tasks: Sequence[PlaceBlock | PictureTask], settings: CurateSettings, out: Path, workers: Workers) -> None:
    """Take the pieces made here from an earlier run's folder where it holds the same ones.

    That folder is ``settings.work.reuse``, or the newest one that ``--redo`` put aside, if it kept its pieces.

    Raises:
        InputError: if the folder that the settings name kept no pieces.
    """
    folder = _earlier(settings, out)
    if folder is None:
        return
    kept = folder / _KEPT
    known = read_json(kept / _LIST)
    numbers = {name: number for number, name in enumerate(known["pieces"])}
    same_features = known["embedding"] == _embedding(settings)
    wanted, taken = fingerprints(tasks, settings), 0
    for number in workers.mine(len(tasks)):
        if wanted[number] in numbers:
            _take(kept, numbers[wanted[number]], out, number, features=same_features)
            taken += 1
    workers.progress.say(f"{taken} of {len(workers.mine(len(tasks)))} pieces are as in {folder.name} and taken over")


def _earlier(settings: CurateSettings, out: Path) -> Path | None:
    named = settings.work.reuse
    if named is None:
        return next((folder for folder in retired(out) if (folder / _KEPT / _LIST).exists()), None)
    if not (named / _KEPT / _LIST).exists():
        remedy = "only a run with curate.work.keep_pieces keeps them; unset curate.work.reuse to cut all chips anew"
        raise InputError("holds no pieces to take over", where=str(named), remedy=remedy)
    return named


def _take(kept: Path, old: int, out: Path, number: int, *, features: bool) -> None:
    source, chips = kept / _CHIPS, chips_folder(out)
    array = features_of(part_path(source, old), kept / _FEATURES)
    if features and array.exists():
        _link(array, features_of(part_path(chips, number), features_folder(out)))
    if note_path(chips, number).exists():
        return
    rows = pq.read_table(part_path(source, old))
    if len(rows):
        _link(source / SHARD_FOLDER / shard_name(old), chips / SHARD_FOLDER / shard_name(number))
        at = rows.schema.get_field_index("shard")
        rows = rows.set_column(at, rows.schema.field(at), pa.array([shard_name(number)] * len(rows), pa.string()))
    write_table(part_path(chips, number), rows)
    _link(note_path(source, old), note_path(chips, number))  # last: a piece with a note is whole


def _link(source: Path, target: Path) -> None:
    """Give a file that is never written again a second name, or a copy where the disk has no such thing."""
    if target.exists():
        return
    with atomic_path(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def fingerprints(tasks: Sequence[PlaceBlock | PictureTask], settings: CurateSettings) -> list[str]:
    """Return for every task a text that is the same if and only if its piece would be."""
    cutting = {name: value for name, value in settings.identity().items() if name not in _NOT_CUTTING}
    common = _digest({"version": __version__, "settings": cutting})
    scenes: dict[int, str] = {}
    return [_digest([common, _content(task, settings, scenes)]) for task in tasks]


def _content(task: PlaceBlock | PictureTask, settings: CurateSettings, scenes: dict[int, str]) -> Any:  # noqa: ANN401 - JSON
    if isinstance(task, PictureTask):
        root = settings.images or Path()
        return [[name, fingerprint(root / name)] for name in task.names]
    for number, scene in task.scenes.items():
        if number not in scenes:
            scenes[number] = _digest(_of_scene(scene))
    spots = [[_plain(spot), [scenes[number] for number in spot.scenes]] for spot in task.spots]
    return [task.gsd_m, spots]


def _of_scene(scene: Scene) -> dict[str, Any]:
    """Return all that is known of a scene but where its file lies: its content is in its fingerprint."""
    return {f.name: str(getattr(scene, f.name)) for f in fields(scene) if f.name != "path"}


def _plain(spot: Any) -> dict[str, Any]:  # noqa: ANN401 - a frozen record
    """Return a spot's fields without ``scenes``, whose numbers change when scenes are added."""
    return {f.name: repr(getattr(spot, f.name)) for f in fields(spot) if f.name != "scenes"}


def _embedding(settings: CurateSettings) -> str:
    chosen = settings.embedding
    backbone = fingerprint(chosen.backbone) if isinstance(chosen.backbone, Path) else str(chosen.backbone)
    return _digest([__version__, chosen.identity(), backbone])


def _digest(value: Any) -> str:  # noqa: ANN401 - any JSON value
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
