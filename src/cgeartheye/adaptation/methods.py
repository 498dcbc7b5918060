"""The methods that `adapt` trains: the head on the backbone, and the two plain ones it has to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from cgeartheye.adaptation.features import cache_tokens
from cgeartheye.adaptation.legend import IGNORED
from cgeartheye.adaptation.loading import Windows
from cgeartheye.adaptation.training import RARE, TrainingData, predictions, train_head
from cgeartheye.adaptation.validation import Judged, calibration_error, fit_temperature, judge
from cgeartheye.progress import Progress
from cgeartheye.seeding import stream
from cgeartheye.settings.adapt import AdaptSettings
from cgeartheye.tasks.colour import fit_colour
from cgeartheye.tasks.heads import build_head
from cgeartheye.tasks.untrained import untrained_twin
from cgeartheye.weights.backbone import Backbone

COLOUR_PIXELS: Final = 60_000
"""Pixels the colour regression is fitted on [ours]."""


@dataclass(frozen=True)
class Trained:
    """One method.

    Attributes:
        state: weights of its head.
        judged: what the validation windows say.
        history: its curve.
        temperature: divisor of its logits.
    """

    state: Mapping[str, Tensor]
    judged: Judged
    history: list[dict[str, Any]]
    temperature: float

    def calibration(self) -> dict[str, float] | None:
        """Return the expected calibration error before and after the temperature, None without validation windows."""
        if not len(self.judged.truth):
            return None
        logits, truth = self.judged.logits, self.judged.truth
        return {
            "before": round(calibration_error(logits, truth), 6),
            "after": round(calibration_error(logits, truth, self.temperature), 6),
        }


@dataclass(frozen=True)
class Trainer:
    """What all methods share."""

    windows: Windows
    settings: AdaptSettings
    layers: Sequence[int]
    work: Path
    """Folder of cached tokens and checkpoints."""
    progress: Progress

    def head_on(self, backbone: Backbone, name: str) -> Trained:
        """Cache the tokens of a backbone and train the head on them."""
        settings, windows = self.settings, self.windows
        self.progress.say(f"adapt: {name} backbone, {len(windows.train)} windows, {len(windows.validation)} to validate")
        folder = self.work / name
        store = cache_tokens(backbone, self.layers, windows.images, folder, views=range(settings.views), progress=self.progress)
        data = TrainingData(store, windows.labels, windows.train, windows.validation, self._rare())
        head = build_head(settings.head.kind, store.width, len(settings.classes), hidden=settings.head.hidden, seed=settings.seed)
        history = train_head(
            head, data, settings.head, seed=settings.seed, checkpoint=folder / "head.safetensors", progress=self.progress
        )
        head.eval()
        judged = self._judge(lambda part: predictions(head, data, part))
        return self._result(head.state_dict(), judged, history)

    def colour(self) -> Trained:
        """Fit the logistic regression on colours of pixels drawn from the training windows."""
        images, labels, n = self.windows.images, self.windows.labels, len(self.windows.train)
        known = np.flatnonzero(labels[:n].ravel() != IGNORED)
        picks = np.sort(stream(self.settings.seed, "colour pixels").permutation(known)[:COLOUR_PIXELS])
        colours = torch.from_numpy(images[:n].reshape(-1, 3)[picks])
        truth = torch.from_numpy(labels[:n].ravel()[picks].astype(np.int64))
        model = fit_colour(colours, truth, len(self.settings.classes))
        with torch.inference_mode():
            judged = self._judge(lambda part: model(torch.from_numpy(images[list(part)]).permute(0, 3, 1, 2)))
        return self._result(model.state_dict(), judged, [])

    def all(self, backbone: Backbone) -> dict[str, Trained]:
        """Train every method that is asked for; the first one is the task model."""
        trained = {"trained": self.head_on(backbone, "trained")}
        if self.settings.baselines:
            trained["untrained"] = self.head_on(untrained_twin(backbone), "untrained")
            trained["colour"] = self.colour()
        return trained

    def _rare(self) -> list[int]:
        counts = np.sum([c.counts for c in self.windows.drawn.train], axis=0)
        return np.flatnonzero(counts / counts.sum() < RARE).tolist()

    def _judge(self, logits_of: Any) -> Judged:  # noqa: ANN401 - a function of window numbers, see `judge`
        windows = self.windows
        return judge(logits_of, windows.labels, windows.validation, windows.groups, seed=self.settings.seed)

    def _result(self, state: Mapping[str, Tensor], judged: Judged, history: list[dict[str, Any]]) -> Trained:
        temperature = 1.0
        if self.settings.calibrate and len(judged.truth):
            temperature = fit_temperature(judged.logits, judged.truth)
        return Trained({k: v.detach().clone() for k, v in state.items()}, judged, history, temperature)
