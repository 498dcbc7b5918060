"""The stage `curate`: from scenes or plain pictures to a balanced data set in shards."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cgeartheye.curation.archive import begin_archive
from cgeartheye.curation.embedding import embed
from cgeartheye.curation.land import draw_land
from cgeartheye.curation.pictures import cut_pictures, find_pictures
from cgeartheye.curation.pieces import Pieces, Workers, cut_pieces
from cgeartheye.curation.places import cut_places
from cgeartheye.curation.selection import Selection, select_places
from cgeartheye.curation.storing import Store, note_embeddings, store_places
from cgeartheye.curation.tables import write_places, write_rejected
from cgeartheye.errors import DataError, InputError
from cgeartheye.files import write_json
from cgeartheye.progress import SILENT, Progress
from cgeartheye.settings.curate import CurateSettings
from cgeartheye.shards.writer import write_table
from cgeartheye.stage import open_stage

_WORK = ".work"
_LAYERS = ("catalog", "land_cover", "elevation", "regions", "hold_out")


def _layers(settings: CurateSettings) -> dict[str, Path]:
    names = _LAYERS[1:] if settings.source == "land" else _LAYERS
    found = {name: path for name in names if (path := getattr(settings, name)) is not None}
    draw = settings.draw
    areas = {"area": draw.area, **{f"budget_{b.name}": b.area for b in draw.budgets}}
    weights = {f"weight_{number}": one.layer for number, one in enumerate(draw.weights)}
    return found | {name: path for name, path in areas.items() if path is not None} | weights


def curate(settings: CurateSettings, out: Path, *, progress: Progress = SILENT) -> Path:
    """Draw places, cut and check their chips, balance them over clusters and write shards.

    ``out`` receives ``shards/``, ``index.parquet``, ``embeddings/``, ``places.parquet``, ``clusters.parquet``,
    ``rejected.parquet``, ``funnel.json`` and, for an archive, ``cells.parquet`` and ``strata.parquet``. While it works,
    a hidden folder holds the chips of all places, so that the disk needs room for them twice. From land alone it
    receives the last three only.

    Returns: ``out``.

    Raises:
        InputError: if neither a catalogue nor a folder of pictures is given, or it cannot be read.
        DataError: if no place can be used; the message counts what was lost where.
        ResourceError: if the disk is full or a process was killed.
    """
    with open_stage(out, "curate", settings, _inputs(settings)) as stage:
        work = out / _WORK
        if not stage.finished:
            _remove_torn(out)
            with Workers(settings.workers, progress) as workers:
                stage.finish(_curate(settings, out, work, workers))
        shutil.rmtree(work, ignore_errors=True)
    return out


def _inputs(settings: CurateSettings) -> dict[str, Path]:
    if settings.source == "images":
        if settings.images is None:
            raise InputError("no folder of pictures is given", where="curate.images", remedy="set curate.images, or --images")
        inputs = {"images": settings.images}
    elif settings.source == "land":
        return _layers(settings)
    else:
        if settings.catalog is None:
            remedy = "run `cgeartheye catalog` first, set curate.catalog, or use `source: images` for plain pictures"
            raise InputError("no catalogue is given", where="curate.catalog", remedy=remedy)
        inputs = _layers(settings)
    backbone = settings.embedding.backbone
    return {**inputs, "backbone": backbone} if isinstance(backbone, Path) else inputs


def _remove_torn(out: Path) -> None:
    """Remove temporary files that a killed run left."""
    for path in out.rglob(".*.tmp*"):
        path.unlink(missing_ok=True)


def _curate(settings: CurateSettings, out: Path, work: Path, workers: Workers) -> dict[str, Any]:
    if settings.source == "land":
        return draw_land(settings, out, work, workers)
    pieces, funnel = _cut(settings, out, work / "chips", workers)
    rows = pieces.rows
    names = rows.filter(pa.compute.equal(rows["date_index"], 0))["place"].to_pylist()
    write_rejected(out, pieces.rejected)
    if pieces.rejected:
        workers.progress.say(f"{len(pieces.rejected)} chips or places left out; rejected.parquet names each with its reason")
    if not names:
        write_json(out / "funnel.json", {"schema_version": 1, "steps": funnel})
        raise _nothing_left(settings, funnel)
    features, made = embed(work / "chips", work / "features", settings, workers)
    selection = select_places(names, features, settings.clusters, seed=settings.seed)
    store = Store(work / "chips", work, out, settings.shard_mb)
    shards = store_places(rows, selection, features, store, workers)
    note_embeddings(out, made, features.shape[1])
    write_places(out, rows, selection, archive=settings.source == "archive")
    write_table(out / "clusters.parquet", selection.table)
    return _summary(out, rows, selection, {**funnel, "kept": int(selection.kept.sum())}, {"embedding": made, "shards": shards})


def _cut(settings: CurateSettings, out: Path, folder: Path, workers: Workers) -> tuple[Pieces, dict[str, int]]:
    if settings.source == "images" and settings.images is not None:
        found = find_pictures(settings.images, settings)
        workers.progress.say(f"{found.n_found} pictures found, {found.n_part} in the part {settings.split.part!r}")
        pieces = cut_pieces(cut_pictures, found.tasks, folder, workers=workers, title="pictures")
        return pieces, {"found": found.n_found, "in_part": found.n_part, **pieces.counts}
    drawn = begin_archive(settings, out, workers.progress)
    pieces = cut_pieces(cut_places, drawn.tasks, folder, workers=workers, title="places")
    return pieces, {**drawn.counts, **pieces.counts}


def _nothing_left(settings: CurateSettings, funnel: Mapping[str, int]) -> DataError:
    steps = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in funnel.items())
    where = settings.images if settings.source == "images" else settings.catalog
    return DataError(
        f"no valid chip is left ({steps})",
        where=str(where),
        remedy="rejected.parquet in the stage's folder lists each chip's reason; mend the pictures or relax curate.quality",
    )


def _summary(
    out: Path, rows: pa.Table, selection: Selection, funnel: Mapping[str, int], more: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the funnel and return what the manifest quotes."""
    write_json(out / "funnel.json", {"schema_version": 1, "steps": dict(funnel)})
    places = int(selection.kept.sum())
    starts = np.flatnonzero(rows["date_index"].to_numpy() == 0)
    n_dates = np.diff(starts, append=len(rows))[selection.kept]
    chips = int(n_dates.sum())
    colour = more["embedding"]["backbone"] == "colour"
    return {
        "headline": f"{places} places, {chips} chips in {more['shards']} shards"
        + (", balanced by colour alone" if colour else ""),
        "places": places,
        "chips": chips,
        "dates_per_place": _histogram(n_dates),
        "quarters": _histogram(rows["quarter"].to_numpy()[np.repeat(selection.kept, np.diff(starts, append=len(rows)))]),
        "clusters": len(selection.table),
        "licences": sorted(set(rows["licence"].drop_null().to_pylist())),
        "funnel": dict(funnel),
        **more,
    }


def _histogram(values: Sequence[int] | np.ndarray[Any, Any]) -> dict[str, int]:
    found, counts = np.unique(np.asarray(values), return_counts=True)
    return {str(value): int(count) for value, count in zip(found, counts, strict=True)}
