"""What is seen of a run while it goes on: log lines, probes, checkpoints.

M chips of a probe, D width.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cgeartheye.models.vit import VisionTransformer
from cgeartheye.pretraining.chips import Chips
from cgeartheye.pretraining.loop import Rates, Training
from cgeartheye.pretraining.objective import Terms
from cgeartheye.seeding import stream
from cgeartheye.settings.pretrain import PretrainSettings
from cgeartheye.shards.reader import ShardReader
from cgeartheye.training.checkpoint import prune_checkpoints, save_checkpoint
from cgeartheye.training.run_log import RunLog
from cgeartheye.transforms.crops import Boxes, crop

PROBE_ZOOM: Final = 1.5
"""Chips are probed at this multiple of the global view, where features are best [ours]."""
NEIGHBOURS: Final = 20
_TEMPERATURE: Final = 0.07
_PROBE_BATCH: Final = 32


@torch.no_grad()
def effective_rank(features: Tensor) -> float:
    """Return exp(entropy of the normalised singular values) of (M, D) features, between 1 and min(M, D).

    Source: Garrido et al., RankMe, arXiv 2210.02885.
    """
    values = torch.linalg.svdvals(features.float())
    share = values / values.sum().clamp(min=1e-12)
    return float(torch.exp(-torch.special.xlogy(share, share).sum()))


@torch.no_grad()
def leave_one_out(features: Tensor, labels: Tensor) -> float:
    """Return the accuracy of a vote of the 20 nearest other rows, by cosine, weighted exp(cosine / 0.07).

    Args:
        features: (M, D) float.
        labels: (M,) int64.

    Returns:
        share of rows whose label wins the vote.
    """
    rows = F.normalize(features.float(), dim=-1)
    similar = rows @ rows.T
    similar.fill_diagonal_(-2.0)
    near, index = similar.topk(min(NEIGHBOURS, len(rows) - 1), dim=1)
    votes = F.one_hot(labels[index], int(labels.max()) + 1) * torch.exp(near / _TEMPERATURE)[..., None]
    return float((votes.sum(1).argmax(1) == labels).float().mean())


class Probe:
    """Nearest neighbours among some training chips that have a label, or else a land cover.

    Args:
        reader: the shards.
        chips: decoded pictures.
        settings: number of chips, view size, seed.
    """

    def __init__(self, reader: ShardReader, chips: Chips, settings: PretrainSettings) -> None:
        self._chips = chips
        self._size_px = round(settings.views.global_px * PROBE_ZOOM)
        self.labels_from, column = _labels(reader)
        first = reader.starts()
        known = first[column.is_valid().to_numpy(zero_copy_only=False)[first]]
        chosen = stream(settings.seed, "probe chips").permutation(known)[: settings.watch.probe_chips]
        self.rows: NDArray[np.int64] = np.sort(chosen)
        names = column.take(pa.array(self.rows)).to_pylist()
        classes = sorted(set(names))
        self.labels = torch.tensor([classes.index(name) for name in names], dtype=torch.int64)
        self.useful = len(classes) > 1

    @torch.no_grad()
    def measure(self, backbone: VisionTransformer) -> dict[str, float | str]:
        """Return accuracies of the class token and of mean and deviation of the patches, and the class tokens' rank."""
        device = backbone.cls_token.device
        classes, patches = [], []
        for rows in np.array_split(self.rows, -(-len(self.rows) // _PROBE_BATCH)):
            features = backbone(_whole(*self._chips.get(rows), side=self._size_px).to(device))
            tokens = features.patches.flatten(1, 2).float()  # (M, N, D)
            classes.append(features.class_token.float().cpu())
            patches.append(torch.cat([tokens.mean(1), tokens.std(1)], dim=1).cpu())
        class_tokens = torch.cat(classes)
        return {
            "probe_class": leave_one_out(class_tokens, self.labels),
            "probe_patch": leave_one_out(torch.cat(patches), self.labels),
            "probe_rank": effective_rank(class_tokens),
            "probe_labels": self.labels_from,
            "probe_chips": len(self.rows),
        }


def _labels(reader: ShardReader) -> tuple[str, pa.ChunkedArray]:
    """Return the first column of the index that knows any label, and its name."""
    for name in ("label", "land_cover"):
        column = reader.table([name])[name]
        if column.null_count < len(column):
            return name, column
    return "none", column


def _whole(pixels: NDArray[np.uint8], sizes: NDArray[np.int64], *, side: int) -> Tensor:
    """Resize whole pictures (M, 3, H, W) uint8 to (M, 3, side, side) float32 in [0, 1]."""
    zero = np.zeros((len(sizes), 1), dtype=np.int64)
    boxes = Boxes(top=zero, left=zero, height=sizes[:, :1], width=sizes[:, 1:], turn=zero)
    return crop(torch.from_numpy(pixels), boxes, side=side)[0]


@dataclass
class Clock:
    """Wall and processor seconds, going on where an interrupted run stopped."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    _wall: float = field(default_factory=time.monotonic)
    _cpu: float = field(default_factory=time.process_time)

    def lap(self) -> tuple[float, float]:
        """Return wall and processor seconds since the last lap and add them to the totals."""
        wall, cpu = time.monotonic(), time.process_time()
        lap = (wall - self._wall, cpu - self._cpu)
        self._wall, self._cpu = wall, cpu
        self.seconds += lap[0]
        self.cpu_seconds += lap[1]
        return lap


class Watch:
    """Called after every step: advances the bar, logs, probes and saves when it is time.

    Args:
        folder: of the stage.
        settings: when to do what.
        log: ``metrics.jsonl``.
        probe: or None.
        clock: seconds so far.
        advance: of the progress bar.
    """

    def __init__(
        self,
        folder: Path,
        settings: PretrainSettings,
        *,
        log: RunLog,
        probe: Probe | None,
        clock: Clock,
        advance: Callable[[int], None],
    ) -> None:
        self._folder, self._settings, self._log = folder, settings, log
        self._probe, self._clock, self._advance = probe, clock, advance
        self._training = (0.0, 0.0)
        self._since = 0

    def __call__(self, training: Training, terms: Terms, rates: Rates) -> None:
        """Do what is due after a step."""
        watch, step = self._settings.watch, training.state.step
        last = step == training.steps
        self._advance(1)
        self._since += 1
        if step % watch.log_every == 0 or last:
            self._write_line(training, terms, rates)
        if step % watch.checkpoint_every == 0 or last:
            self.save(training)

    def begin(self, training: Training) -> None:
        """Write the line of the untrained network, if it is probed and has none yet."""
        if self._log.empty and self._probe is not None:
            probed = self._probe.measure(training.pair.teacher.backbone)
            self._log.write({"step": 0, "samples": 0, "seconds": 0.0, "cpu_seconds": 0.0, **probed})
        self._clock.lap()

    def save(self, training: Training) -> None:
        """Write a checkpoint and drop old ones."""
        self._lap_of_training()
        state = training.state
        note = {
            "skipped": state.skipped,
            "skipped_in_a_row": state.skipped_in_a_row,
            "sums": state.sums,
            "seconds": round(self._clock.seconds, 3),
            "cpu_seconds": round(self._clock.cpu_seconds, 3),
            "threads": self._settings.threads,
        }
        checkpoints = self._folder / "checkpoints"
        save_checkpoint(checkpoints, state.step, training.tensors(), note)
        prune_checkpoints(checkpoints, keep=self._settings.watch.keep)
        self._clock.lap()

    def _lap_of_training(self) -> None:
        wall, cpu = self._clock.lap()
        self._training = (self._training[0] + wall, self._training[1] + cpu)

    def _write_line(self, training: Training, terms: Terms, rates: Rates) -> None:
        self._lap_of_training()
        state, batch = training.state, self._settings.batch
        pictures, (wall, cpu) = self._since * batch, self._training
        self._log.write(
            {
                "step": state.step,
                "samples": state.step * batch,
                "seconds": round(self._clock.seconds, 2),
                "cpu_seconds": round(self._clock.cpu_seconds, 2),
                **{name: round(value, 6) for name, value in state.take_means().items()},
                "lr": rates.lr,
                "weight_decay": rates.weight_decay,
                "ema": rates.ema,
                "teacher_temperature": rates.temperature,
                "rank": round(effective_rank(terms.class_tokens), 3),
                "skipped": state.skipped,
                "pictures_per_s": round(pictures / max(wall, 1e-9), 2),
                "pictures_per_cpu_s": round(pictures / max(cpu, 1e-9), 2),
                **self._probed(training),
            }
        )
        self._clock.lap()
        self._training, self._since = (0.0, 0.0), 0

    def _probed(self, training: Training) -> dict[str, float | str]:
        every, step = self._settings.watch.probe_every, training.state.step
        due = self._probe is not None and every > 0 and (step % every == 0 or step == training.steps)
        return self._probe.measure(training.pair.teacher.backbone) if self._probe is not None and due else {}
