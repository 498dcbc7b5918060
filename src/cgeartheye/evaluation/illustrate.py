"""Pictures of what a backbone sees, and of what it takes for what.

n pictures, D width, h w patches.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cgeartheye.datasets.folder import ImageRecord, read_picture
from cgeartheye.evaluation.classification import Classified
from cgeartheye.evaluation.networks import TRAINED
from cgeartheye.evaluation.store import SCHEMA_VERSION
from cgeartheye.files import write_bytes, write_json
from cgeartheye.inference.features import prepare
from cgeartheye.metrics.confusion import confusion_matrix
from cgeartheye.seeding import hash_share

EXAMPLES = 12
"""Pictures shown with their features."""
_LARGEST_PX = 256
_TAILS = (0.01, 0.99)


def write_confusion(path: Path, classified: Sequence[Classified]) -> None:
    """Write the confusion matrix of the best trained row of each data set, counted over its training seeds."""
    records = []
    for folder in classified:
        rows = {key: predicted for key, predicted in folder.predictions.items() if key[0] == TRAINED}
        method, readout, probe = max(rows, key=lambda key: float((rows[key] == folder.truth).mean()))
        predicted = rows[method, readout, probe]
        classes = folder.pictures.classes
        counts = sum(confusion_matrix(folder.truth, row, classes=len(classes)) for row in predicted)
        named = {"dataset": folder.result.dataset, "method": method, "readout": readout, "probe": probe}
        records.append({**named, "classes": list(classes), "counts": np.asarray(counts).tolist()})
    write_json(path, {"schema_version": SCHEMA_VERSION, "matrices": records})


def examples(records: Sequence[ImageRecord], count: int = EXAMPLES) -> list[ImageRecord]:
    """Return about ``count`` pictures, one class after the other, in the order of the hash of their names."""
    ordered = sorted(records, key=lambda record: hash_share(record.name, "examples"))
    turn: dict[int, int] = {}
    keyed = []
    for record in ordered:
        turn[record.label] = turn.get(record.label, 0) + 1
        keyed.append(((turn[record.label], record.label), record))
    return [record for _, record in sorted(keyed, key=lambda pair: pair[0])][:count]


@torch.inference_mode()
def write_pca(path: Path, network: nn.Module, records: Sequence[ImageRecord]) -> None:
    """Write ``pca.npz``: ``pictures`` (n, H, W, 3) uint8, their patch tokens as colours ``pca`` (n, h, w, 3) uint8, ``names``."""
    chosen = examples(records)
    images = [read_picture(record.path) for record in chosen]
    side = min(_LARGEST_PX, *(min(image.shape[:2]) for image in images))
    pictures = torch.stack([prepare(image, side) for image in images])  # (n, 3, side, side)
    device = next(network.parameters()).device
    tokens = torch.cat([network(picture[None].to(device)).patches.cpu() for picture in pictures])
    shown, names = pictures.permute(0, 2, 3, 1).numpy(), np.array([record.name for record in chosen])
    buffer = io.BytesIO()
    np.savez(buffer, pictures=shown, pca=token_colours(tokens), names=names)
    write_bytes(path, buffer.getvalue())


def token_colours(tokens: Tensor) -> NDArray[np.uint8]:
    """Return the first three principal components of patch tokens over all pictures as red, green and blue.

    Args:
        tokens: (n, h, w, D) float.

    Returns:
        (n, h, w, 3) uint8; each component is spread between its 1 and 99 % quantiles. A component's sign is the one that makes
        its largest coefficient positive.
    """
    flat = tokens.flatten(0, 2).double()  # (n * h * w, D)
    centred = flat - flat.mean(dim=0)
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    axes = vectors.flip(1)[:, :3]  # (D, 3), the largest first
    signs = torch.sign(axes.gather(0, axes.abs().argmax(dim=0, keepdim=True)))
    components = (centred @ (axes * signs)).numpy()
    low, high = np.quantile(components, _TAILS, axis=0)
    spread = np.clip((components - low) / np.maximum(high - low, 1e-12), 0, 1)
    colours: NDArray[np.uint8] = np.rint(spread * 255).astype(np.uint8)
    return colours.reshape(*tokens.shape[:3], 3)
