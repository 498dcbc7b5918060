from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from cgeartheye.curation import curate
from cgeartheye.curation.embedding import features_of, read_features
from cgeartheye.errors import InputError
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


@pytest.fixture
def three_blocks(tmp_path: Path) -> Path:
    config = replace(SIZES["nano"], depth=3)
    save_backbone(tmp_path / "weights", build(config, seed=1), {"name": "probe", "licence": "CC0-1.0"})
    return tmp_path / "weights"


def test_levels_lie_side_by_side_at_equal_weight(tmp_path: Path, archive_settings: Make, three_blocks: Path) -> None:
    chosen = {"backbone": str(three_blocks), "size_px": 32, "levels": [-1, 0]}
    out = curate(archive_settings(places=9, embedding=chosen), tmp_path / "out")
    reader, backbone = ShardReader(out), load_backbone(three_blocks)
    images = torch.stack([torch.from_numpy(reader.decode(i, 0).copy()).permute(2, 0, 1) for i in range(len(reader))])
    with torch.inference_mode():
        last, first = backbone(images), backbone.levels(images, [0], "all")[0]
    parts = [part for level in (last, first) for part in (level.class_token, level.patches.flatten(1, 2).mean(dim=1))]
    expected = torch.cat([torch.nn.functional.normalize(part, dim=1) for part in parts], dim=1).numpy() / 2
    found = stored(out)
    assert np.abs(found - expected).max() < 2e-3
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=2e-3)
    noted = json.loads((out / "embeddings" / "embeddings.json").read_text())
    width = parts[0].shape[1]
    blocks = [(2, "class"), (2, "mean"), (0, "class"), (0, "mean")]
    assert noted["blocks"] == [{"level": level, "readout": readout, "width": width} for level, readout in blocks]
    assert "bicubic" in noted["transform"]
    assert all(np.load(path).dtype == np.float16 for path in (out / "embeddings").glob("*.npy"))


def test_levels_in_turn_make_the_levels_of_the_tree(tmp_path: Path, archive_settings: Make, three_blocks: Path) -> None:
    chosen = {"backbone": str(three_blocks), "size_px": 32, "levels": [-1, 0], "combine": "in_turn"}
    out = curate(archive_settings(embedding=chosen, clusters={"levels": [6, 2]}), tmp_path / "out")
    clusters = pq.read_table(out / "clusters.parquet")
    assert {len(parents) for parents in clusters["parents"].to_pylist()} == {1}
    assert 2 < len(clusters) <= 6
    with pytest.raises(InputError, match="taken in turn"):
        curate(archive_settings(places=9, embedding=chosen, clusters={"levels": [6, 4, 2]}), tmp_path / "other")


def test_a_level_that_does_not_exist_is_the_users_mistake(tmp_path: Path, archive_settings: Make, three_blocks: Path) -> None:
    chosen = {"backbone": str(three_blocks), "size_px": 32, "levels": [3]}
    with pytest.raises(InputError, match="3 blocks"):
        curate(archive_settings(places=9, embedding=chosen), tmp_path / "out")
    with pytest.raises(ValueError, match="at least two levels"):
        archive_settings(embedding={"backbone": str(three_blocks), "combine": "in_turn"})


def test_pieces_become_one_mapped_file(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    blocks = [random.normal(size=(n, 5)).astype(np.float16) for n in (3, 0, 4)]
    parts = [tmp_path / "parts" / f"{number:06d}.parquet" for number in range(3)]
    for part, block in zip(parts, blocks, strict=True):
        np.save(features_of(part, tmp_path), block if len(block) else np.zeros((0, 0), np.float16))
    rows = read_features(parts, tmp_path)
    assert isinstance(rows, np.memmap)
    assert (rows.dtype, rows.shape) == (np.float16, (7, 5))
    assert np.array_equal(rows, np.concatenate(blocks))
    assert np.array_equal(read_features(parts, tmp_path), rows)


def test_curating_by_colour_never_loads_torch() -> None:
    code = "import sys, cgeartheye.curation; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
