from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier

from cgeartheye.errors import DataError, InputError, StaleStageError
from cgeartheye.evaluation import evaluate
from cgeartheye.evaluation.classification import listing, without_test_places
from cgeartheye.evaluation.store import load_array
from cgeartheye.files import read_json, sha256_file
from cgeartheye.models.sizes import build
from cgeartheye.models.vit import VitConfig
from cgeartheye.progress import Progress
from cgeartheye.settings.evaluate import EvaluateSettings
from cgeartheye.weights.store import save_backbone

TINY = VitConfig(name="tiny", depth=2, width=16, heads=2, hidden=32, patch_px=4, layer_scale=1.0, position_px=16)
CLASSES = ("checks", "dots", "stripes")


def picture(label: int, number: int) -> np.ndarray:
    """Three textures in random colours."""
    rng = np.random.default_rng(1000 * label + number)
    y, x = np.mgrid[:16, :16] + rng.integers(0, 8, 2)[:, None, None]
    shape = [(x // 2 + y // 2) % 2, (x % 4 < 2) & (y % 4 < 2), y // 2 % 2][label][..., None]
    colours = rng.integers(0, 256, (2, 3))
    noisy = np.where(shape == 1, colours[0], colours[1]) + rng.normal(0, 8, (16, 16, 3))
    return noisy.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    for label, name in enumerate(CLASSES):
        (root / name).mkdir()
        for number in range(24):
            Image.fromarray(picture(label, number)).save(root / name / f"{number // 2:02d}_{number % 2}.png")
    (root / "dots" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return root


def trained(folder: Path, *, init_seed: int, config: VitConfig = TINY, moved: float = 0.3) -> Path:
    """A backbone that differs from its own start by a random step of ``moved``; 0 is no training at all."""
    model = build(config, seed=init_seed)
    generator = torch.Generator().manual_seed(init_seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * moved * 0.1)
    save_backbone(folder, model, {"name": "tiny", "licence": "CC0-1.0", "init_seed": init_seed})
    return folder


def settings_for(pictures: Path, *backbones: Path, **values: Any) -> EvaluateSettings:
    folder = {"name": "textures", "root": pictures, "split": {"test_share": 0.4}, **values.pop("folder", {})}
    common = {"bootstrap": 200, "threads": 1, "linear": {"strengths": (0.01, 1.0)}}
    return EvaluateSettings.model_validate({"backbones": backbones, "datasets": [folder], **common, **values})


@pytest.fixture(scope="module")
def evaluated(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[EvaluateSettings, Path]:
    root = tmp_path_factory.mktemp("evaluated")
    settings = settings_for(pictures, trained(root / "a", init_seed=1), trained(root / "b", init_seed=2))
    return settings, evaluate(settings, root / "out")


def rows_of(out: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_json(out / "results.json")["rows"]
    return rows


def outputs(out: Path) -> dict[str, str]:
    skipped = {"run.log", "stage.lock", "stage.json", "manifest.json"}
    return {p.relative_to(out).as_posix(): sha256_file(p) for p in out.rglob("*") if p.is_file() and p.name not in skipped}


def test_every_row_is_there_once_a_comparison(evaluated: tuple[EvaluateSettings, Path]) -> None:
    rows = rows_of(evaluated[1])
    keys = [(r["method"], r["readout"], r["probe"], r["against"]) for r in rows]
    assert len(keys) == len(set(keys))
    against = ("untrained", "colour_mean_std", "joint_histogram")
    expected = {("trained", r, p, a) for r in ("class", "patch") for p in ("knn", "linear") for a in against}
    expected |= {("untrained", r, p, None) for r in ("class", "patch") for p in ("knn", "linear")}
    expected |= {(m, "colour", p, None) for m in ("colour_mean_std", "joint_histogram") for p in ("knn", "linear")}
    assert set(keys) == expected
    assert [r["seeds"] for r in rows] == [2 if r["method"] in {"trained", "untrained"} else None for r in rows]
    assert pq.read_table(evaluated[1] / "results.parquet").to_pylist() == rows
    assert all(r["low"] <= r["value"] <= r["high"] for r in rows)
    assert all(r["difference_low"] <= r["difference"] <= r["difference_high"] for r in rows if r["against"])


def test_figures_equal_scikit_learn_on_the_same_features(evaluated: tuple[EvaluateSettings, Path]) -> None:
    out = evaluated[1]
    listed = read_json(out / "datasets" / "textures.json")
    train, test = (np.array([entry[2] for entry in listed[part]]) for part in ("train", "test"))
    scores: dict[str, list[float]] = {}
    for method in ("trained", "untrained"):
        for seed in range(2):
            features = load_array(out / "features" / "textures" / f"{method}.s{seed}.patch.npy").astype(np.float64)
            assert features.shape == (len(train) + len(test), 32)
            oracle = KNeighborsClassifier(20, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.07))
            oracle.fit(features[: len(train)], train)
            scores.setdefault(method, []).append(oracle.score(features[len(train) :], test))
    rows = {(r["method"], r["readout"], r["probe"], r["against"]): r for r in rows_of(out)}
    row = rows["trained", "patch", "knn", "untrained"]
    assert row["value"] == pytest.approx(np.mean(scores["trained"]))
    assert row["difference"] == pytest.approx(np.mean(scores["trained"]) - np.mean(scores["untrained"]))
    assert row["n_test"] == len(test)


def test_predictions_and_confusion_tell_the_same_story(evaluated: tuple[EvaluateSettings, Path]) -> None:
    out = evaluated[1]
    matrix = read_json(out / "confusion.json")["matrices"][0]
    counts = np.zeros((3, 3), int)
    for seed in range(2):
        stem = f"textures.trained.s{seed}.{matrix['readout']}.{matrix['probe']}.parquet"
        table = pq.read_table(out / "predictions" / stem).to_pydict()
        assert [name.split("/")[0] for name in table["name"]] == table["truth"]
        for truth, predicted in zip(table["truth"], table["predicted"], strict=True):
            counts[CLASSES.index(truth), CLASSES.index(predicted)] += 1
    assert matrix["classes"] == list(CLASSES)
    assert matrix["counts"] == counts.tolist()
    best = max(r["value"] for r in rows_of(out) if r["method"] == "trained")
    assert counts.trace() / counts.sum() == pytest.approx(best)


def test_the_untrained_twin_is_what_training_began_from(pictures: Path, tmp_path: Path) -> None:
    settings = settings_for(pictures, trained(tmp_path / "b", init_seed=7, moved=0.0))
    out = evaluate(settings, tmp_path / "out")
    for row in rows_of(out):
        if row["against"] == "untrained":
            assert (row["difference"], row["difference_low"], row["difference_high"]) == (0, 0, 0)
    folder = out / "features" / "textures"
    assert (folder / "trained.s0.patch.npy").read_bytes() == (folder / "untrained.s0.patch.npy").read_bytes()


def test_a_small_layer_scale_gets_a_second_twin_that_sees(pictures: Path, tmp_path: Path) -> None:
    backbone = trained(tmp_path / "b", init_seed=1, config=replace(TINY, layer_scale=1e-5))
    out = evaluate(settings_for(pictures, backbone, readouts=("class",)), tmp_path / "out")
    spread = {
        method: load_array(out / "features" / "textures" / f"{method}.s0.class.npy").std(axis=0).mean()
        for method in ("untrained", "untrained_layerscale_1")
    }
    assert spread["untrained_layerscale_1"] > 100 * spread["untrained"]
    against = {r["against"] for r in rows_of(out) if r["method"] == "trained"}
    assert {"untrained", "untrained_layerscale_1"} <= against


def test_bad_pictures_are_listed_and_the_rest_is_measured(evaluated: tuple[EvaluateSettings, Path]) -> None:
    listed = read_json(evaluated[1] / "datasets" / "textures.json")
    assert [entry["name"] for entry in listed["left_out"]] == ["dots/broken.png"]
    assert len(listed["train"]) + len(listed["test"]) == 72


def test_pictures_of_the_training_are_refused(pictures: Path, tmp_path: Path) -> None:
    backbone = trained(tmp_path / "b", init_seed=1)
    names = [f"archive/{p.parent.name}/{p.name}" for p in sorted(pictures.glob("*/*.png"))[:20]]
    (backbone / "training_names.txt").write_text("\n".join(names) + "\n")
    with pytest.raises(DataError, match="among the backbone's training pictures, first checks/"):
        evaluate(settings_for(pictures, backbone), tmp_path / "out")
    evaluate(settings_for(pictures, backbone, allow_seen=True), tmp_path / "allowed")


class Stopper(Progress):
    """Raises after a number of pictures, as a kill would end the work."""

    def __init__(self, after: int) -> None:
        self.left = after

    @contextmanager
    def task(self, description: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:  # noqa: ARG002 - unused
        yield self._advance

    def _advance(self, units: int) -> None:
        self.left -= units
        if self.left < 0:
            raise KeyboardInterrupt


def test_an_interrupted_run_ends_with_the_same_bytes(evaluated: tuple[EvaluateSettings, Path], tmp_path: Path) -> None:
    settings, whole = evaluated
    out = tmp_path / "out"
    for after in (10, 100, 200):
        with pytest.raises(KeyboardInterrupt):
            evaluate(settings, out, progress=Stopper(after))
    kept = {name: digest for name, digest in outputs(out).items() if name.startswith("features")}
    assert 4 <= len(kept) < 10
    evaluate(settings, out)
    assert outputs(out) == outputs(whole)
    (out / "manifest.json").unlink()
    for name in ("results.json", "pca.npz", "datasets/textures.json", "predictions/textures.trained.s1.class.linear.parquet"):
        (out / name).unlink()
    shutil.rmtree(out / "features" / "textures")
    evaluate(settings, out)
    assert outputs(out) == outputs(whole)


def test_a_finished_stage_is_not_touched(evaluated: tuple[EvaluateSettings, Path]) -> None:
    settings, out = evaluated
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*.parquet")}
    evaluate(settings, out)
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*.parquet")} == before
    manifest = read_json(out / "manifest.json")
    assert manifest["summary"]["seeds"] == 2
    assert "textures knn" in manifest["summary"]["headline"]
    with pytest.raises(StaleStageError, match="bootstrap"):
        evaluate(settings.model_copy(update={"bootstrap": 300}), out)


def test_places_are_drawn_together_and_never_on_both_sides(pictures: Path, tmp_path: Path) -> None:
    settings = settings_for(pictures, folder={"group": "place"})
    folder = settings.datasets[0]
    found = listing(folder, tmp_path / "x.json")
    kept = without_test_places(folder, found)
    tested = {record.name.rsplit("_", 1)[0] for record in found.test}
    assert {r.name for r in kept.train} == {r.name for r in found.train if r.name.rsplit("_", 1)[0] not in tested}
    assert 0 < len(kept.train) < len(found.train)
    assert kept.test == found.test
    out = evaluate(settings.model_copy(update={"backbones": (trained(tmp_path / "b", init_seed=1),)}), tmp_path / "out")
    rows = rows_of(out)
    assert "by place" in rows[0]["protocol"]
    assert rows[0]["n_test"] == len(found.test)


def test_a_bank_that_places_use_up_is_refused(pictures: Path, tmp_path: Path) -> None:
    folder = settings_for(pictures, folder={"group": "place", "split": {"test_share": 0.95}}).datasets[0]
    with pytest.raises(DataError, match="nearly every place"):
        without_test_places(folder, listing(folder, tmp_path / "x.json"))


def test_wrong_requests_are_named(pictures: Path, tmp_path: Path) -> None:
    one = trained(tmp_path / "a", init_seed=1)
    with pytest.raises(InputError, match="no backbone"):
        evaluate(EvaluateSettings(), tmp_path / "out")
    with pytest.raises(InputError, match="nothing to measure"):
        evaluate(EvaluateSettings(backbones=(one,)), tmp_path / "out")
    with pytest.raises(InputError, match="same weights"):
        evaluate(settings_for(pictures, one, one), tmp_path / "out1")
    other = trained(tmp_path / "c", init_seed=1, config=replace(TINY, depth=1))
    with pytest.raises(InputError, match="one recipe"):
        evaluate(settings_for(pictures, one, other), tmp_path / "out2")
    with pytest.raises(InputError, match="nowhere"):
        evaluate(settings_for(tmp_path / "nowhere", one), tmp_path / "out3")
    with pytest.raises(ValueError, match="used twice: x"):
        EvaluateSettings.model_validate({"datasets": [{"name": "x", "root": "a"}, {"name": "x", "root": "b"}]})


def test_results_are_strict_json_without_seconds(evaluated: tuple[EvaluateSettings, Path]) -> None:
    text = (evaluated[1] / "results.json").read_text()
    assert json.loads(text)["schema_version"] == 1
    assert "second" not in text
    table = (evaluated[1] / "results.md").read_text()
    assert "## textures: knn, overall accuracy" in table
    assert "| joint_histogram | colour |" in table
