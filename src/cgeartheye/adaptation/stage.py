"""The stage `adapt`: from pictures with masks to a task model, its baselines and its scores."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from cgeartheye.adaptation.card import model_card
from cgeartheye.adaptation.legend import Legend
from cgeartheye.adaptation.loading import Windows, load_windows
from cgeartheye.adaptation.methods import Trained, Trainer
from cgeartheye.errors import InputError
from cgeartheye.files import write_json, write_text
from cgeartheye.geometry.windows import check_lattice
from cgeartheye.metrics.segmentation import score_table
from cgeartheye.progress import SILENT, Progress
from cgeartheye.settings.adapt import AdaptSettings
from cgeartheye.stage import open_stage
from cgeartheye.tasks.segmentation import TaskCard, quarter_layers, save_task
from cgeartheye.training.runtime import using_threads
from cgeartheye.weights.backbone import Backbone
from cgeartheye.weights.load import load_backbone

PATCHES_A_WINDOW: Final = 36
"""Side of a default window in patches [ours]: 504 px for patches of 14, next to the 518 px that backbones end training with."""
SMALL_PATCH_WINDOW: Final = {8: 160}
"""Default window of small patches in pixels: with a halo of 16 its core is 128, which is a legal block of a COG [ours]."""
DRAWS: Final = 2000
"""Draws of the bootstrap over validation groups [ours]."""


def adapt(settings: AdaptSettings, out: Path, *, progress: Progress = SILENT) -> Path:
    """Train a segmentation head on a frozen backbone from pictures and masks.

    Writes ``head.safetensors``, the baselines' weights, ``task.json``, ``metrics.jsonl``, ``left_out.json`` and
    ``MODEL_CARD.md``; a killed run goes on from its cached tokens and its last checkpoint and ends with the same bytes.

    Raises:
        InputError: if no backbone is given, or window and halo do not fit its patch.
        DataError: if masks hold what the legend does not list, a class has no training pixels, or no pair is usable.
    """
    if settings.backbone is None:
        raise InputError("no backbone is given", where="adapt.backbone", remedy="give one, or run `pretrain` first")
    spec = str(settings.backbone)
    with open_stage(out, "adapt", settings, _inputs(settings)) as stage, using_threads(settings.threads):
        if stage.finished:
            return out
        backbone = load_backbone(spec)
        sizes = window_sizes(settings.window_px, settings.halo_px, backbone.patch_px)
        windows = load_windows(settings, sizes[0], progress)
        layers = settings.head.layers or quarter_layers(backbone.depth)
        work = out / ".work" / backbone.fingerprint[:16]
        trained = Trainer(windows, settings, layers, work, progress).all(backbone)
        scores = _scores(trained, windows, settings)
        card = _card(spec, out, backbone, layers, sizes, settings)
        card = _with_results(card, trained, windows, scores)
        save_task(out, card, {method: result.state for method, result in trained.items()})
        _write_reports(out, card, trained, windows)
        shutil.rmtree(out / ".work", ignore_errors=True)
        stage.finish(_summary(card, windows))
    return out


def window_sizes(window_px: int | None, halo_px: int | None, patch_px: int) -> tuple[int, int]:
    """Return window and halo in pixels, the defaults filled in.

    Raises:
        InputError: if they do not lie on the lattice of the patch.
    """
    halo = 2 * patch_px if halo_px is None else halo_px
    window = SMALL_PATCH_WINDOW.get(patch_px, PATCHES_A_WINDOW * patch_px) if window_px is None else window_px
    check_lattice(window, halo, patch_px)
    return window, halo


def _inputs(settings: AdaptSettings) -> dict[str, Path]:
    inputs: dict[str, Path] = {}
    for number, pair in enumerate(settings.pairs):
        inputs |= {f"images_{number}": pair.images, f"masks_{number}": pair.masks}
    spec = str(settings.backbone)
    if not spec.startswith("timm:"):
        inputs["backbone"] = Path(spec.removeprefix("hf:"))
    return inputs


def _scores(trained: Mapping[str, Trained], windows: Windows, settings: AdaptSettings) -> dict[str, Any]:
    if not windows.validation:
        return {}
    confusions = {method: result.judged.confusions for method, result in trained.items()}
    names = [c.name for c in settings.classes]
    table = score_table(confusions, names, draws=DRAWS, seed=settings.seed)
    for method, result in trained.items():
        table[method]["calibration_error"] = result.calibration()
    return {"groups": windows.group_by, "windows": len(windows.validation), "methods": table}


def _card(
    spec: str, out: Path, backbone: Backbone, layers: Sequence[int], sizes: tuple[int, int], settings: AdaptSettings
) -> TaskCard:
    place = spec
    if not spec.startswith(("timm:", "hf:")):
        place = Path(os.path.relpath(Path(spec).absolute(), out.absolute())).as_posix()
    return TaskCard(
        classes=Legend(settings.classes, settings.ignore).task_classes(),
        backbone=place,
        backbone_name=backbone.name,
        backbone_fingerprint=backbone.fingerprint,
        licence=backbone.licence,
        patch_px=backbone.patch_px,
        window_px=sizes[0],
        halo_px=sizes[1],
        layers=tuple(layers),
        head=settings.head.kind,
        hidden=settings.head.hidden,
        width=sum(backbone.level_widths(layers)),
    )


def _with_results(card: TaskCard, trained: Mapping[str, Trained], windows: Windows, scores: Mapping[str, Any]) -> TaskCard:
    temperatures = {method: result.temperature for method, result in trained.items()}
    return replace(card, gsd_m=windows.gsd_m, temperatures=temperatures, scores=scores)


def _write_reports(out: Path, card: TaskCard, trained: Mapping[str, Trained], windows: Windows) -> None:
    lines = [json.dumps({"method": method, **row}) for method, result in trained.items() for row in result.history]
    write_text(out / "metrics.jsonl", "".join(f"{line}\n" for line in lines))
    write_json(out / "left_out.json", [item.to_json() for item in windows.left_out])
    write_text(out / "MODEL_CARD.md", model_card(card, windows))


def _summary(card: TaskCard, windows: Windows) -> dict[str, Any]:
    methods = card.scores.get("methods", {})
    miou = {method: row["miou"] for method, row in methods.items()}
    said = ", ".join(f"{method} {score['value']:.3f}" for method, score in miou.items() if score["value"] is not None)
    headline = f"{len(card.classes)} classes, {len(windows.train)} windows"
    return {
        "headline": f"{headline}; validation mIoU: {said}" if said else headline,
        "classes": [c.name for c in card.classes],
        "windows": {"train": len(windows.train), "validation": len(windows.validation)},
        "groups": windows.group_by,
        "left_out": len(windows.left_out),
        "miou": miou,
        "backbone": card.backbone_name,
        "licence": card.licence,
    }
