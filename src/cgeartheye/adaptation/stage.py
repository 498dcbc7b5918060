"""The stage `adapt`: from pictures with masks to a task model, its baselines and its scores."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cgeartheye.adaptation.card import model_card
from cgeartheye.adaptation.features import cache_tokens
from cgeartheye.adaptation.legend import IGNORED, Legend, refuse_unknown
from cgeartheye.adaptation.pairs import LeftOut, find_pairs
from cgeartheye.adaptation.pictures import Picture, inspect, opened, read_labels, read_pixels
from cgeartheye.adaptation.sampling import Candidate, Grouping, Split, candidates, split
from cgeartheye.adaptation.training import RARE, TrainingData, predictions, train_head
from cgeartheye.adaptation.validation import Judged, calibration_error, fit_temperature, judge
from cgeartheye.errors import DataError, InputError
from cgeartheye.files import write_json, write_text
from cgeartheye.geometry.windows import check_lattice
from cgeartheye.inference.windowed import fill_holes
from cgeartheye.metrics.segmentation import score_table
from cgeartheye.progress import SILENT, Progress
from cgeartheye.seeding import stream
from cgeartheye.settings.adapt import AdaptSettings
from cgeartheye.stage import open_stage
from cgeartheye.tasks.colour import fit_colour
from cgeartheye.tasks.heads import build_head
from cgeartheye.tasks.segmentation import TaskCard, quarter_layers, save_task
from cgeartheye.tasks.untrained import untrained_backbone
from cgeartheye.weights.backbone import Backbone
from cgeartheye.weights.load import load_backbone

LOG = logging.getLogger(__name__)
PATCHES_A_WINDOW = 36
"""Side of a default window in patches: 504 px for patches of 14 [ours]; a small patch takes 160 px, see `window_px`."""
COLOUR_PIXELS = 200_000
"""Pixels the colour regression is fitted on [ours]."""
DRAWS = 2000
"""Draws of the bootstrap over validation groups [ours]."""


@dataclass(frozen=True)
class _Data:
    """Windows in memory: (n, P, P, 3) uint8 images and (n, P, P) uint8 labels, training windows first."""

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    drawn: Split
    pictures: Sequence[Picture]

    @property
    def train(self) -> list[int]:
        return list(range(len(self.drawn.train)))

    @property
    def validation(self) -> list[int]:
        return list(range(len(self.drawn.train), len(self.labels)))

    @property
    def groups(self) -> list[str]:
        return [c.group for c in self.drawn.validation]


@dataclass(frozen=True)
class _Trained:
    """One method's weights, its verdict and its curve."""

    state: dict[str, torch.Tensor]
    judged: Judged
    history: list[dict[str, Any]]


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
    with open_stage(out, "adapt", settings, _inputs(settings)) as stage, _threads(settings.threads):
        if stage.finished:
            return out
        backbone = load_backbone(spec)
        window_px, halo_px = window_sizes(settings.window_px, settings.halo_px, backbone.patch_px)
        data, left_out = _read(settings, window_px, progress)
        layers = settings.head.layers or quarter_layers(backbone.depth)
        work = out / ".work"
        trained = {"trained": _train(backbone, layers, data, settings, work / "trained", progress)}
        if settings.baselines:
            trained |= _baselines(spec, backbone, layers, data, settings, work, progress)
        card = _card(settings, out, backbone, layers, data, (window_px, halo_px), trained)
        save_task(out, card, {method: result.state for method, result in trained.items()})
        _write_reports(out, card, trained, left_out, settings)
        shutil.rmtree(work, ignore_errors=True)
        stage.finish(_summary(card, data, left_out))
    return out


def window_sizes(window_px: int | None, halo_px: int | None, patch_px: int) -> tuple[int, int]:
    """Return window and halo in pixels, the defaults filled in.

    Raises:
        InputError: if they do not lie on the lattice of the patch.
    """
    halo = 2 * patch_px if halo_px is None else halo_px
    window = window_px
    if window is None:
        window = 160 if patch_px == 8 else PATCHES_A_WINDOW * patch_px
    check_lattice(window, halo, patch_px)
    return window, halo
