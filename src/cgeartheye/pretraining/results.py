"""What a run ends with, and how it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cgeartheye.files import write_json, write_text
from cgeartheye.models.vit import VisionTransformer
from cgeartheye.progress import Progress
from cgeartheye.stage import Stage
from cgeartheye.weights.card import model_card
from cgeartheye.weights.store import save_backbone

STUDENTS: Final = "students"
"""Folder of further students, one folder a size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What a run ends with.

    Args:
        backbone: the teacher's, or the student's mean, whole on the CPU.
        card: what is told of it.
        summary: of the manifest.
        left_out: rows of chips that could not be read, with the reason.
        names: pictures that were seen, where chips were plain pictures.
        students: further backbones by size, with their cards.
    """

    backbone: VisionTransformer
    card: dict[str, Any]
    summary: dict[str, Any]
    left_out: dict[int, str]
    names: list[str]
    students: Mapping[str, tuple[VisionTransformer, dict[str, Any]]] = field(default_factory=dict)


def write_results(stage: Stage, trained: Trained, progress: Progress) -> None:
    """Write backbones, cards and lists, and finish the stage."""
    if trained.card["restricted_by"]:
        progress.say(f"not for commercial use: the licence is {', '.join(trained.card['restricted_by'])}")
    _write_backbone(stage.folder, trained.backbone, trained.card, trained.names)
    for size, (backbone, card) in trained.students.items():
        _write_backbone(stage.folder / STUDENTS / size, backbone, card, trained.names)
    left_out = [{"row": row, "reason": reason} for row, reason in sorted(trained.left_out.items())]
    write_json(stage.folder / "left_out.json", left_out)
    stage.finish(trained.summary)


def _write_backbone(folder: Path, backbone: VisionTransformer, card: Mapping[str, Any], names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_backbone(folder, backbone, card)
    if names:
        write_text(folder / "training_names.txt", "\n".join(names) + "\n")
    write_text(folder / "MODEL_CARD.md", model_card(card, backbone.config))
