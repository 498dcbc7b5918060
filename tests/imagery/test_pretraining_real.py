"""Pre-training on real pictures: a few steps, to see that they are read, named and learned from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from cgeartheye.files import read_json
from cgeartheye.pretraining import pretrain
from cgeartheye.settings.pretrain import PretrainSettings
from cgeartheye.shards.format import Chip, Place
from cgeartheye.shards.writer import write_shards
from cgeartheye.weights.store import load_own

pytestmark = pytest.mark.imagery


@pytest.fixture
def curated(imagery: Path, tmp_path: Path) -> Path:
    """Six pictures of each of twelve classes."""
    root = imagery / "classification" / "RESISC45_twelve_classes" / "NWPU-RESISC12" / "train"
    if not root.is_dir():
        pytest.skip("the RESISC45 sample is not among the real pictures")
    places = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        for path in sorted(folder.glob("*.jpg"))[:6]:
            with Image.open(path) as image:
                size = {"width": image.width, "height": image.height}
            chip = Chip(path.read_bytes(), {"scene": f"{folder.name}/{path.name}", "licence": "research", **size})
            places.append(Place(name=f"{folder.name}-{path.stem}", chips=(chip,), columns={"label": folder.name}))
    return write_shards(tmp_path / "curated", places)


def test_nano_begins_to_learn_from_real_pictures(curated: Path, tmp_path: Path) -> None:
    settings = PretrainSettings(
        curated=curated,
        threads=1,
        steps=40,
        batch=16,
        optimizer={"lr": 2e-3},
        watch={"log_every": 10, "probe_every": 40},
    )
    out = pretrain(settings, tmp_path / "out")
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 10, 20, 30, 40]
    assert lines[0]["probe_labels"] == "label"
    assert lines[-1]["loss"] < lines[1]["loss"]
    assert lines[-1]["koleo"] < lines[1]["koleo"]  # class tokens spread
    assert lines[-1]["rank"] > 5
    assert lines[-1]["prototypes_used"] > 50
    names = (out / "training_names.txt").read_text().splitlines()
    assert len(names) == 72
    assert all(name.count("/") == 1 for name in names)
    card = read_json(out / "backbone.json")["card"]
    assert card["restricted_by"] == ["research"]
    config = load_own(out).model.config
    assert all(0.2 < value < 0.6 for value in config.mean)
    assert all(0.1 < value < 0.3 for value in config.std)
