from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from cgeartheye.errors import DataError, InputError
from cgeartheye.models.sizes import build
from cgeartheye.models.vit import VitConfig
from cgeartheye.tasks.colour import colour_terms, fit_colour
from cgeartheye.tasks.heads import build_head
from cgeartheye.tasks.segmentation import (
    SegmentationModel,
    TaskCard,
    TaskClass,
    load_task,
    methods,
    quarter_layers,
    read_card,
    save_task,
)
from cgeartheye.tasks.untrained import untrained_twin
from cgeartheye.weights.backbone import Backbone, OwnBackbone
from cgeartheye.weights.load import load_backbone
from cgeartheye.weights.store import save_backbone

TINY = VitConfig(name="tiny", depth=4, width=16, heads=2, hidden=32, patch_px=8, layer_scale=1e-5, position_px=48)


@pytest.fixture
def backbone(tmp_path: Path) -> Backbone:
    model = build(TINY, seed=3)
    model.blocks[0].ls1.gamma.data.fill_(0.7)
    save_backbone(tmp_path / "pretrained", model, {"name": "tiny", "licence": "CC0-1.0", "init_seed": 3})
    return load_backbone(tmp_path / "pretrained")


def card_of(backbone: Backbone) -> TaskCard:
    return TaskCard(
        classes=(TaskClass(name="a", value=1, colour="#010203"), TaskClass(name="b", value=2, colour="#040506")),
        backbone="../pretrained",
        backbone_name=backbone.name,
        backbone_fingerprint=backbone.fingerprint,
        licence="CC0-1.0",
        patch_px=8,
        window_px=64,
        halo_px=16,
        layers=(1, 3),
        head="linear",
        hidden=8,
        width=32,
        temperatures={"trained": 2.0},
    )


def test_linear_head_is_a_matrix_on_standardised_tokens(backbone: Backbone) -> None:
    head = build_head("linear", 32, 2, hidden=8, seed=0)
    head.mean.copy_(torch.linspace(-1, 1, 32))
    head.deviation.fill_(2.0)
    images = torch.randint(0, 256, (1, 3, 40, 48), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    model = SegmentationModel(backbone, head, (1, 3), temperature=2.0).eval()
    with torch.inference_mode():
        found = model(images)
        tokens = torch.cat([level.patches for level in backbone.levels(images, (1, 3), norm="all")], dim=-1)  # (1, h, w, 32)
        weight = head.classify.weight[:, :, 0, 0]
        logits = ((tokens - head.mean) / 2.0) @ weight.T + head.classify.bias
        expected = F.interpolate(logits.permute(0, 3, 1, 2), size=(40, 48), mode="bilinear") / 2.0
    assert found.shape == (1, 2, 40, 48)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_heads_start_alike_from_one_seed_only() -> None:
    def start(seed: int) -> torch.Tensor:
        return build_head("conv", 32, 3, hidden=8, seed=seed).reduce.weight

    assert torch.equal(start(1), start(1))
    assert not torch.equal(start(1), start(2))
    assert build_head("conv", 32, 3, hidden=8, seed=0)(torch.randn(2, 32, 5, 6)).shape == (2, 3, 10, 12)


def test_saved_tasks_come_back(tmp_path: Path, backbone: Backbone) -> None:
    head = build_head("linear", 32, 2, hidden=8, seed=0)
    card = card_of(backbone)
    save_task(tmp_path / "adapted", card, {"trained": head.state_dict()})
    model, read = load_task(tmp_path / "adapted")
    assert read == card
    assert methods(tmp_path / "adapted") == ["trained"]
    images = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    with torch.inference_mode():
        expected = SegmentationModel(backbone, head, (1, 3), temperature=2.0)(images)
        assert torch.equal(model(images), expected)


@pytest.mark.parametrize("fault", ["absent", "truncated", "version", "shape"])
def test_damaged_tasks_are_refused(tmp_path: Path, backbone: Backbone, fault: str) -> None:
    folder = tmp_path / "adapted"
    save_task(folder, card_of(backbone), {"trained": build_head("linear", 32, 2, hidden=8, seed=0).state_dict()})
    if fault == "absent":
        (folder / "task.json").unlink()
    elif fault == "truncated":
        (folder / "head.safetensors").write_bytes((folder / "head.safetensors").read_bytes()[:100])
    elif fault == "version":
        (folder / "task.json").write_text(
            (folder / "task.json").read_text().replace('"schema_version": 1', '"schema_version": 9')
        )
    else:
        save_task(folder, card_of(backbone), {"trained": build_head("linear", 32, 5, hidden=8, seed=0).state_dict()})
    with pytest.raises(InputError if fault == "absent" else DataError):
        load_task(folder)


def test_a_moved_backbone_is_named(tmp_path: Path, backbone: Backbone) -> None:
    save_task(
        tmp_path / "deep" / "adapted", card_of(backbone), {"trained": build_head("linear", 32, 2, hidden=8, seed=0).state_dict()}
    )
    assert read_card(tmp_path / "deep" / "adapted").backbone == "../pretrained"
    with pytest.raises(InputError, match="not there any more"):
        load_task(tmp_path / "deep" / "adapted")


def test_the_untrained_twin_starts_where_training_started_with_layer_scale_one(backbone: Backbone) -> None:
    twin = untrained_twin(backbone)
    assert isinstance(twin, OwnBackbone)
    start = build(TINY, seed=3).state_dict()
    for name, value in twin.model.state_dict().items():
        assert torch.equal(value, torch.ones_like(value) if name.endswith("gamma") else start[name])


@pytest.mark.parametrize(
    ("depth", "layers"), [(4, (0, 1, 2, 3)), (12, (2, 5, 8, 11)), (24, (5, 11, 17, 23)), (2, (0, 1)), (1, (0,))]
)
def test_quarter_layers(depth: int, layers: tuple[int, ...]) -> None:
    assert quarter_layers(depth) == layers


def test_colour_regression_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (3000, 3)).astype(np.uint8)
    score = colours @ np.array([[1, -1, 0], [0, 1, -1], [-1, 0, 1]]) / 60 + rng.gumbel(size=(3000, 3))
    labels = score.argmax(1)
    model = fit_colour(torch.from_numpy(colours), torch.from_numpy(labels), 3, penalty=1e-4)
    terms = ((colour_terms(torch.from_numpy(colours)) - model.mean) / model.deviation).numpy()
    oracle = LogisticRegression(C=1 / (2 * 1e-4 * 3000), max_iter=5000, tol=1e-8).fit(terms, labels)
    with torch.inference_mode():
        logits = model(torch.from_numpy(colours.reshape(1, 50, 60, 3)).permute(0, 3, 1, 2))
        ours = torch.softmax(logits, 1).permute(0, 2, 3, 1).reshape(-1, 3).numpy()
    np.testing.assert_allclose(ours, oracle.predict_proba(terms), atol=0.01)
