from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    PreTrainedModel,
)

from cgeartheye.errors import DataError, InputError, ResourceError
from cgeartheye.models.vit import IMAGENET_MEAN, IMAGENET_STD
from cgeartheye.weights import timm_models
from cgeartheye.weights.backbone import Backbone
from cgeartheye.weights.load import load_backbone

SMALL = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "image_size": 28, "patch_size": 14}
PICTURE = torch.randint(0, 256, (2, 3, 30, 42), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def normalised(picture: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = (picture / 255 - mean) / std
    return torch.cat([pixels, pixels[:, :, -1:].expand(-1, -1, 12, -1)], dim=2)  # 30 -> 42 rows


def check_levels(backbone: Backbone) -> None:
    with torch.no_grad():
        final = backbone(PICTURE).patches
        maps = [level.patches for level in backbone.levels(PICTURE, [-1, 0])]
        assert [m.shape for m in maps] == [final.shape] * 2
        torch.testing.assert_close(maps[0], final)
        torch.testing.assert_close(backbone.levels(PICTURE, [-1])[0].class_token, backbone(PICTURE).class_token)
        first = backbone.levels(PICTURE, [0], "all")[0].patches
        torch.testing.assert_close(first.mean(dim=-1), torch.zeros_like(first[..., 0]), atol=1e-5, rtol=0)
        assert not torch.allclose(first, maps[1])


@pytest.mark.parametrize("registers", [0, 4])
def test_a_hugging_face_folder_equals_transformers(tmp_path: Path, registers: int) -> None:
    torch.manual_seed(0)
    if registers:
        model = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**SMALL, num_register_tokens=registers)).eval()
    else:
        model = Dinov2Model(Dinov2Config(**SMALL)).eval()
    model.save_pretrained(tmp_path / "dino")
    backbone = load_backbone(f"hf:{tmp_path / 'dino'}")
    with torch.no_grad():
        tokens = model(normalised(PICTURE)).last_hidden_state
        features = backbone(PICTURE)
    torch.testing.assert_close(features.class_token, tokens[:, 0])
    torch.testing.assert_close(features.patches.flatten(1, 2), tokens[:, 1 + registers :])
    assert features.patches.shape == (2, 3, 3, 24)
    assert (backbone.name, backbone.width, backbone.patch_px, backbone.depth) == ("hf:dino", 24, 14, 3)
    check_levels(backbone)
    twin = backbone.untrained(1)
    assert twin.fingerprint == backbone.untrained(1).fingerprint != backbone.untrained(2).fingerprint
    assert len(twin.layer_scales()) == 6


def small(kind: str, **settings: object) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModel.from_config(AutoConfig.for_model(kind, **settings)).eval()


STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
TOKENS = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96}


@pytest.mark.parametrize(("kind", "settings"), [("vit", {**TOKENS, "image_size": 64}), ("dinov3_vit", TOKENS)])
def test_other_token_networks_of_transformers(tmp_path: Path, kind: str, settings: dict[str, object]) -> None:
    model = small(kind, **settings)
    model.save_pretrained(tmp_path / "m")
    backbone = load_backbone(f"hf:{tmp_path / 'm'}")
    picture = PICTURE.repeat(1, 1, 2, 2)[..., :48, :64]
    with torch.no_grad():
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        options = {"interpolate_pos_encoding": True} if kind == "vit" else {}
        tokens = model((picture / 255 - mean) / std, **options).last_hidden_state
        features = backbone(picture)
    torch.testing.assert_close(features.class_token, tokens[:, 0])
    torch.testing.assert_close(features.patches.flatten(1, 2), tokens[:, -12:])
    check_levels(backbone)


@pytest.mark.parametrize(
    ("kind", "settings", "widths"),
    [
        ("convnext", STAGES, [8, 16, 24, 32]),
        ("convnextv2", STAGES, [8, 16, 24, 32]),
        ("dinov3_convnext", STAGES, [8, 16, 24, 32]),
        ("swinv2", {"image_size": 64, "embed_dim": 8, "depths": [1] * 4, "num_heads": [1, 2, 2, 4]}, [16, 32, 64, 64]),
    ],
)
def test_hierarchical_networks_of_transformers(tmp_path: Path, kind: str, settings: dict[str, object], widths: list[int]) -> None:
    small(kind, **settings).save_pretrained(tmp_path / "m")
    backbone = load_backbone(f"hf:{tmp_path / 'm'}")
    check_stages(backbone, widths)


def test_the_first_swin_forgets_nothing_between_pictures(tmp_path: Path) -> None:
    settings = {"image_size": 64, "embed_dim": 8, "depths": [2] * 4, "num_heads": [1, 2, 2, 4], "window_size": 4}
    model = small("swin", **settings)
    model.save_pretrained(tmp_path / "m")
    backbone = load_backbone(f"hf:{tmp_path / 'm'}")
    large, least = PICTURE[..., :28, :].repeat(1, 1, 10, 8)[..., :256, :288], PICTURE.repeat(1, 1, 4, 3)[..., :100, :126]
    with torch.no_grad():
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        expected = model((large / 255 - mean) / std, interpolate_pos_encoding=True).pooler_output
        backbone(least)  # its last map is one window: transformers takes the shift away from then on
        torch.testing.assert_close(backbone(large).class_token, expected)
        assert [level.patches.shape for level in backbone.levels(least, [0, 3])] == [(2, 7, 8, 16), (2, 7, 8, 64)]
        with pytest.raises(InputError, match=r"(?s)96 x 126 px.*smaller than a window.*at least 97 px"):
            backbone(least[..., :96, :])


def check_stages(backbone: Backbone, widths: list[int]) -> None:
    picture = torch.randint(0, 256, (2, 3, 70, 100), dtype=torch.uint8)
    with torch.no_grad():
        features = backbone(picture)
        levels = backbone.levels(picture, range(backbone.depth))
    assert backbone.patch_px == 16
    assert features.class_token.shape == (2, backbone.width)
    assert features.patches.shape == (2, 3, 4, backbone.width)  # a patch every 32 px of 96 x 128
    assert [level.patches.shape for level in levels] == [(2, 5, 7, width) for width in widths]
    assert backbone.level_widths(range(backbone.depth)) == widths
    assert backbone.untrained(1).fingerprint == backbone.untrained(1).fingerprint != backbone.untrained(2).fingerprint


@pytest.mark.parametrize(("name", "widths"), [("test_convnext", None), ("resnet18", None), ("swinv2_tiny_window8_256", None)])
def test_hierarchical_networks_of_timm(name: str, widths: None) -> None:
    backbone = load_backbone(f"timm:{name}?random")
    with torch.no_grad():
        picture = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
        pixels = (picture / 255 - backbone.mean) / backbone.std  # type: ignore[operator]
        expected = backbone.model.forward_head(backbone.model.forward_features(pixels), pre_logits=True)  # type: ignore[operator,union-attr]
        torch.testing.assert_close(backbone(picture).class_token, expected)
    check_stages(backbone, backbone.level_widths(range(backbone.depth)))


def test_dinov3_of_timm() -> None:
    backbone = load_backbone("timm:vit_small_patch16_dinov3?random")
    check_levels(backbone)
    assert (backbone.patch_px, backbone.width, backbone.depth) == (16, 384, 12)


def test_other_hugging_face_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json"):
        load_backbone(f"hf:{tmp_path}")
    small("vit", **{**TOKENS, "image_size": 64}).save_pretrained(tmp_path / "vit")
    config = json.loads((tmp_path / "vit" / "config.json").read_text())
    (tmp_path / "vit" / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    with pytest.raises(InputError, match="'bert' model"):
        load_backbone(f"hf:{tmp_path / 'vit'}")
    (tmp_path / "vit" / "config.json").write_text(json.dumps(config))
    torch.save({}, tmp_path / "vit" / "pytorch_model.bin")
    (tmp_path / "vit" / "model.safetensors").unlink()
    with pytest.raises(InputError, match="pickle"):
        load_backbone(f"hf:{tmp_path / 'vit'}")
    (tmp_path / "vit" / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(DataError, match="cannot be loaded"):
        load_backbone(f"hf:{tmp_path / 'vit'}")


def test_a_timm_network_without_download() -> None:
    state = torch.get_rng_state()
    backbone = load_backbone("timm:test_vit?random")
    assert torch.equal(torch.get_rng_state(), state)
    assert (backbone.width, backbone.patch_px, backbone.depth, backbone.licence) == (64, 16, 6, "apache-2.0")
    pixels = (PICTURE / 255 - 0.5) / 0.5  # the statistics of this network, not ImageNet's
    pixels = torch.nn.functional.pad(pixels, (0, 6, 0, 2), mode="replicate")
    with torch.no_grad():
        features = backbone(PICTURE)
        tokens = backbone.model.forward_features(pixels)  # type: ignore[operator,union-attr] # timm
    torch.testing.assert_close(features.class_token, tokens[:, 0])
    torch.testing.assert_close(features.patches.flatten(1, 2), tokens[:, 1:])
    assert features.patches.shape == (2, 2, 3, 64)
    check_levels(backbone)
    twin = backbone.untrained(0)
    assert twin.fingerprint == backbone.fingerprint != backbone.untrained(1).fingerprint
    assert not twin.training
    assert twin.layer_scales() == []


def test_wrong_timm_names_are_explained() -> None:
    with pytest.raises(InputError, match=r"for example .*dinov2"):
        load_backbone("timm:no_such_model")
    with pytest.raises(InputError, match="no maps for pictures of any size"):
        load_backbone("timm:hiera_tiny_224?random")
    with pytest.raises(InputError, match="only one is"):
        load_backbone("timm:vit_small_patch14_dinov2?other")


def test_a_failed_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **options: object) -> None:
        assert options["pretrained"]
        raise ConnectionError("no route")

    monkeypatch.setattr(timm_models.timm, "create_model", unreachable)
    with pytest.raises(ResourceError, match="HF_HOME"):
        load_backbone("timm:vit_small_patch14_dinov2")
