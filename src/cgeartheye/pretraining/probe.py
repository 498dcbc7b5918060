"""What a backbone under training is worth now: nearest neighbours, a linear map, rank, retrieval, likeness of patches.

M pictures of a probe, P places looked up, N patches, D width, S side in pixels.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cgeartheye.datasets.folder import list_class_folder, read_picture
from cgeartheye.errors import DataError, InputError
from cgeartheye.inference.features import prepare, read_out
from cgeartheye.models.vit import Features, VisionTransformer
from cgeartheye.pretraining.chips import Chips
from cgeartheye.probes.knn import knn_leave_one_out
from cgeartheye.probes.linear import cross_fitted
from cgeartheye.probes.retrieval import cosine, disturb, ranks
from cgeartheye.seeding import hash_share, stream
from cgeartheye.settings.pretrain import PretrainSettings
from cgeartheye.shards.reader import ShardReader

_LOG = logging.getLogger(__name__)

PROBE_ZOOM: Final = 1.5
"""Pictures are probed at this multiple of the global view, where features are best [ours]."""
LARGEST_PX: Final = 518
"""Pictures are probed at this side at most, the largest that the paper trains at [ours]."""
LINEAR_STRENGTH: Final = 0.1
"""C of the linear probe [ours]: one value, because a probe must follow the features and not its own tuning."""
_BATCH: Final = 32


@torch.no_grad()
def effective_rank(features: Tensor) -> float:
    """Return exp(entropy of the normalised singular values) of (M, D) features, in 1 .. min(M, D); NaN if one is not finite.

    Source: Garrido et al., RankMe, arXiv 2210.02885.
    """
    if not features.isfinite().all():
        return math.nan
    values = torch.linalg.svdvals(features.float())
    share = values / values.sum().clamp(min=1e-12)
    return float(torch.exp(-torch.special.xlogy(share, share).sum()))


@torch.no_grad()
def patch_similarity(patches: Tensor) -> Tensor:
    """Return the mean cosine between different patches of one picture.

    Dense features decay in long runs: patches of one picture come to resemble each other, and this rises.

    Args:
        patches: (M, h, w, D) float, h w >= 2.

    Returns:
        (M,) float32 in [-1, 1].

    Source: the effect is DINOv3's (arXiv 2508.10104, section 4); this number for it is ours.
    """
    rows = F.normalize(patches.flatten(1, 2).float(), dim=-1)  # (M, N, D)
    N = rows.shape[1]
    return (rows.sum(1).square().sum(-1) - rows.square().sum((1, 2))) / (N * (N - 1))


@dataclass(frozen=True)
class Labelled:
    """Pictures with classes.

    Attributes:
        source: column or folder that the classes are from.
        names: of the M pictures; decide the halves of the linear probe.
        labels: (M,) int64, consecutive from 0.
        batches: yields (m, 3, S, S) uint8, M pictures in order.
    """

    source: str
    names: tuple[str, ...]
    labels: NDArray[np.int64]
    batches: Callable[[], Iterator[Tensor]]


class Probe:
    """Measures a backbone on fixed pictures. Equal weights give equal numbers, whatever was measured before.

    Classes come from ``watch.probe_images`` or else from training chips that have a label or a land cover; places with
    two dates are looked up across them. Either may be missing: its numbers are then absent.

    Args:
        reader: the shards.
        chips: decoded pictures.
        settings: number of chips and places, folder of pictures, view size, seed.

    Raises:
        InputError: if ``watch.probe_images`` is no folder, has no picture that can be read, or fewer than two classes.
    """

    def __init__(self, reader: ShardReader, chips: Chips, settings: PretrainSettings) -> None:
        self._chips, self._seed = chips, settings.seed
        self._side = min(round(settings.views.global_px * PROBE_ZOOM), LARGEST_PX)
        images = settings.watch.probe_images
        self._labelled = self._from_folder(images, settings) if images is not None else self._from_chips(reader, settings)
        self._pairs = _pairs(reader, settings)
        self._places = tuple(reader.place(int(place)) for place in self._pairs[:, 0])

    @property
    def useful(self) -> bool:
        """Whether there is anything to measure."""
        return self._labelled is not None or len(self._pairs) > 0

    @property
    def labels_from(self) -> str:
        """Where the classes come from: a column, a folder's name, or ``none``."""
        return "none" if self._labelled is None else self._labelled.source

    @torch.no_grad()
    def measure(self, backbone: VisionTransformer) -> dict[str, float | str]:
        """Return what can be measured, by the names of the log; shares and similarities as they are, nothing rounded.

        Args:
            backbone: maps (m, 3, S, S) uint8 to :class:`Features`; used in evaluation mode on the device it is on.
        """
        training = backbone.training
        backbone.eval()
        try:
            return {**self._classes(backbone), **self._retrieval(backbone)}
        finally:
            backbone.train(training)

    def _classes(self, backbone: VisionTransformer) -> dict[str, float | str]:
        known = self._labelled
        if known is None:
            return {}
        class_token, patch, likeness = [], [], []
        for pictures in known.batches():
            features = _features(backbone, pictures)
            class_token.append(read_out(features, "class").float().cpu())
            patch.append(read_out(features, "patch").float().cpu())
            likeness.append(patch_similarity(features.patches).cpu())
        readouts = {"class": torch.cat(class_token), "patch": torch.cat(patch)}  # (M, D), (M, 2 D)
        half = np.array([hash_share(name, "probe half") < 0.5 for name in known.names])
        found: dict[str, float | str] = {}
        for name, rows in readouts.items():
            found[f"probe_{name}"] = float((knn_leave_one_out(rows.numpy(), known.labels) == known.labels).mean())
            linear = cross_fitted(rows.numpy(), known.labels, half, strength=LINEAR_STRENGTH)
            if linear is not None:
                found[f"probe_{name}_linear"] = linear
        return {
            **found,
            "probe_rank": effective_rank(readouts["class"]),
            "probe_patch_similarity": float(torch.cat(likeness).mean()),
            "probe_labels": known.source,
            "probe_chips": len(known.names),
        }

    def _retrieval(self, backbone: VisionTransformer) -> dict[str, float | str]:
        """Look up every place's first date, turned and cut as in ``evaluate``, among all places' other date."""
        if not len(self._pairs):
            return {}
        queries, gallery = (
            np.concatenate([read_out(_features(backbone, p), "class").float().cpu().numpy() for p in self._dates(column)])
            for column in (1, 2)
        )
        rank = ranks(cosine(queries, gallery), np.arange(len(queries)))
        return {"probe_retrieval": float((rank == 1).mean()), "probe_retrieval_places": len(rank)}

    def _dates(self, column: int) -> Iterator[Tensor]:
        rows = self._pairs[:, column]
        for start in range(0, len(rows), _BATCH):
            pictures = self._pictures(rows[start : start + _BATCH])
            if column == 1:
                names = self._places[start : start + _BATCH]
                pictures = [disturb(p, seed=self._seed, name=name) for p, name in zip(pictures, names, strict=True)]
            yield torch.stack([prepare(picture, self._side) for picture in pictures])

    def _pictures(self, rows: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        pixels, sizes = self._chips.get(rows)
        return [image[:, :h, :w].transpose(1, 2, 0) for image, (h, w) in zip(pixels, sizes.tolist(), strict=True)]

    def _from_chips(self, reader: ShardReader, settings: PretrainSettings) -> Labelled | None:
        source, column = _labels(reader)
        first = reader.starts()
        known = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False)[first])  # places
        chosen = np.sort(stream(settings.seed, "probe chips").permutation(known)[: settings.watch.probe_chips])
        rows = first[chosen]
        labels = _numbered(column.take(pa.array(rows)).to_pylist())
        if len(rows) < 2 or labels.max() == 0:
            return None

        def batches() -> Iterator[Tensor]:
            for part in np.array_split(rows, -(-len(rows) // _BATCH)):
                yield torch.stack([prepare(picture, self._side) for picture in self._pictures(part)])

        return Labelled(source, tuple(reader.place(int(place)) for place in chosen), labels, batches)

    def _from_folder(self, folder: Path, settings: PretrainSettings) -> Labelled:
        pictures = dict(_read_some(folder, self._side, settings))
        labels = _numbered([name.split("/")[0] for name in pictures])
        if not pictures or labels.max() == 0:
            what = "has pictures of one class only" if pictures else "has no class folder with a picture that can be read"
            raise InputError(
                f"{what}, and a probe needs two classes",
                where=f"watch.probe_images: {folder}",
                remedy="it must be FOLDER/<class>/*.jpg|png|tif with two class folders or more",
            )
        kept = torch.stack(list(pictures.values()))  # decoded once: M S S 3 bytes
        return Labelled(folder.name, tuple(pictures), labels, lambda: iter(torch.split(kept, _BATCH)))


def _features(backbone: VisionTransformer, pictures: Tensor) -> Features:
    features: Features = backbone(pictures.to(backbone.cls_token.device))
    return features


def _labels(reader: ShardReader) -> tuple[str, pa.ChunkedArray]:
    """Return the first column of the index that knows any label, and its name."""
    for name in ("label", "land_cover"):
        column = reader.table([name])[name]
        if column.null_count < len(column):
            return name, column
    return "none", column


def _numbered(names: list[str]) -> NDArray[np.int64]:
    return np.unique(np.array(names, dtype=str), return_inverse=True)[1].astype(np.int64)


def _pairs(reader: ShardReader, settings: PretrainSettings) -> NDArray[np.int64]:
    """Return (P, 3) int64: place, row of its first date, row of the date in the middle of the others; P is 0 or at least 2."""
    counts, starts = reader.n_dates(), reader.starts()
    several = np.flatnonzero(counts > 1)
    order = stream(settings.seed, "probe places").permutation(several)
    chosen = np.sort(order[: settings.watch.retrieval_places]) if len(several) > 1 else several[:0]
    # of four dates a year the third is the other season of the first one
    other = starts[chosen] + np.maximum(counts[chosen] // 2, 1)
    return np.stack([chosen, starts[chosen], other], axis=1).astype(np.int64)


def _read_some(folder: Path, side: int, settings: PretrainSettings) -> Iterator[tuple[str, Tensor]]:
    """Yield names and (3, S, S) uint8 pictures of a class folder, a fixed draw of those that can be read."""
    found = list_class_folder(folder)
    wanted = settings.watch.probe_chips
    for index in stream(settings.seed, "probe images").permutation(len(found)):
        if wanted == 0:
            return
        name, path = found[index]
        try:
            picture = read_picture(path)
        except DataError as error:
            _LOG.warning("left out of the probe: %s", error)
            continue
        wanted -= 1
        yield name, prepare(picture, side)
