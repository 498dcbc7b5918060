from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cgeartheye.curation import curate
from cgeartheye.models.sizes import SIZES, build
from cgeartheye.probes.colour import joint_histogram
from cgeartheye.settings.curate import CurateSettings
from cgeartheye.shards.reader import ShardReader
from cgeartheye.stage import read_manifest
from cgeartheye.weights.load import load_backbone
from cgeartheye.weights.store import save_backbone

Make = Callable[..., CurateSettings]


def stored(out: Path) -> np.ndarray:
    return np.concatenate([np.load(path) for path in sorted((out / "embeddings").glob("*.npy"))]).astype(np.float32)


def test_colour_is_the_joint_histogram_of_the_anchor_date(tmp_path: Path, archive_settings: Make) -> None:
    out = curate(archive_settings(places=20, shard_mb=0.1), tmp_path / "out")
    reader = ShardReader(out)
    expected = np.stack([joint_histogram(reader.decode(i, 0)) for i in range(len(reader))])
    assert np.abs(stored(out) - expected).max() < 1e-3


@pytest.mark.parametrize("readout", ["class", "mean"])
def test_a_backbones_features_and_provenance(tmp_path: Path, archive_settings: Make, readout: str) -> None:
    config = replace(SIZES["nano"], depth=1)
    save_backbone(tmp_path / "weights", build(config, seed=1), {"name": "probe", "licence": "CC-BY-NC-4.0"})
    settings = archive_settings(
        places=12, embedding={"backbone": str(tmp_path / "weights"), "size_px": 32, "readouts": [readout]}
    )
    out = curate(settings, tmp_path / "out")
    reader = ShardReader(out)
    backbone = load_backbone(tmp_path / "weights")
    images = torch.stack([torch.from_numpy(reader.decode(i, 0).copy()).permute(2, 0, 1) for i in range(len(reader))])
    with torch.inference_mode():
        features = backbone(images)
    wanted = features.class_token if readout == "class" else features.patches.flatten(1, 2).mean(dim=1)
    expected = torch.nn.functional.normalize(wanted, dim=1).numpy()
    assert np.abs(stored(out) - expected).max() < 2e-3
    made = read_manifest(out, "curate")["summary"]["embedding"]
    assert (made["fingerprint"], made["licence"]) == (backbone.fingerprint, "CC-BY-NC-4.0")
    noted = json.loads((out / "embeddings" / "embeddings.json").read_text())
    assert noted["fingerprint"] == made["fingerprint"]
    assert noted["width"] == expected.shape[1]


def test_curating_by_colour_never_loads_torch() -> None:
    code = "import sys, cgeartheye.curation; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
