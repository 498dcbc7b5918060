"""The stage `evaluate`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cgeartheye.errors import InputError
from cgeartheye.evaluation.classification import Classified, classify
from cgeartheye.evaluation.describe import Describer
from cgeartheye.evaluation.finding import find_places
from cgeartheye.evaluation.illustrate import write_confusion, write_pca
from cgeartheye.evaluation.networks import TRAINED, Networks, know_networks
from cgeartheye.evaluation.table import Row, result_rows, write_results
from cgeartheye.progress import SILENT, Progress
from cgeartheye.settings.evaluate import EvaluateSettings
from cgeartheye.stage import open_stage
from cgeartheye.training.runtime import pick_device, using_threads

_LOG = logging.getLogger(__name__)


def evaluate(settings: EvaluateSettings, out: Path, *, progress: Progress = SILENT) -> Path:
    """Measure frozen backbones on labelled pictures and on places at several dates.

    Writes ``results.parquet``, ``results.json`` and ``results.md`` (every figure with its 95 % interval, the trained ones with
    paired differences), ``predictions/``, ``features/``, ``datasets/`` (which pictures were used), ``confusion.json`` and
    ``pca.npz``. Feature and prediction files are whole or absent, so a killed run goes on where it was.

    Args:
        settings: what to measure.
        out: the stage's folder.
        progress: told what happens.

    Raises:
        InputError: if no backbone or no data is named, or a path is wrong.
        DataError: if a backbone or data set cannot be used, or test pictures were trained on.
        ResourceError: if weights cannot be fetched, there is no GPU, or the folder cannot be written.
    """
    backbones = _backbones(settings)
    with open_stage(out, "evaluate", settings, _inputs(settings, backbones)) as stage:
        if stage.finished:
            return out
        with using_threads(settings.threads):
            networks = know_networks(
                backbones, untrained=settings.untrained, seed=settings.seed, device=pick_device(settings.device)
            )
            describer = Describer(networks, settings.readouts, settings.batch, progress)
            rows = _measure(settings, out, describer, progress)
        stage.finish(_summary(rows, networks))
    return out


def _measure(settings: EvaluateSettings, out: Path, describer: Describer, progress: Progress) -> list[Row]:
    networks = describer.networks
    classified: list[Classified] = []
    for folder in settings.datasets:
        classified.append(classify(folder, settings, out, describer=describer))
        _tell(classified[-1], progress)
    found = [find_places(places, settings, out, describer=describer) for places in settings.retrieval]
    results = [*(folder.result for folder in classified), *found]
    rows = [row for r in results for row in result_rows(r, networks, replicates=settings.bootstrap, seed=settings.seed)]
    if classified:
        write_confusion(out / "confusion.json", classified)
        write_pca(out / "pca.npz", networks.open(TRAINED, 0), classified[0].pictures.test)
    write_results(out, rows)
    return rows


def _tell(classified: Classified, progress: Progress) -> None:
    pictures = classified.pictures
    counts = f"{len(pictures.classes)} classes, {len(pictures.train)} pictures to learn from, {len(pictures.test)} to test"
    text = f"{classified.result.dataset}: {counts}"
    if pictures.left_out:
        text += f"; {len(pictures.left_out)} pictures cannot be read"
    if pictures.duplicates:
        text += f"; {pictures.duplicates} left the bank because the test part has them"
    _LOG.info(text)
    progress.say(text)


def _backbones(settings: EvaluateSettings) -> tuple[str | Path, ...]:
    if not settings.backbones:
        raise InputError(
            "no backbone is named", where="evaluate.backbones", remedy="pre-train one, or name a folder or timm:NAME"
        )
    if not settings.datasets and not settings.retrieval:
        raise InputError("there is nothing to measure on", remedy="name class folders (datasets) or shards (retrieval)")
    return settings.backbones


def _inputs(settings: EvaluateSettings, backbones: Sequence[str | Path]) -> dict[str, Path]:
    inputs = {f"backbones.{number}": path for number, spec in enumerate(backbones) if (path := _local(spec))}
    inputs |= {f"datasets.{folder.name}": folder.root for folder in settings.datasets}
    for places in settings.retrieval:
        if places.curated is None:
            raise InputError(
                f"evaluate.retrieval {places.name!r} names no curated folder", remedy="name the folder that curate wrote"
            )
        inputs[f"retrieval.{places.name}"] = places.curated
    return inputs


def _local(spec: str | Path) -> Path | None:
    if isinstance(spec, Path):
        return spec
    return Path(spec.removeprefix("hf:")) if spec.startswith("hf:") else None


def _summary(rows: Sequence[Row], networks: Networks) -> Mapping[str, Any]:
    best: dict[str, Row] = {}
    for row in rows:
        key = f"{row['dataset']} {row['probe']}"
        if (
            row["method"] == TRAINED
            and row["metric"] != "mean_reciprocal_rank"
            and row["value"] > best.get(key, {"value": -1})["value"]
        ):
            best[key] = row
    figures = {
        key: {name: row[name] for name in ("readout", "metric", "value", "low", "high")} for key, row in sorted(best.items())
    }
    told = [f"{key} {100 * f['value']:.1f} % [{100 * f['low']:.1f}, {100 * f['high']:.1f}]" for key, f in figures.items()]
    return {
        "headline": "; ".join(told),
        "best": figures,
        "backbone": networks.name,
        "seeds": len(networks.known),
        "rows": len(rows),
    }
