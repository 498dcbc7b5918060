"""Seeded stage folders in the agreed formats, small and hostile: names hold markup, so that unescaped text would show."""

from __future__ import annotations

import datetime
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray
from PIL import Image

from cgeartheye.files import write_json
from cgeartheye.seeding import stream
from cgeartheye.settings.base import StageSettings
from cgeartheye.shards.format import Chip, Place
from cgeartheye.shards.writer import write_shard
from cgeartheye.stage import open_stage

HOSTILE = '<script>alert("x")</script>'
CLASSES = ("forest", "grassland", "cropland", "water", "built-up", HOSTILE)
CELLS = (380, 210, 520, 60, 90, 12)
DATES = tuple(datetime.date(2023, month, 14) for month in (2, 5, 8, 11))
WEST, SOUTH, SIDE = 116.2, 43.5, 0.032
COLOURS = ("#2f6b35", "#9ec36b", "#e3c567", "#3f78b5", "#c24f4a", "#8d8d8d")


class FakeSettings(StageSettings):
    """Stands for the settings of any stage."""

    note: str = ""


def finish(folder: Path, name: str, settings: dict[str, Any], summary: dict[str, Any], *, seconds: float) -> None:
    """Write the manifest of a stage whose outputs lie in ``folder``."""
    kept = {p.name: p.rename(folder.parent / f"{folder.name}-{p.name}") for p in list(folder.iterdir())}
    with open_stage(folder, name, FakeSettings(), {}) as stage:
        for original, moved in kept.items():
            moved.rename(folder / original)
        stage.finish(summary)
    manifest = json.loads((folder / "manifest.json").read_text())
    write_json(folder / "manifest.json", {**manifest, "settings": {"seed": 0, **settings}, "seconds": seconds})


def texture(kind: int, quarter: int, key: int, side: int = 128) -> NDArray[np.uint8]:
    """Return a picture (side, side, 3) that looks a little like land of a class in a quarter."""
    rng = stream(7, "texture", kind, key)
    coarse = rng.normal(size=(9, 9))
    fine = rng.normal(size=(side, side))
    y, x = np.mgrid[0:side, 0:side] / side * 8
    i, j = y.astype(int), x.astype(int)
    field = coarse[i, j] * 0.6 + coarse[i + 1, j] * (y - i) * 0.4 + coarse[i, j + 1] * (x - j) * 0.4
    base = np.array([[60, 88, 58], [120, 138, 82], [176, 160, 96], [52, 84, 108], [140, 132, 128], [150, 120, 110]])[kind]
    season = np.array([[40, 40, 44], [-8, 18, -10], [0, 0, 0], [24, -4, -18]])[quarter - 1]
    return np.clip(base + season + (field * 26 + fine * 7)[..., None], 0, 255).astype(np.uint8)


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """Return a picture (H, W, 3) as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def build_catalog(folder: Path) -> Path:
    """Write a catalogue of four scenes, one a quarter, and two files left out."""
    folder.mkdir(parents=True)
    outline = shapely.box(WEST, SOUTH, WEST + SIDE * 1.3, SOUTH + SIDE)
    rows = {
        "id": [f"scene_q{q}" for q in range(1, 5)],
        "geometry": [shapely.to_wkb(outline)] * 4,
        "date": list(DATES),
        "year": [d.year for d in DATES],
        "quarter": [1, 2, 3, 4],
        "gsd_m": [0.75] * 4,
        "width": [4096] * 4,
        "height": [4000] * 4,
        "dtype": ["uint8"] * 4,
        "mask_kind": ["nodata"] * 4,
        "date_source": ["name", "name", "tag", "csv"],
        "licence": ["CC0", "CC0", "CC0", HOSTILE],
        "notes": [[], [], [], ["grey: repeated to three bands"]],
    }
    pq.write_table(pa.table(rows), folder / "catalog.parquet")
    left_out = [
        {"path": f"archive/{HOSTILE}.tif", "reason": "the file is truncated", "remedy": "copy it again"},
        {"path": "archive/no_crs.tif", "reason": "has no coordinate system", "remedy": "gdal_edit.py -a_srs EPSG:32650"},
    ]
    write_json(folder / "left_out.json", left_out)
    finish(folder, "catalog", {"pattern": "scene_q*"}, {"scenes": 4, "headline": "4 scenes"}, seconds=3.1)
    return folder


def build_curated(folder: Path, *, places: int = 120) -> Path:
    """Write a curated folder: shards that can be read, and every table beside them."""
    folder.mkdir(parents=True)
    rng = stream(7, "curated")
    kinds = rng.choice(len(CLASSES), size=places, p=np.sqrt(CELLS) / np.sqrt(CELLS).sum())
    clusters = rng.zipf(1.6, size=places).clip(1, 14) - 1
    counts = rng.choice([1, 2, 3, 4], size=places, p=[0.05, 0.05, 0.1, 0.8])
    lon, lat = WEST + rng.random(places) * SIDE * 1.3, SOUTH + rng.random(places) * SIDE
    members = [_place(i, int(kinds[i]), int(clusters[i]), int(counts[i]), (float(lon[i]), float(lat[i]))) for i in range(places)]
    half = places // 2
    tables = [write_shard(folder / "shards" / f"{n:06d}.tar", part) for n, part in enumerate((members[:half], members[half:]))]
    pq.write_table(pa.concat_tables(tables), folder / "index.parquet")
    kept = rng.random(places) < np.where(clusters < 2, 0.5, 1.0)
    _curated_tables(folder, kinds, clusters, kept, counts)
    _positions(folder, lon, lat)
    _balance_and_gallery(folder, kinds, kept)
    settings = {"source": "archive", "embedding": {"backbone": "colour"}, "cell_m": 96, "chip_px": 128}
    finish(
        folder,
        "curate",
        settings,
        {"embedding": {"backbone": "colour", "readout": "root of the histogram"}, "headline": "places"},
        seconds=41.7,
    )
    return folder


def _place(i: int, kind: int, cluster: int, dates: int, at: tuple[float, float]) -> Place:
    chosen = sorted(stream(7, "dates", i).choice(4, size=dates, replace=False).tolist())
    chips = tuple(
        Chip(
            jpeg(texture(kind, q + 1, i)),
            {
                "date": DATES[q],
                "year": 2023,
                "quarter": q + 1,
                "scene": f"scene_q{q + 1}",
                "width": 128,
                "height": 128,
                "gsd_m": 0.75,
            },
        )
        for q in chosen
    )
    columns = {
        "lon": at[0],
        "lat": at[1],
        "land_cover": CLASSES[kind],
        "region": "north",
        "stratum": f"north|{CLASSES[kind]}|{kind % 3}",
        "cluster": cluster,
        "licence": "CC0",
    }
    return Place(f"p{i:05d}", chips, columns)


def _curated_tables(folder: Path, kinds: Any, clusters: Any, kept: Any, counts: Any) -> None:
    strata = [f"north/{c}/{k % 3}" for k, c in enumerate(CLASSES)]
    cells = [k for k, n in enumerate(CELLS) for _ in range(n)]
    wanted = [int((kinds == k).sum()) for k in range(len(CLASSES))]
    left = list(wanted)
    drawn = []
    for k in cells:
        drawn.append(left[k] > 0)
        left[k] -= 1
    columns = {"cell": range(len(cells)), "land_cover": [CLASSES[k] for k in cells], "stratum": [strata[k] for k in cells]}
    pq.write_table(pa.table({**columns, "drawn": drawn}), folder / "cells.parquet")
    places = {
        "place": [f"p{i:05d}" for i in range(len(kinds))],
        "land_cover": [CLASSES[k] for k in kinds],
        "stratum": [strata[k] for k in kinds],
        "cluster": pa.array(clusters.tolist(), pa.int32()),
        "kept": kept.tolist(),
        "n_dates": counts.tolist(),
    }
    pq.write_table(pa.table(places), folder / "places.parquet")
    bounds = {"capped": [n < 15 for n in CELLS], "floored": [False] * len(CELLS)}
    alpha = {"cells": list(CELLS), "alpha": [n / 7 for n in CELLS]}
    pq.write_table(pa.table({"stratum": strata, **alpha, **bounds, "drawn": wanted}), folder / "strata.parquet")
    steps = {"cells_covered": sum(CELLS) + 90, "cells_outside_hold_out": sum(CELLS), "cells_drawn": len(kinds) + 9, "strata": 6}
    chips = {"chips_cut": int(counts.sum()) + 9, "no_data": 3, "saturated": 4, "shifted": 2, "chips": int(counts.sum())}
    ends = {"places_drawn": len(kinds) + 9, "places": len(kinds), "kept": int(kept.sum()), "shift_flagged": 7}
    write_json(folder / "funnel.json", {"schema_version": 1, "steps": {**steps, **chips, **ends}})
    reasons = ["shifted by 3.2 px against 2023-02-14", "shifted by 11 px against 2023-05-14", HOSTILE, "2 good dates, 3 wanted"]
    nothing = [None] * len(reasons)
    rejected = {"place": [f"r{i}" for i in range(len(reasons))], "scene": pa.array(nothing, pa.string()), "reason": reasons}
    pq.write_table(pa.table(rejected), folder / "rejected.parquet")


def _positions(folder: Path, lon: Any, lat: Any) -> None:
    """Put the places on the map, and the cells somewhere near."""
    places = pq.read_table(folder / "places.parquet")
    for name, values in (("lon", lon), ("lat", lat), ("cell", range(len(places)))):
        places = places.append_column(name, [list(values)])
    pq.write_table(places, folder / "places.parquet")
    cells = pq.read_table(folder / "cells.parquet")
    around = np.linspace(0, 1, len(cells))
    cells = cells.append_column("lon", [WEST + SIDE * around]).append_column("lat", [SOUTH + SIDE * around[::-1]])
    pq.write_table(cells, folder / "cells.parquet")


def _balance_and_gallery(folder: Path, kinds: Any, kept: Any) -> None:
    rows = []
    for k, name in enumerate(CLASSES):
        good = int((kinds == k).sum())
        left = int((kept & (kinds == k)).sum())
        rows.append({"measure": "land_cover", "name": name, "available": CELLS[k], "drawn": good, "good": good, "kept": left})
    for k in range(3):
        bin_ = {"low": -500.0 + 200 * k, "high": -300.0 + 200 * k, "available": 9, "drawn": 4, "good": 4, "kept": k}
        rows.append({"measure": "elevation_bin", "name": str(k), **bin_})
    rows += [{"measure": "seasons", "name": str(n), "low": n, "high": n, "good": 10 * n, "kept": 9 * n} for n in (1, 2, 4)]
    rows += [{"measure": "q_std", "name": str(n), "low": float(n), "high": n + 1.0, "good": 30 - n, "kept": n} for n in range(30)]
    types = {"measure": pa.string(), "name": pa.string(), "low": pa.float64(), "high": pa.float64()}
    schema = pa.schema([*types.items(), *((name, pa.int64()) for name in ("available", "drawn", "good", "kept"))])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "balance.parquet")
    shown = [(group, k, i) for k, group in enumerate(("largest", "smallest", "dropped")) for i in range(6)]
    gallery = [
        {
            "group": g,
            "cluster": k,
            "size": 9,
            "place": f"p{i}",
            "kept": i % 2 == 0 and g != "dropped",
            "jpeg": jpeg(texture(k, 1, i)),
        }
        for g, k, i in shown
    ]
    pq.write_table(pa.Table.from_pylist(gallery), folder / "gallery.parquet")
    pq.write_table(pa.table({"cluster": [0, 1, 2], "places": [60, 50, 10], "kept": [30, 30, 10]}), folder / "clusters.parquet")


def build_pretrained(folder: Path) -> Path:
    """Write a training log of 600 steps, its last line cut short, and a model card."""
    folder.mkdir(parents=True)
    rng = stream(7, "log")
    lines = []
    for step in range(0, 3000, 5):
        fade = float(np.exp(-step / 700))
        line: dict[str, Any] = {"step": step, "samples": step * 32, "seconds": step * 0.4, "cpu_seconds": step * 0.39}
        parts = {
            "loss_global": 3.1 + 2.2 * fade,
            "loss_local": 3.4 + 2.0 * fade,
            "loss_season": 3.6 + 1.9 * fade,
            "loss_patch": 3.9 + 1.5 * fade,
        }
        line |= {k: v + float(rng.normal()) * 0.09 for k, v in parts.items()} | {"koleo": -0.4 - 0.5 * (1 - fade)}
        line |= {
            "loss": sum(parts.values()) + float(rng.normal()) * 0.2,
            "lr": 2e-3 * min(1.0, step / 300) * (0.5 + 0.5 * np.cos(np.pi * step / 3000)),
        }
        line |= {
            "ema": 0.99,
            "teacher_entropy": 0.5 + 0.4 * fade,
            "rank": 36 * (1 - fade) + 3,
            "prototypes_used": 256 - 60 * fade,
        }
        if step % 500 == 0:
            line |= {
                "probe_class": 0.48 + 0.1 * (1 - fade),
                "probe_patch": 0.49 + 0.14 * (1 - fade),
                "probe_rank": 30 * (1 - fade) + 2,
            }
            line |= {"probe_labels": "land_cover", "probe_chips": 512}
        lines.append(json.dumps(line))
    (folder / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 3000, "los')
    write_json(
        folder / "backbone.json",
        {"schema_version": 1, "config": {"depth": 4, "width": 128, "patch_px": 8}, "card": {"licence": "CC0"}},
    )
    settings = {
        "backbone": "nano",
        "batch": 32,
        "optimizer": {"lr": 2e-3, "betas": [0.9, 0.95]},
        "season": {"mode": "add", "weight": 1.0},
        HOSTILE: HOSTILE,
    }
    finish(folder, "pretrain", settings, {"name": "cgeartheye-nano", "headline": "3,000 steps"}, seconds=1188.0)
    return folder


@dataclass(frozen=True)
class Row:
    """The values of one result row that differ between rows."""

    probe: str
    method: str
    readout: str
    value: float
    against: str | None = None
    difference: float | None = None


ROWS = (
    Row("knn", "trained", "patch", 0.622, "untrained", 0.133),
    Row("knn", "trained", "patch", 0.622, "colour_mean_std", 0.139),
    Row("knn", "trained", "patch", 0.622, "joint_histogram", -0.036),
    Row("knn", "trained", "class", 0.569, "untrained", 0.086),
    Row("knn", "untrained", "patch", 0.489),
    Row("knn", "untrained", "class", 0.483),
    Row("knn", "colour_mean_std", "colour", 0.483),
    Row("knn", "joint_histogram", "colour", 0.658),
    Row("linear", "trained", "patch", 0.711, "untrained", 0.064),
    Row("linear", "trained", "patch", 0.711, "joint_histogram", 0.064),
    Row("linear", "trained", "class", 0.642, "untrained", 0.081),
    Row("linear", "untrained", "patch", 0.647),
    Row("linear", "joint_histogram", "colour", 0.647),
    Row("retrieval", "trained", "patch", 0.412, "untrained", 0.171),
    Row("retrieval", "untrained", "patch", 0.241),
    Row("retrieval", "pixels", "colour", 0.318),
)


def result_record(row: Row) -> dict[str, Any]:
    """Return one row as the evaluation writes it."""
    d = row.difference
    return {
        "dataset": "world" if row.probe == "retrieval" else f"resisc45 {HOSTILE}",
        "protocol": "hash-v1",
        "method": row.method,
        "backbone": "nano",
        "backbone_fingerprint": "ab12",
        "readout": row.readout,
        "probe": row.probe,
        "metric": "recall_at_1" if row.probe == "retrieval" else "overall_accuracy",
        "value": row.value,
        "low": row.value - 0.05,
        "high": row.value + 0.05,
        "seeds": 3,
        "n_test": 360,
        "against": row.against,
        "difference": d,
        "difference_low": None if d is None else d - 0.05,
        "difference_high": None if d is None else d + 0.05,
        "licence": "research use",
        "measured": True,
        "chance": None if row.probe == "retrieval" else 0.083,
    }


def build_evaluated(folder: Path) -> Path:
    """Write result rows, a confusion matrix and feature pictures."""
    folder.mkdir(parents=True)
    write_json(folder / "results.json", {"schema_version": 1, "rows": [result_record(r) for r in ROWS]})
    rng = stream(7, "confusion")
    n = len(CLASSES)
    counts = rng.poisson(2.0, size=(n, n)) + np.diag(rng.poisson(38, size=n))
    matrix = {
        "dataset": "resisc45",
        "method": "trained",
        "readout": "patch",
        "probe": "knn",
        "classes": list(CLASSES),
        "counts": counts.tolist(),
    }
    write_json(folder / "confusion.json", {"schema_version": 1, "matrices": [matrix]})
    pictures = np.stack([texture(k, 3, k) for k in range(6)])
    np.savez(
        folder / "pca.npz", pictures=pictures, pca=rng.integers(0, 256, (6, 16, 16, 3), dtype=np.uint8), names=np.array(CLASSES)
    )
    finish(folder, "evaluate", {"k": 20, "seeds": [0, 1, 2]}, {"headline": "16 rows"}, seconds=212.0)
    return folder


def _scores() -> dict[str, Any]:
    def score(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.04, "high": value + 0.04}

    def method(base: float) -> dict[str, Any]:
        iou = {name: score(base + 0.03 * k) for k, name in enumerate(CLASSES)}
        return {"miou": score(base + 0.07), "overall_accuracy": score(base + 0.25), "iou": iou, "blocks": 40, "pixels": 10**6}

    gains = {"colour": 0.11, "untrained": 0.03}
    methods = {"trained": method(0.48), **{k: {**method(0.48 - g), "gain": score(g)} for k, g in gains.items()}}
    return {"schema_version": 1, "classes": list(CLASSES), "methods": methods}


def build_adapted(folder: Path) -> Path:
    """Write a task model's description with its scores."""
    folder.mkdir(parents=True)
    classes = [{"name": n, "value": i, "colour": c} for i, (n, c) in enumerate(zip(CLASSES, COLOURS, strict=True))]
    write_json(folder / "task.json", {"schema_version": 1, "task": "segmentation", "classes": classes, "scores": _scores()})
    finish(folder, "adapt", {"head": {"kind": "conv"}}, {"headline": "mIoU 55 %"}, seconds=96.0)
    return folder


def build_maps(folder: Path) -> Path:
    """Write two mapped scenes: one with truth and scores, one without."""
    palette = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in COLOURS], dtype=np.uint8)
    rng = stream(7, "map")
    for name, scored in (("scene_q3", True), ("scene_q4", False)):
        inner = folder / name
        inner.mkdir(parents=True)
        truth = np.kron(rng.integers(0, 6, size=(18, 24)), np.ones((20, 20), dtype=int))
        noisy = np.where(rng.random(truth.shape) < 0.08, rng.integers(0, 6, size=truth.shape), truth)
        (inner / "classes.tif").write_bytes(b"II*\x00")
        shares = {name: float((noisy == k).mean()) for k, name in enumerate(CLASSES)}
        record = {"width": 480, "height": 360, "gsd_m": 0.75, "windows": 12, "lost": [], "unmapped_share": 0.02, "shares": shares}
        write_json(inner / "scene.json", {"schema_version": 1, **record})
        picture = Image.fromarray(noisy.astype(np.uint8), "P")
        picture.putpalette(palette.tobytes())
        picture.save(inner / "preview.png")
        shaded = palette[truth] * 0.5 + 60 + rng.normal(size=(*truth.shape, 1)) * 14
        Image.fromarray(np.clip(shaded, 0, 255).astype(np.uint8)).save(inner / "scene_preview.png")
        if scored:
            Image.fromarray(palette[truth]).save(inner / "truth_preview.png")
            write_json(inner / "scores.json", _scores())
    write_json(folder / "left_out.json", [{"path": "broken.tif", "reason": HOSTILE, "remedy": "copy it again"}])
    finish(folder, "map", {"window_px": 160}, {"headline": "2 scenes"}, seconds=58.0)
    return folder


def build_project(root: Path) -> dict[str, Path]:
    """Write all six folders below ``root`` and return them by the name of their setting."""
    return {
        "catalog": build_catalog(root / "catalog"),
        "curated": build_curated(root / "curated"),
        "pretrained": build_pretrained(root / "pretrained"),
        "evaluated": build_evaluated(root / "evaluated"),
        "adapted": build_adapted(root / "adapted"),
        "maps": build_maps(root / "maps"),
    }
