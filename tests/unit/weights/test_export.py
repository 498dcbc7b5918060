"""Weights out: every layout is read back to the bit, and opened by the library it is for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import Tensor
from transformers import AutoImageProcessor, AutoModel
from twins import randomised

from cgeartheye.errors import DataError, InputError
from cgeartheye.models.positions import Interpolation
from cgeartheye.models.vit import VitConfig
from cgeartheye.weights.backbone import OwnBackbone
from cgeartheye.weights.bands import Band, add_band, parse_band
from cgeartheye.weights.export import export
from cgeartheye.weights.load import load_backbone, load_path

TINY = VitConfig(
    name="custom", depth=2, width=48, heads=3, hidden=96, patch_px=14, position_px=70, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.1)
)
GATED = replace(TINY, ffn="swiglu", name="giant")
REGISTERS = replace(TINY, registers=4, position_interpolation="antialias")
CARD = {"name": "mine", "gsd_m": 0.75, "metrics": {"steps": 3, "loss": 1.25}, "restricted_by": ["CC-BY-NC-4.0"]}
PICTURE = torch.randint(0, 256, (2, 3, 98, 75), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def backbone(config: VitConfig) -> OwnBackbone:
    return OwnBackbone(randomised(config), name="mine", fingerprint="", licence="CC-BY-NC-4.0", card=CARD)


@pytest.mark.parametrize("config", [TINY, GATED, REGISTERS], ids=["plain", "gated", "registers"])
@pytest.mark.parametrize("target", ["own", "dinov2", "mmpretrain", "timm", "huggingface"])
def test_the_way_back_loses_nothing(tmp_path: Path, target: str, config: VitConfig) -> None:
    given = backbone(replace(config, position_interpolation="antialias"))
    if target == "mmpretrain" and config.registers:
        with pytest.raises(InputError, match="register"):
            export(given, target, tmp_path / "out")
        return
    export(given, target, tmp_path / "out")
    back = load_path(tmp_path / "out")
    state = back.model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in given.model.state_dict().items())
    assert back.model.config == given.model.config
    assert (back.name, back.licence, back.card["gsd_m"]) == ("mine", "CC-BY-NC-4.0", 0.75)
    readme = (tmp_path / "out" / "README.md").read_text()
    for told in ("not for commercial use", "0.75 m", "loss 1.25", "[0.4, 0.5, 0.6]", 'license: "CC-BY-NC-4.0"', "cgeartheye 0"):
        assert told in readme
    with pytest.raises(InputError, match="not empty"):
        export(given, target, tmp_path / "out")


@torch.no_grad()
@pytest.mark.parametrize("config", [TINY, GATED, REGISTERS], ids=["plain", "gated", "registers"])
def test_transformers_opens_its_folder(tmp_path: Path, config: VitConfig) -> None:
    given = backbone(config)
    assert not [note for note in export(given, "huggingface", tmp_path / "out") if "differ" in note]
    model = AutoModel.from_pretrained(tmp_path / "out").eval()
    processor = AutoImageProcessor.from_pretrained(tmp_path / "out")
    picture = PICTURE[..., :70]
    pixels = processor(list(picture), return_tensors="pt")["pixel_values"]
    tokens = model(pixels).last_hidden_state
    features = given(picture)
    torch.testing.assert_close(tokens[:, 0], features.class_token, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(tokens[:, 1 + config.registers :], features.patches.flatten(1, 2), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        load_backbone(f"hf:{tmp_path / 'out'}")(PICTURE).patches, given(PICTURE).patches, rtol=1e-4, atol=1e-4
    )


@torch.no_grad()
@pytest.mark.parametrize("config", [TINY, GATED, REGISTERS], ids=["plain", "gated", "registers"])
def test_timm_opens_its_folder(tmp_path: Path, config: VitConfig) -> None:
    given = backbone(replace(config, position_interpolation="antialias"))
    export(given, "timm", tmp_path / "out")
    model = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True, dynamic_img_size=True).eval()
    tokens = model.forward_features(given.model.normalise(PICTURE[..., :70]))
    features = given(PICTURE[..., :70])
    torch.testing.assert_close(tokens[:, 0], features.class_token, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(tokens[:, 1 + config.registers :], features.patches.flatten(1, 2), rtol=1e-4, atol=1e-4)
    assert model.pretrained_cfg["mean"] == (0.4, 0.5, 0.6) or list(model.pretrained_cfg["mean"]) == [0.4, 0.5, 0.6]


@pytest.mark.parametrize(
    ("target", "method", "differs"),
    [
        ("huggingface", "plain", False),
        ("huggingface", "antialias", True),
        ("timm", "antialias", False),
        ("timm", "plain", True),
        ("mmpretrain", "dinov2", True),
        ("dinov2", "dinov2", False),
        ("own", "dinov2", False),
    ],
)
def test_a_target_that_differs_at_other_sizes_is_said(
    tmp_path: Path, target: str, method: Interpolation, *, differs: bool
) -> None:
    notes = export(backbone(replace(TINY, position_interpolation=method)), target, tmp_path / "out")
    assert any("differ slightly" in note for note in notes) == differs
    assert ("differ slightly" in (tmp_path / "out" / "README.md").read_text()) == differs


def test_a_sidecar_of_other_weights_is_refused(tmp_path: Path) -> None:
    export(backbone(TINY), "dinov2", tmp_path / "out")
    torch.save(randomised(TINY, seed=1).state_dict(), tmp_path / "out" / "backbone.pth")
    with pytest.raises(DataError, match="is not the file"):
        load_path(tmp_path / "out")


@torch.no_grad()
@pytest.mark.parametrize("method", ["plain", "dinov2", "antialias"])
@pytest.mark.parametrize("ffn", ["mlp", "swiglu"])
def test_onnx_and_torch_export_equal_eager_at_any_size(tmp_path: Path, method: Interpolation, ffn: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    given = backbone(replace(GATED if ffn == "swiglu" else TINY, position_interpolation=method))
    export(given, "torch-export", tmp_path / "program")
    export(given, "onnx", tmp_path / "onnx")
    program = torch.export.load(tmp_path / "program" / "model.pt2").module()
    session = onnxruntime.InferenceSession(str(tmp_path / "onnx" / "model.onnx"), providers=["CPUExecutionProvider"])
    for batch, height, width in ((1, 70, 70), (2, 98, 75), (3, 15, 41), (1, 14, 200)):
        picture = PICTURE.repeat(2, 1, 1, 3)[:batch, :, :height, :width].contiguous()
        features = given(picture)
        if height > 14:  # the program was traced for more than one row of patches
            for found, expected in zip(program(picture), features, strict=True):
                torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        for answer, expected in zip(session.run(None, {"images": picture.numpy()}), features, strict=True):
            assert answer.shape == tuple(expected.shape)
            assert np.linalg.norm(answer - expected.numpy()) < 1e-3 * float(expected.norm())


def grey(value: Tensor) -> Tensor:
    return value[:, :1].expand(-1, 4, -1, -1).contiguous()


@torch.no_grad()
def test_a_new_band_changes_nothing_at_first(tmp_path: Path) -> None:
    given = backbone(TINY)
    four = add_band(given, parse_band("nir:0.4:0.2"))
    picture = torch.cat([PICTURE, PICTURE[:, :1].flip(-1)], dim=1)
    torch.testing.assert_close(four(picture).patches, given(PICTURE).patches)
    assert four.model.config.bands == ("red", "green", "blue", "nir")
    assert four.model.config.mean == (0.4, 0.5, 0.6, 0.4)
    export(four, "huggingface", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["num_channels"] == 4
    assert load_path(tmp_path / "out").model.config.bands == four.model.config.bands


@torch.no_grad()
def test_a_mean_band_answers_equal_bands_as_before() -> None:
    even = replace(TINY, mean=(0.5,) * 3, std=(0.2,) * 3)
    given = backbone(even)
    four = add_band(given, Band("nir", 0.5, 0.2, "mean"))
    picture = grey(PICTURE)
    torch.testing.assert_close(four(picture).patches, given(picture[:, :3]).patches, rtol=1e-4, atol=1e-4)
    changed = picture.clone()
    changed[:, 3] = 255 - changed[:, 3]
    assert not torch.allclose(four(changed).patches, four(picture).patches)


@pytest.mark.parametrize("text", ["", "nir", "nir:0.4", "nir:a:b", "nir:0.4:0.2:best", "nir:0.4:0", "red:0.4:0.2", "nir:40:20"])
def test_bands_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        add_band(backbone(TINY), parse_band(text))
