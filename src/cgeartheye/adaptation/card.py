"""The model card of a task model, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cgeartheye.adaptation.loading import Windows
from cgeartheye.tasks.segmentation import TaskCard


def model_card(card: TaskCard, windows: Windows) -> str:
    """Return the card as Markdown: what the model does, what it saw, how it scores, what it must not be used for."""
    gsd = "an unknown ground sampling distance" if card.gsd_m is None else f"{card.gsd_m:g} m a pixel"
    sections = [
        "# Segmentation head\n",
        f"Maps RGB pictures at {gsd} to {len(card.classes)} classes: {', '.join(c.name for c in card.classes)}.\n",
        "## Parts\n",
        f"- Frozen backbone: {card.backbone_name}, fingerprint `{card.backbone_fingerprint[:16]}`, licence {card.licence}.",
        f"- Head: {card.head}, on the tokens of blocks {', '.join(map(str, card.layers))}; "
        f"windows of {card.window_px} px with a halo of {card.halo_px} px.\n",
        "## Labels\n",
        f"{len(windows.train)} training and {len(windows.validation)} validation windows; what is split is the "
        f"{windows.group_by}, so no validation pixel lies in a training window. {len(windows.left_out)} files were left out.\n",
        "## Scores on the validation windows\n",
        *_scores(card.scores.get("methods", {})),
        "",
        "Intervals are 95 % percentiles of a bootstrap over groups of ground. The first row is this model; the others are the",
        "same head on the untrained backbone and a logistic regression on single pixels' colours.\n",
        "## Limits\n",
        "The scores hold for ground and seasons like the labelled ones. Confidences are calibrated on the validation windows.",
    ]
    return "\n".join(sections) + "\n"


def _scores(methods: Mapping[str, Any]) -> list[str]:
    if not methods:
        return ["There was nothing to validate with: all labels lie in one group."]
    rows = ["| method | mIoU | accuracy | calibration error |", "|---|---|---|---|"]
    for method, row in methods.items():
        error = "{before:.3f} -> {after:.3f}".format(**row["calibration_error"])
        rows.append(f"| {method} | {_told(row['miou'])} | {_told(row['overall_accuracy'])} | {error} |")
    return rows


def _told(score: Mapping[str, float | None]) -> str:
    if score["value"] is None:
        return "-"
    return f"{score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f})"
