"""The stage `curate`: from scenes or plain pictures to a balanced data set in shards."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cgeartheye.clustering.rows import Picked, Rows
from cgeartheye.clustering.tree import Tree
from cgeartheye.curation.anchors import Embedded, embed_anew
from cgeartheye.curation.archive import begin_archive
from cgeartheye.curation.distribution import write_distributions
from cgeartheye.curation.dropping import Dropped, drop_same
from cgeartheye.curation.embedding import embed_pieces, features_of, level_widths, read_features
from cgeartheye.curation.exclusion import refuse_exclusions
from cgeartheye.curation.gallery import write_gallery
from cgeartheye.curation.land import describe_land, draw_land
from cgeartheye.curation.parts import Part
from cgeartheye.curation.pictures import cut_pictures, find_pictures
from cgeartheye.curation.pieces import Piece, Workers, cut_pieces, gather_pieces, part_path, rejected_table
from cgeartheye.curation.places import cut_places
from cgeartheye.curation.ranking import RankedChips, rank_chips
from cgeartheye.curation.reuse import chips_folder, features_folder, note_pieces, put_away, take_over, work_folder
from cgeartheye.curation.selection import DROPPED_SHARE, Selection, Traits, cluster_places, select_places, with_dropped
from cgeartheye.curation.storing import Store, note_embeddings, store_places
from cgeartheye.curation.tables import write_places, write_rejected
from cgeartheye.errors import DataError, InputError
from cgeartheye.files import write_json
from cgeartheye.progress import SILENT, Progress
from cgeartheye.settings.curate import CurateSettings
from cgeartheye.shards.writer import write_table
from cgeartheye.stage import known_parts, open_part, open_stage

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
    ``balance.parquet``, ``gallery.parquet``, ``rejected.parquet``, ``funnel.json`` and, for an archive, ``cells.parquet``
    and ``strata.parquet``. While it works, a hidden folder holds the chips of all places, so that the disk needs room for
    them twice. From land alone it receives the last three only.

    With ``settings.work.part`` only some of the chips are cut and embedded, and the stage stays unfinished; any number of
    parts may work in ``out`` at once.

    Returns: ``out``.

    Raises:
        InputError: if neither a catalogue nor a folder of pictures is given, or it cannot be read.
        DataError: if no place can be used; the message counts what was lost where.
        ResourceError: if the disk is full, a process was killed, or others work in ``out``.
    """
    work = settings.work
    part = None if work.part is None else Part.parse(work.part)
    with Workers(settings.workers, progress, part=part, cluster=work.cluster) as workers:
        if part is not None:
            with open_part(out, "curate", settings, _inputs(settings), part=part.key) as stage:
                if not stage.finished:
                    _curate_part(settings, out, workers, part)
            return out
        with open_stage(out, "curate", settings, _inputs(settings)) as stage:
            if not stage.finished:
                _remove_torn(out)
                stage.finish(_curate(settings, out, workers))
            put_away(out, keep=work.keep_pieces)
    return out


def _inputs(settings: CurateSettings) -> dict[str, Path]:
    if settings.source == "images":
        if settings.images is None:
            raise InputError("no folder of pictures is given", where="curate.images", remedy="set curate.images, or --images")
        inputs = {"images": settings.images}
    elif settings.source == "land":
        inputs = _layers(settings)
    else:
        if settings.catalog is None:
            remedy = "run `cgeartheye catalog` first, set curate.catalog, or use `source: images` for plain pictures"
            raise InputError("no catalogue is given", where="curate.catalog", remedy=remedy)
        inputs = _layers(settings)
    refuse_exclusions(settings)
    inputs |= {f"exclude_{number}": path for number, path in enumerate(settings.exclude)}
    backbone = settings.embedding.backbone
    return {**inputs, "backbone": backbone} if isinstance(backbone, Path) and settings.source != "land" else inputs


def _remove_torn(out: Path) -> None:
    """Remove temporary files and folders that a killed run left."""
    for path in list(out.rglob(".*.tmp*")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Plan:
    """The list of pieces of a run, the same in every process: what makes them, from what, under which title."""

    make: Callable[[Any], Piece]
    tasks: Sequence[Any]
    title: str
    counts: Mapping[str, int]


def _plan(settings: CurateSettings, out: Path, workers: Workers) -> _Plan:
    if settings.source == "images" and settings.images is not None:
        found = find_pictures(settings.images, settings)
        workers.progress.say(f"{found.n_found} pictures found, {found.n_part} in the part {settings.split.part!r}")
        return _Plan(cut_pictures, found.tasks, "pictures", {"found": found.n_found, "in_part": found.n_part})
    drawn = begin_archive(settings, out, workers)
    return _Plan(cut_places, drawn.tasks, "places", drawn.counts)


def _make_pieces(plan: _Plan, settings: CurateSettings, out: Path, workers: Workers) -> dict[str, Any]:
    """Cut and embed every piece that is made here; return what made the embeddings."""
    take_over(plan.tasks, settings, out, workers)
    cut_pieces(plan.make, plan.tasks, chips_folder(out), workers=workers, title=plan.title)
    return embed_pieces(_parts(plan, out), features_folder(out), settings, workers)


def _parts(plan: _Plan, out: Path) -> list[Path]:
    return [part_path(chips_folder(out), number) for number in range(len(plan.tasks))]


def _curate_part(settings: CurateSettings, out: Path, workers: Workers, part: Part) -> None:
    if settings.source == "land":
        folders = describe_land(settings, work_folder(out), workers)
        said = f"part {part}: its {len(workers.mine(len(folders)))} of {len(folders)} pieces of land are described"
        workers.progress.say(f"{said}; the command without --part does the rest")
        return
    plan = _plan(settings, out, workers)
    _make_pieces(plan, settings, out, workers)
    mine = len(workers.mine(len(plan.tasks)))
    left = _missing(plan, out)
    others = f"{len(left)} of other parts are still to be made" if left else "all others are there"
    said = f"part {part}: its {mine} of {len(plan.tasks)} pieces are cut and embedded, {others}"
    workers.progress.say(f"{said}; the command without --part does the rest")


def _missing(plan: _Plan, out: Path) -> list[int]:
    return [number for number, path in enumerate(_parts(plan, out)) if not features_of(path, features_folder(out)).exists()]


def _tell_missing_parts(plan: _Plan, out: Path, progress: Progress) -> None:
    """Say which parts of an array did not do all they had to, before their pieces are made here."""
    parts = known_parts(out)
    missing = _missing(plan, out)
    if not parts or not missing:
        return
    n = int(parts[0].rsplit("-", 1)[-1])
    names = ", ".join(f"{i + 1}/{n}" for i in sorted({number % n for number in missing}))
    progress.say(f"{len(missing)} of {len(plan.tasks)} pieces are missing, those of the parts {names}; they are made here")


def _curate(settings: CurateSettings, out: Path, workers: Workers) -> dict[str, Any]:
    if settings.source == "land":
        return draw_land(settings, out, work_folder(out), workers)
    plan = _plan(settings, out, workers)
    _tell_missing_parts(plan, out, workers.progress)
    embedding = _make_pieces(plan, settings, out, workers)
    pieces = gather_pieces(chips_folder(out), len(plan.tasks))
    ranked = rank_chips(pieces.rows, settings, work_folder(out))
    funnel = {**plan.counts, **pieces.counts}
    funnel |= {name: funnel.get(name, 0) + count for name, count in ranked.counts.items()}
    if not len(ranked.rows):
        write_rejected(out, pieces.rejected, rejected_table(ranked.rejected))
        write_json(out / "funnel.json", {"schema_version": 1, "steps": funnel})
        raise _nothing_left(settings, funnel)
    note_pieces(plan.tasks, settings, out)
    parts = _parts(plan, out)
    first = pieces.rows.select(["place", "stratum"]).filter(pa.compute.equal(pieces.rows["date_index"], 0))
    embedded = embed_anew(pieces.rows, ranked.shown, Embedded(parts, features_folder(out)), settings, workers)
    mapped, combine = read_features(parts, embedded), settings.embedding.combine
    names, blocks = first["place"].to_pylist(), level_widths(embedding)

    def cluster(some: Sequence[str], features: Rows) -> Tree:
        return cluster_places(some, features, blocks, settings.clusters, combine=combine, seed=settings.seed)

    tree = cluster(names, mapped)
    folders = (chips_folder(out), embedded, work_folder(out) / "same")
    dropped = drop_same(ranked.shown, tree.labels[0], settings, folders, workers)
    left = np.flatnonzero(dropped.usable)
    if 0 < len(left) < (1 - DROPPED_SHARE) * len(names):
        again = cluster([names[place] for place in left], Picked(mapped, left))
        tree = with_dropped(again, tree.labels[0], dropped.same_as)
    selection = _select(first, tree, ranked, dropped, settings)
    n_rejected = write_rejected(out, pieces.rejected, *map(rejected_table, (ranked.rejected, dropped.rejected)))
    if n_rejected:
        workers.progress.say(f"{n_rejected} chips or places left out; rejected.parquet names each with its reason")
    rows, features = ranked.rows, read_features(parts, embedded, None if ranked.places.all() else ranked.places)
    store = Store(chips_folder(out), work_folder(out), out, settings.shard_mb)
    shards = store_places(rows, selection, features, store, workers)
    note_embeddings(out, embedding, features.shape[1])
    write_places(out, rows, selection, archive=settings.source == "archive")
    write_table(out / "clusters.parquet", selection.table)
    write_distributions(out, rows, selection, settings)
    write_gallery(out, chips_folder(out), rows, selection, seed=settings.seed)
    pieces.forget()
    funnel = {**funnel, **dropped.counts, "kept": int(selection.kept.sum())}
    excluded = dropped.excluded
    if excluded is not None and "cells_excluded" in funnel:
        excluded = {**excluded, "cells": funnel["cells_excluded"]}
    return _summary(out, rows, selection, funnel, {"embedding": embedding, "shards": shards, "excluded": excluded})


def _select(first: pa.Table, tree: Tree, ranked: RankedChips, dropped: Dropped, settings: CurateSettings) -> Selection:
    """Keep places evenly among those that ranking and the search for duplicates left; ``first`` has a row for every place."""
    n_dates = np.zeros(len(first), np.int64)
    n_dates[ranked.places] = np.diff(np.flatnonzero(ranked.rows["date_index"].to_numpy() == 0), append=len(ranked.rows))
    traits, usable = Traits(first["stratum"].to_pylist(), n_dates), dropped.usable & ranked.places
    names = first["place"].to_pylist()
    selection = select_places(names, tree, settings.clusters, usable=usable, traits=traits, seed=settings.seed)
    return selection.among(ranked.places)


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
