from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from cgeartheye.adaptation import adapt
from cgeartheye.errors import DataError, InputError
from cgeartheye.files import read_json
from cgeartheye.models.sizes import build
from cgeartheye.models.vit import VitConfig
from cgeartheye.progress import Advance, Progress
from cgeartheye.settings.adapt import AdaptSettings, ClassSpec, HeadSettings, Pair
from cgeartheye.tasks.segmentation import load_task
from cgeartheye.weights.store import save_backbone

TINY = VitConfig(name="tiny", depth=2, width=32, heads=2, hidden=64, patch_px=8, layer_scale=1.0, position_px=48)
CLASSES = (ClassSpec(name="stripes", value=0), ClassSpec(name="chequers", value=1))
HEAD = HeadSettings(steps=60, evaluate_every=20, batch=4, hidden=16)


def textured(seed: int, side: int = 128) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Two textures of the same two colours, so that no single pixel tells its class."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    mask = np.kron(rng.integers(0, 2, (side // 32, side // 32)), np.ones((32, 32))).astype(np.uint8)
    bright = np.where(mask == 0, (x // 2) % 2, (x // 2 + y // 2) % 2)
    picture = np.where(bright[..., None] == 1, [200, 150, 90], [60, 80, 120]) + rng.integers(-15, 16, (side, side, 3))
    return picture.astype(np.uint8), mask


def write_pair(folder: Path, name: str, picture: NDArray[np.uint8], mask: NDArray[np.uint8]) -> None:
    (folder / "images").mkdir(exist_ok=True, parents=True)
    (folder / "masks").mkdir(exist_ok=True)
    Image.fromarray(picture).save(folder / "images" / f"{name}.png")
    Image.fromarray(mask).save(folder / "masks" / f"{name}.png")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labelled")
    for seed in range(10):
        write_pair(folder, f"p{seed}", *textured(seed))
    save_backbone(folder / "backbone", build(TINY, seed=0), {"name": "tiny", "licence": "CC0-1.0", "init_seed": 5})
    return folder


def settings(data: Path, **others: Any) -> AdaptSettings:
    values: dict[str, Any] = {
        "backbone": data / "backbone",
        "pairs": (Pair(images=data / "images", masks=data / "masks", gsd_m=0.5),),
        "classes": CLASSES,
        "window_px": 64,
        "halo_px": 8,
        "windows": 40,
        "head": HEAD,
        "threads": 1,
    }
    return AdaptSettings(**{**values, **others})


@pytest.fixture(scope="module")
def adapted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return adapt(settings(data), tmp_path_factory.mktemp("adapted") / "out")


def test_it_learns_what_colour_cannot_tell(adapted: Path) -> None:
    scores = read_json(adapted / "task.json")["scores"]["methods"]
    assert set(scores) == {"trained", "untrained", "colour"}
    assert scores["trained"]["miou"]["low"] > 0.75
    assert scores["colour"]["miou"]["high"] < 0.55
    assert scores["colour"]["gain"]["low"] > 0.2
    for row in scores.values():
        assert row["calibration_error"]["after"] <= row["calibration_error"]["before"] + 0.01


def test_the_stored_model_is_the_trained_one(adapted: Path) -> None:
    picture, mask = textured(99)
    for method, bar in (("trained", 0.8), ("untrained", 0.6)):
        model, card = load_task(adapted, method)
        with torch.inference_mode():
            logits = model(torch.from_numpy(picture).permute(2, 0, 1)[None])
        assert logits.shape == (1, 2, 128, 128)
        assert (logits.argmax(1)[0].numpy() == mask).mean() > bar
    assert card.gsd_m == 0.5
    assert (adapted / "MODEL_CARD.md").read_text().count("|") > 10
    assert not (adapted / ".work").exists()


@pytest.mark.parametrize("spec", ["timm:test_convnext?random", "timm:test_vit2?random"])
def test_networks_of_others_take_a_head_too(data: Path, tmp_path: Path, spec: str) -> None:
    folder = adapt(settings(data, backbone=spec, window_px=64, halo_px=16), tmp_path / "a")
    model, card = load_task(folder, "trained")
    assert (card.patch_px, card.width) == (16, sum(model.backbone.level_widths(card.layers)))
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 64, 96, dtype=torch.uint8)).shape == (1, 2, 64, 96)


class Interrupted(Progress):
    """A listener that stops the run at the n-th unit of a bar."""

    def __init__(self, bar: str, at: int) -> None:
        self.bar, self.at, self.count = bar, at, 0

    @contextmanager
    def task(self, description: str, total: int, done: int = 0) -> Iterator[Advance]:
        def advance(units: int) -> None:
            if description == self.bar:
                self.count += units
                if self.count >= self.at:
                    raise KeyboardInterrupt

        del total, done
        yield advance


def test_interrupted_runs_end_with_the_same_bytes(data: Path, adapted: Path, tmp_path: Path) -> None:
    for bar, at in (("features", 1), ("head", 33), ("head", 35), ("head", 50)):
        with pytest.raises(KeyboardInterrupt):
            adapt(settings(data), tmp_path / "out", progress=Interrupted(bar, at))
    adapt(settings(data), tmp_path / "out")
    for name in ("head.safetensors", "untrained_head.safetensors", "colour.safetensors", "metrics.jsonl"):
        assert (tmp_path / "out" / name).read_bytes() == (adapted / name).read_bytes()
    same = {"backbone": None}  # a path relative to the folder
    assert {**read_json(tmp_path / "out" / "task.json"), **same} == {**read_json(adapted / "task.json"), **same}


def test_bad_pairs_are_left_out_and_listed(data: Path, tmp_path: Path) -> None:
    for seed in range(4):
        write_pair(tmp_path / "d", f"p{seed}", *textured(seed))
    picture, mask = textured(5)
    write_pair(tmp_path / "d", "small", picture, mask[:100])
    write_pair(tmp_path / "d", "alone", picture, mask)
    (tmp_path / "d" / "masks" / "alone.png").unlink()
    (tmp_path / "d" / "images" / "p3.png").write_bytes(b"no picture")
    pairs = (Pair(images=tmp_path / "d" / "images", masks=tmp_path / "d" / "masks"),)
    quick = HeadSettings(steps=2, evaluate_every=1, hidden=8, kind="linear")
    out = adapt(settings(data, pairs=pairs, head=quick, baselines=False, group="picture"), tmp_path / "out")
    left = {Path(item["path"]).name: item["reason"] for item in read_json(out / "left_out.json")}
    assert set(left) == {"small.png", "alone.png", "p3.png"}
    assert "the mask is 128 x 100 px, its picture 128 x 128" in left["small.png"]


def test_unlisted_mask_values_are_named(data: Path, tmp_path: Path) -> None:
    picture, mask = textured(0)
    mask[:3, :10] = 77
    write_pair(tmp_path / "d", "p", picture, mask)
    pairs = (Pair(images=tmp_path / "d" / "images", masks=tmp_path / "d" / "masks"),)
    with pytest.raises(DataError, match=r"no class and no `ignore` lists: 77 \(30 px\)"):
        adapt(settings(data, pairs=pairs), tmp_path / "out")


def test_a_class_without_training_pixels_is_an_error(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no training window holds the class ice"):
        adapt(settings(data, classes=(*CLASSES, ClassSpec(name="ice", value=8))), tmp_path / "out")


def test_no_backbone_and_sizes_off_the_lattice_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no backbone"):
        adapt(settings(data, backbone=None), tmp_path / "a")
    with pytest.raises(InputError, match="multiple of the model's patch"):
        adapt(settings(data, window_px=60), tmp_path / "b")


def test_palette_masks_are_read_by_colour_if_classes_have_colours(data: Path, tmp_path: Path) -> None:
    for seed in range(2):
        picture, mask = textured(seed)
        write_pair(tmp_path / "d", f"p{seed}", picture, mask)
        image = Image.fromarray(mask + 3, mode="P")
        image.putpalette([0, 0, 0] * 3 + [255, 0, 0, 0, 255, 0])
        image.save(tmp_path / "d" / "masks" / f"p{seed}.png")
    pairs = (Pair(images=tmp_path / "d" / "images", masks=tmp_path / "d" / "masks"),)
    classes = (ClassSpec(name="stripes", colour="#FF0000"), ClassSpec(name="chequers", colour="#00FF00"))
    quick = HeadSettings(steps=2, evaluate_every=1, hidden=8, kind="linear")
    out = adapt(settings(data, pairs=pairs, classes=classes, head=quick, baselines=False, group="picture"), tmp_path / "out")
    assert [c["colour"] for c in read_json(out / "task.json")["classes"]] == ["#FF0000", "#00FF00"]
