"""Training of a head on cached tokens: the same batches, steps and result whether or not it was interrupted.

B batch, C classes, D joined width, P side of a window in pixels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from cgeartheye.adaptation.features import TokenStore, turned
from cgeartheye.adaptation.legend import IGNORED
from cgeartheye.files import write_bytes
from cgeartheye.metrics.segmentation import confusion, mean_iou
from cgeartheye.progress import Progress
from cgeartheye.seeding import stream
from cgeartheye.settings.adapt import HeadSettings
from cgeartheye.tasks.heads import DenseHead
from cgeartheye.tasks.segmentation import to_pixels

WARM_UP = 20
"""Steps in which the learning rate grows [ours]."""
RARE = 0.05
"""Classes below this share of the labelled pixels get a Dice term [ours]; the cross-entropy is never weighted as well, because
counting a rare class twice over makes maps call it too often."""


@dataclass(frozen=True)
class TrainingData:
    """Cached windows and their labels.

    Attributes:
        store: tokens of n windows in one or more views.
        labels: (n, P, P) uint8, 255 not labelled.
        train: indices of training windows.
        validation: indices of validation windows; may be empty.
        rare: numbers of the classes that get a Dice term.
    """

    store: TokenStore
    labels: NDArray[np.uint8]
    train: Sequence[int]
    validation: Sequence[int]
    rare: Sequence[int]


@dataclass
class _State:
    """Everything that a checkpoint holds."""

    head: DenseHead
    optimiser: torch.optim.AdamW
    step: int = 0
    best_step: int = 0
    best_miou: float = -1.0
    best: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def stale_looks(self) -> int:
        """Looks since the best one."""
        return sum(1 for row in self.history if row["step"] > self.best_step)


def train_head(
    head: DenseHead, data: TrainingData, settings: HeadSettings, *, seed: int, checkpoint: Path, progress: Progress
) -> list[dict[str, Any]]:
    """Train ``head`` in place, with its best weights on the validation windows at the end.

    Args:
        head: as built; its statistics are set here.
        data: cached windows.
        settings: steps and rates.
        seed: of the order of windows and their views.
        checkpoint: file to go on from and to write to.
        progress: who listens.

    Returns: one row a look at the validation windows: step, loss (mean since the last look), lr, miou.
    """
    head.mean, head.deviation = data.store.statistics(data.train)
    optimiser = torch.optim.AdamW(head.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    state = _State(head, optimiser)
    if checkpoint.exists():
        _restore(state, checkpoint)
    losses: list[float] = []
    with progress.task("head", settings.steps, state.step) as advance:
        while state.step < settings.steps and state.stale_looks < settings.patience:
            losses.append(_step(state, data, settings, seed))
            advance(1)
            last = state.step == settings.steps
            if state.step % settings.evaluate_every == 0 or last:
                _look(state, data, float(np.mean(losses)), _rate(state.step - 1, settings))
                losses.clear()
                _save(state, checkpoint)
    head.load_state_dict(state.best)
    return state.history


def predictions(head: DenseHead, data: TrainingData, windows: Sequence[int], batch: int = 8) -> Tensor:
    """Return (n, C, P, P) float32 logits of windows in their first view."""
    with torch.inference_mode():
        parts = [
            to_pixels(head(data.store.get(windows[k : k + batch], [0] * len(windows[k : k + batch]))), data.labels.shape[1:])
            for k in range(0, len(windows), batch)
        ]
    return torch.cat(parts)


def segmentation_loss(logits: Tensor, labels: Tensor, rare: Sequence[int]) -> Tensor:
    """Cross-entropy of labelled pixels, plus the soft Dice loss of rare classes that the batch holds.

    Args:
        logits: (B, C, P, P) float.
        labels: (B, P, P) int64, 255 not labelled.
        rare: class numbers with a Dice term.

    Returns: scalar; 0 if nothing is labelled.
    """
    known = labels != IGNORED
    if not known.any():
        return logits.sum() * 0
    loss = F.cross_entropy(logits, labels, ignore_index=IGNORED)
    present = [c for c in rare if (labels == c).any()]
    if not present:
        return loss
    probabilities = torch.softmax(logits, dim=1)[:, present].movedim(1, 0)[:, known]  # (rare, pixels)
    truth = torch.stack([labels[known] == c for c in present]).float()
    overlap = 2 * (probabilities * truth).sum(1)
    dice = 1 - (overlap + 1) / (probabilities.sum(1) + truth.sum(1) + 1)
    return loss + dice.mean()


def _step(state: _State, data: TrainingData, settings: HeadSettings, seed: int) -> float:
    """Take one step on a quarter of the pixels, another quarter each time: neighbours say the same, and cost as much."""
    windows, views = _batch(state.step, data, settings.batch, seed)
    labels = np.stack([turned(data.labels[k][None], view)[0] for k, view in zip(windows, views, strict=True)])
    logits = to_pixels(state.head(data.store.get(windows, views)), labels.shape[1:])
    row, col = state.step % 2, state.step // 2 % 2
    seen = torch.from_numpy(labels[:, row::2, col::2].astype(np.int64))
    loss = segmentation_loss(logits[..., row::2, col::2], seen, data.rare)
    for group in state.optimiser.param_groups:
        group["lr"] = _rate(state.step, settings)
    state.optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    state.optimiser.step()
    state.step += 1
    return float(loss.detach())


def _batch(step: int, data: TrainingData, size: int, seed: int) -> tuple[list[int], list[int]]:
    """Windows and views of a step: every window in every view once an epoch, in an order that depends on the epoch alone."""
    views, n = len(data.store.chunks), len(data.train)
    total = n * views
    picks = range(step * size, (step + 1) * size)
    orders = {epoch: stream(seed, "adapt order", epoch).permutation(total) for epoch in {p // total for p in picks}}
    drawn = [int(orders[p // total][p % total]) for p in picks]
    return [data.train[d % n] for d in drawn], [d // n for d in drawn]


def _rate(step: int, settings: HeadSettings) -> float:
    if step < WARM_UP:
        return settings.lr * (step + 1) / WARM_UP
    share = (step - WARM_UP) / max(1, settings.steps - WARM_UP)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


def _look(state: _State, data: TrainingData, loss: float, rate: float) -> None:
    miou = _validation_miou(state.head, data)
    state.history.append(
        {"step": state.step, "loss": round(loss, 6), "lr": rate, "miou": None if miou is None else round(miou, 6)}
    )
    score = float(state.step) if miou is None else miou  # without validation the last head is the best
    if score > state.best_miou:
        state.best_miou, state.best_step = score, state.step
        state.best = {key: value.detach().clone() for key, value in state.head.state_dict().items()}


def _validation_miou(head: DenseHead, data: TrainingData) -> float | None:
    if not data.validation:
        return None
    total = np.zeros((head.classes, head.classes + 1), np.int64)
    for k in range(0, len(data.validation), 8):
        part = data.validation[k : k + 8]
        predicted = predictions(head, data, part).argmax(1).to(torch.uint8).numpy()
        total += confusion(data.labels[part], predicted, head.classes)
    return float(np.nan_to_num(mean_iou(total.astype(np.float64))))


def _save(state: _State, path: Path) -> None:
    tensors = {f"head.{key}": value for key, value in state.head.state_dict().items()}
    tensors |= {f"best.{key}": value for key, value in state.best.items()}
    for index, moments in state.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{key}": value for key, value in moments.items()}
    numbers = {key: getattr(state, key) for key in ("step", "best_step", "best_miou", "history")}
    write_bytes(path, save({k: v.contiguous().clone() for k, v in tensors.items()}, {"state": json.dumps(numbers)}))


def _restore(state: _State, path: Path) -> None:
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping, only keys()
        numbers = json.loads(file.metadata()["state"])
    state.head.load_state_dict({k.removeprefix("head."): v for k, v in tensors.items() if k.startswith("head.")})
    state.best = {k.removeprefix("best."): v for k, v in tensors.items() if k.startswith("best.")}
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimiser."):
            _, index, name = key.split(".")
            moments.setdefault(int(index), {})[name] = value
    known = state.optimiser.state_dict()
    state.optimiser.load_state_dict({"state": moments, "param_groups": known["param_groups"]})
    for key, value in numbers.items():
        setattr(state, key, value)
