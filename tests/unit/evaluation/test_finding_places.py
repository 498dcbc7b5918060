from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cgeartheye.errors import DataError
from cgeartheye.evaluation import evaluate
from cgeartheye.evaluation.finding import ask
from cgeartheye.files import read_json
from cgeartheye.models.sizes import build
from cgeartheye.models.vit import VitConfig
from cgeartheye.settings.evaluate import EvaluateSettings, RetrievalSet
from cgeartheye.shards.format import Chip, Place
from cgeartheye.shards.writer import write_shards
from cgeartheye.weights.store import save_backbone

TINY = VitConfig(name="tiny", depth=1, width=16, heads=2, hidden=32, patch_px=4, layer_scale=1.0, position_px=16)


def chip(place: int, date: int) -> Chip:
    """Blocks that stay, under a light that changes with the date."""
    blocks = np.kron(np.random.default_rng(place).integers(40, 200, (4, 4, 3)), np.ones((8, 8, 1)))
    light = np.random.default_rng(10_000 + 10 * place + date).normal(0, 3, blocks.shape) + 12 * date
    buffer = io.BytesIO()
    Image.fromarray((blocks + light).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=95)
    return Chip(buffer.getvalue(), {"year": 2023, "quarter": date + 1})


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("curated")
    places = [Place(f"p{i:02d}", tuple(chip(i, d) for d in range(1 if i == 5 else 3)), {}) for i in range(30)]
    write_shards(folder, places)
    return folder


@pytest.fixture(scope="module")
def found(curated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("found")
    save_backbone(root / "b", build(TINY, seed=4), {"name": "tiny", "licence": "CC0-1.0", "init_seed": 9})
    wanted = {"name": "seasons", "curated": curated, "pairs": 2, "thumbnail_px": 16}
    settings = EvaluateSettings.model_validate(
        {"backbones": (root / "b",), "retrieval": [wanted], "bootstrap": 100, "threads": 1}
    )
    return evaluate(settings, root / "out")


def test_rows_hold_every_baseline_and_the_chance(found: Path) -> None:
    rows = read_json(found / "results.json")["rows"]
    assert {r["metric"] for r in rows} == {"recall_at_1", "mean_reciprocal_rank"}
    methods = {(r["method"], r["readout"]) for r in rows}
    learnt = {(m, r) for m in ("trained", "untrained") for r in ("class", "patch")}
    plain = {("colour_mean_std", "colour"), ("joint_histogram", "colour"), ("pixels", "pixels"), ("pixels_turned", "pixels")}
    assert methods == learnt | plain
    assert {r["chance"] for r in rows} == {1 / 29}
    assert {r["n_test"] for r in rows} == {58}
    against = {r["against"] for r in rows if r["method"] == "trained"}
    assert against == {"untrained", "colour_mean_std", "joint_histogram", "pixels", "pixels_turned"}


def test_pixels_find_places_once_turns_are_tried(found: Path) -> None:
    rows = read_json(found / "results.json")["rows"]
    recall = {r["method"]: r["value"] for r in rows if r["metric"] == "recall_at_1" and r["readout"] == "pixels"}
    assert recall["pixels_turned"] > 0.5
    assert recall["pixels"] < 0.6 * recall["pixels_turned"]


def test_stored_queries_come_as_the_shards_hold_them(curated: Path) -> None:
    wanted = {"name": "seasons", "curated": curated, "queries": "stored"}
    asked = ask(RetrievalSet.model_validate(wanted), seed=0)
    pictures = list(asked.pictures())
    count = len(asked.places)
    assert len(pictures) == 2 * count
    for number, place in enumerate(asked.places):
        assert np.array_equal(pictures[count + number], asked.reader.decode(place, 0))


def test_predictions_name_query_and_answer(found: Path) -> None:
    table = pq.read_table(found / "predictions" / "seasons.pixels_turned.s0.pixels.retrieval.parquet").to_pydict()
    assert table["name"][0] == "p00.d0"
    assert table["name"][29] == "p00.d1"
    right = np.array(table["truth"]) == np.array(table["predicted"])
    assert (right == (np.array(table["rank"]) == 1)).all()
    assert "p05" not in table["truth"]


def test_fewer_places_are_a_fixed_subset(curated: Path, tmp_path: Path) -> None:
    def names(count: int) -> set[str]:
        asked = ask(RetrievalSet(name="x", curated=curated, places=count), seed=0)
        return {asked.reader.place(place) for place in asked.places}

    assert names(5) < names(12) < names(100)
    assert len(names(5)) == 5
    assert len(names(100)) == 29


def test_single_dates_are_refused(tmp_path: Path) -> None:
    write_shards(tmp_path, [Place("a", (chip(0, 0),), {}), Place("b", (chip(1, 0), chip(1, 1)), {})])
    with pytest.raises(DataError, match="two places have two dates"):
        ask(RetrievalSet(name="x", curated=tmp_path), seed=0)
