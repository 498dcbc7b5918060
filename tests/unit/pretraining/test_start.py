"""Continuing from weights: the same network, whoever saved it; careful rates, a guard, and the licence carried on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cgeartheye.errors import InputError
from cgeartheye.models.sizes import SIZES, build
from cgeartheye.models.vit import IMAGENET_MEAN, VisionTransformer, VitConfig
from cgeartheye.pretraining.start import (
    Guard,
    Parent,
    begin_backbone,
    inherit,
    licences,
    parent_of,
    start_inputs,
    trainable_share,
)
from cgeartheye.settings.pretrain import PretrainSettings
from cgeartheye.weights.backbone import OwnBackbone, state_fingerprint
from cgeartheye.weights.card import model_card
from cgeartheye.weights.export import export
from cgeartheye.weights.load import load_into_own
from cgeartheye.weights.store import save_backbone

MEAN, STD = (0.4, 0.41, 0.3), (0.2, 0.19, 0.18)
RECIPE = PretrainSettings(steps=3).identity()
CARD: dict[str, Any] = {
    "name": "ours",
    "licence": "CC-BY-NC-4.0",
    "restricted_by": ["CC-BY-NC-4.0"],
    "parent": None,
    "recipe": RECIPE,
}


def network(size: str = "nano", **changes: Any) -> VisionTransformer:
    """A network whose every weight matters: at a LayerScale of 1e-5 its blocks would not."""
    model = build(dataclasses.replace(SIZES[size], mean=MEAN, std=STD, **changes), seed=3).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".gamma"):
                parameter.fill_(0.5)
            elif parameter.ndim == 2 and name.startswith("blocks."):
                parameter.mul_(4.0)
            elif name == "pos_embed":
                parameter.normal_(generator=torch.Generator().manual_seed(1))
    return model


def own(folder: Path, model: VisionTransformer, **card: Any) -> Path:
    save_backbone(folder, model, {**CARD, **card})
    return folder


def settings(weights: Path | str | None, **changes: Any) -> PretrainSettings:
    return PretrainSettings(start={"weights": weights}, steps=10, **changes)


def loaded(weights: Path | str, **changes: Any) -> Parent:
    parent = parent_of(settings(weights, **changes))
    assert parent is not None
    return parent


def same(a: VisionTransformer, b: VisionTransformer, side: int = 72) -> None:
    picture = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for x, y in zip(a(picture), b(picture), strict=True):
            torch.testing.assert_close(x, y)


def test_a_dinov2_checkpoint_gives_its_features_and_its_statistics(tmp_path: Path) -> None:
    model = network("small", position_px=56, position_interpolation="dinov2")
    wrapped = {"teacher": {f"backbone.{name}": value for name, value in model.state_dict().items()}}
    torch.save(wrapped, tmp_path / "dinov2_vits14.pth")
    parent = loaded(tmp_path / "dinov2_vits14.pth", backbone="small", drop_path=0.25)
    assert (parent.config.mean, parent.config.position_px, parent.config.position_interpolation) == (IMAGENET_MEAN, 56, "dinov2")
    begun = begin_backbone(dataclasses.replace(SIZES["small"], drop_path=0.25), parent, seed=0)
    assert begun.config.drop_path == 0.25
    reference = VisionTransformer(dataclasses.replace(model.config, mean=IMAGENET_MEAN, std=(0.229, 0.224, 0.225))).eval()
    reference.load_state_dict(model.state_dict())
    same(begun.eval(), reference)
    assert parent.card()["layout"] == "dinov2"
    assert (parent.licence, parent.card()["file"]) == ("unknown", "dinov2_vits14.pth")


def test_our_own_folder_is_continued_with_its_means_positions_and_lineage(tmp_path: Path) -> None:
    model = network(position_interpolation="antialias", registers=2)
    before = {"file": "first.pth", "layout": "dinov2", "sha256": "ab", "licence": "apache-2.0"}
    folder = own(tmp_path / "parent", model, parent=before)
    (folder / "training_names.txt").write_text("port/b.jpg\nbeach/a.jpg\n")
    parent = loaded(folder)
    begun = begin_backbone(SIZES["nano"], parent, seed=5)
    assert begun.config == dataclasses.replace(model.config, drop_path=0.0)
    same(begun.eval(), model)
    assert parent.seen == ("beach/a.jpg", "port/b.jpg")
    card = parent.card()
    assert (card["name"], card["layout"], card["sha256"]) == ("ours", "own", state_fingerprint(model))
    assert card["parent"] == before
    assert "CC-BY-NC-4.0" in parent.introduction()
    begun.cls_token.data.fill_(7.0)  # training must not reach the parent
    assert not (parent.state["cls_token"] == 7.0).any()


@pytest.mark.parametrize("layout", ["dinov2", "mmpretrain", "timm", "huggingface"])
def test_every_layout_that_is_written_can_be_continued(tmp_path: Path, layout: str) -> None:
    model = network()
    backbone = OwnBackbone(model, name="ours", fingerprint=state_fingerprint(model), licence="CC0-1.0", card=CARD)
    export(backbone, layout, tmp_path / layout)
    same(begin_backbone(SIZES["nano"], loaded(tmp_path / layout), seed=0).eval(), model)


def test_a_copy_of_others_weights_names_the_file_they_came_from(tmp_path: Path) -> None:
    before = {"file": "dinov2_vits14.pth", "layout": "dinov2", "sha256": "ab", "licence": "apache-2.0"}
    card = {"name": "copy", "licence": "apache-2.0", "restricted_by": [], "parent": before}
    save_backbone(tmp_path / "copy", network(), card)
    found = loaded(tmp_path / "copy").card()
    assert {**before, "name": "copy", "restricted_by": []} == found


def test_networks_of_timm_and_transformers_come_over_if_they_are_dinov2s(tmp_path: Path) -> None:
    parent = loaded("timm:vit_small_patch14_reg4_dinov2?random", backbone="small")
    assert (parent.config.registers, parent.licence, parent.card()["layout"]) == (4, "apache-2.0", "timm")
    model = network()
    backbone = OwnBackbone(model, name="ours", fingerprint="", licence="CC0-1.0", card=CARD)
    export(backbone, "huggingface", tmp_path / "hf")
    same(begin_backbone(SIZES["nano"], loaded(f"hf:{tmp_path / 'hf'}"), seed=0).eval(), model)
    assert start_inputs(settings(f"hf:{tmp_path / 'hf'}")) == {"start": tmp_path / "hf"}
    assert start_inputs(settings("timm:vit_small_patch14_dinov2", backbone="small")) == {}


def test_a_network_that_only_looks_alike_is_found_out(tmp_path: Path) -> None:
    model, folder = network(position_interpolation="antialias"), tmp_path / "timm"
    export(OwnBackbone(model, name="ours", fingerprint="", licence="CC0-1.0", card=CARD), "timm", folder)
    same(begin_backbone(SIZES["nano"], loaded(f"timm:local-dir:{folder}"), seed=0).eval(), model)
    described = json.loads((folder / "config.json").read_text())
    described["model_args"]["act_layer"] = "quick_gelu"
    (folder / "config.json").write_text(json.dumps(described))
    with pytest.raises(InputError, match=r"computes something else[\s\S]*DINOv2 family"):
        load_into_own(f"timm:local-dir:{folder}")


@pytest.mark.parametrize(
    "name",
    [
        "vit_tiny_patch16_224",
        "vit_small_patch16_dinov3",
        "deit3_small_patch16_224",
        "convnext_atto",
        "swin_tiny_patch4_window7_224",
    ],
)
def test_foreign_networks_are_refused_with_what_can_be_continued(name: str) -> None:
    with pytest.raises(InputError, match="DINOv2 family"):
        load_into_own(f"timm:{name}?random")


def test_foreign_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(InputError, match=r"'vit' model[\s\S]*DINOv2 family"):
        parent_of(settings(f"hf:{tmp_path}"))


def test_another_size_and_other_bands_are_refused(tmp_path: Path) -> None:
    folder = own(tmp_path / "parent", network())
    with pytest.raises(InputError, match=r"of size nano .*backbone is small[\s\S]*set pretrain.backbone to nano"):
        parent_of(settings(folder, backbone="small"))
    config = dataclasses.replace(SIZES["nano"], bands=("red", "green", "nir"))
    with pytest.raises(InputError, match="nir"):
        parent_of(settings(own(tmp_path / "nir", build(config, seed=0))))
    odd = build(dataclasses.replace(SIZES["nano"], depth=3), seed=0)
    with pytest.raises(InputError, match="only weights of the named sizes"):
        parent_of(settings(own(tmp_path / "odd", odd)))
    assert parent_of(settings(None)) is None


def test_from_scratch_the_weights_depend_on_the_seed() -> None:
    a, b, other = (begin_backbone(SIZES["nano"], None, seed=seed) for seed in (1, 1, 2))
    assert state_fingerprint(a) == state_fingerprint(b) != state_fingerprint(other)


def test_the_backbone_waits_then_rises_then_learns(tmp_path: Path) -> None:
    careful = PretrainSettings(start={"weights": tmp_path, "heads_only": 0.1, "ramp": 0.2}, steps=10, phases=({"steps": 5},))
    shares = [trainable_share(careful, share) for share in (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 1.0)]
    assert shares == pytest.approx([0, 0, 0, 0.25, 0.5, 1, 1])
    sudden = PretrainSettings(start={"weights": tmp_path, "heads_only": 0.5, "ramp": 0.0}, steps=10)
    assert [trainable_share(sudden, share) for share in (0.49, 0.5)] == [0.0, 1.0]
    assert trainable_share(settings(None), 0.0) == 1.0
    assert trainable_share(careful.phase(1), 0.0) == 1.0


def line(step: int, class_: float | None, patch: float | None) -> dict[str, Any]:
    return {"step": step, "probe_class": class_, "probe_patch": patch}


def test_the_guard_stops_at_the_second_probe_in_a_row() -> None:
    lines = [line(0, 0.7, 0.8), line(10, 0.6, 0.75), {"step": 15}, line(20, 0.7, 0.75), line(30, 0.6, 0.8), line(40, 0.5, 0.8)]
    guard = Guard(0.03)
    said = [guard.check(entry) for entry in lines]
    assert said[:-1] == [None] * 5
    assert said[-1] is not None
    assert "70.0 % at step 30 and 65.0 % at step 40" in said[-1]
    assert "3 points below the parent's 75.0 %" in said[-1]


@pytest.mark.parametrize("cut", range(6))
def test_a_resumed_guard_says_what_an_uninterrupted_one_says(cut: int) -> None:
    lines = [line(0, 0.7, 0.7), line(10, 0.6, 0.6), {"step": 15}, line(20, 0.7, 0.7), line(30, 0.6, 0.6), line(40, 0.6, 0.6)]
    whole, resumed = Guard(0.03), Guard(0.03, lines[:cut])
    expected = [whole.check(entry) for entry in lines]
    assert [resumed.check(entry) for entry in lines[cut:]] == expected[cut:]
    assert expected[-1] is not None


def test_the_guard_lets_gains_trades_and_no_margin_pass_but_not_nan() -> None:
    def last(margin: float | None, *pairs: tuple[float | None, float | None]) -> str | None:
        guard = Guard(margin)
        return [guard.check(line(10 * k, *pair)) for k, pair in enumerate(pairs)][-1]

    assert last(0.03, (0.7, 0.7), (0.8, 0.8), (0.9, 0.9)) is None
    assert last(0.03, (0.7, 0.7), (0.6, 0.8), (0.6, 0.8)) is None
    assert last(0.03, (0.7, 0.7), (0.68, 0.68), (0.68, 0.68)) is None
    assert last(None, (0.7, 0.7), (0.1, 0.1), (0.1, 0.1)) is None
    assert last(0.03, (0.7, 0.7), (None, 0.9), (float("nan"), 0.9)) is not None
    assert last(0.03, (0.7, 0.7), (0.1, 0.1)) is None


def parent_with(licence: str, *restricted_by: str) -> Parent:
    config: VitConfig = SIZES["nano"]
    origin = {"file": "x.pth", "layout": "dinov2", "sha256": "ab"}
    return Parent(config=config, state={}, name="x", licence=licence, restricted_by=restricted_by, origin=origin)


def test_licences_of_data_and_parent_hold_together() -> None:
    assert licences(["CC0-1.0", "unknown"], None) == ("CC0-1.0; unknown", [])
    assert licences(["CC0-1.0"], parent_with("Apache-2.0")) == ("CC0-1.0; Apache-2.0", [])
    assert licences(["CC0-1.0; Apache-2.0"], parent_with("Apache-2.0")) == ("CC0-1.0; Apache-2.0", [])
    assert licences(["CC0-1.0"], parent_with("CC-BY-NC-4.0")) == ("CC0-1.0; CC-BY-NC-4.0", ["CC-BY-NC-4.0"])
    together = licences(["academic use"], parent_with("CC-BY-4.0; FAIR", "FAIR"))
    assert together == ("academic use; CC-BY-4.0; FAIR", ["academic use", "FAIR"])


def test_the_card_inherits_and_shows_its_parent() -> None:
    card: dict[str, Any] = {"name": "child", "licence": "CC0-1.0", "restricted_by": [], "parent": None, "seeds": 1}
    assert inherit(card, None) == card
    found = inherit(card, parent_with("CC-BY-NC-4.0", "CC-BY-NC-4.0"))
    assert (found["licence"], found["restricted_by"], found["seeds"]) == ("CC0-1.0; CC-BY-NC-4.0", ["CC-BY-NC-4.0"], 1)
    text = model_card(found, SIZES["nano"])
    assert "not for commercial use" in text
    assert "x.pth (dinov2 layout), licence CC-BY-NC-4.0, SHA-256 ab" in text
