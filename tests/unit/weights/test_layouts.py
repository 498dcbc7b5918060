"""Key maps: every key of every layout, there and back, and what is said when something does not fit."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel
from twins import newer_names, randomised

from cgeartheye.errors import DataError, InputError
from cgeartheye.models.sizes import SIZES
from cgeartheye.models.vit import VisionTransformer, VitConfig
from cgeartheye.weights.foreign import Given
from cgeartheye.weights.layouts import dinov2, huggingface, mmpretrain, timm
from cgeartheye.weights.load import load_backbone, load_path

TINY = VitConfig(name="custom", depth=2, width=24, heads=3, hidden=48, patch_px=14, layer_scale=1e-5, position_px=42)
GATED = replace(TINY, ffn="swiglu", hidden=36)


def published(config: VitConfig) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of an official checkpoint, written out from MMPretrain 1.2.0's own class."""
    D, M, side = config.width, config.hidden, config.position_px // config.patch_px
    inner = {"giant": 4096}.get(config.name, M)
    found: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, D),
        "pos_embed": (1, 1 + side * side, D),
        "patch_embed.projection.weight": (D, 3, 14, 14),
        "patch_embed.projection.bias": (D,),
        "ln1.weight": (D,),
        "ln1.bias": (D,),
    }
    for n in range(config.depth):
        at = f"layers.{n}."
        for name in ("ln1.weight", "ln1.bias", "ln2.weight", "ln2.bias", "attn.gamma1.weight", "ffn.gamma2.weight"):
            found[at + name] = (D,)
        matrices = {"attn.qkv": (3 * D, D), "attn.proj": (D, D)}
        if config.ffn == "swiglu":
            matrices |= {"ffn.w12": (2 * inner, D), "ffn.w3": (D, inner)}
        else:
            matrices |= {"ffn.layers.0.0": (M, D), "ffn.layers.1": (D, M)}
        for name, shape in matrices.items():
            found |= {f"{at}{name}.weight": shape, f"{at}{name}.bias": shape[:1]}
    return {f"backbone.{key}": shape for key, shape in found.items()}


@pytest.mark.parametrize(("size", "count"), [("small", 174), ("base", 174), ("large", 342), ("huge", 454), ("giant", 566)])
def test_the_official_layout_has_exactly_these_tensors(size: str, count: int) -> None:
    with torch.device("meta"):
        state = VisionTransformer(SIZES[size]).state_dict()
    written = mmpretrain.from_own({key: value for key, value in state.items() if key != "mask_token"})
    assert {key: tuple(value.shape) for key, value in written.items()} == published(SIZES[size])
    assert len(written) == count
    back = mmpretrain.to_own({key.removeprefix("backbone."): value for key, value in written.items()})
    assert back.keys() == state.keys() - {"mask_token"}


@pytest.mark.parametrize("size", ["small", "base", "large", "huge", "giant"])
def test_an_official_checkpoint_loads_into_each_size(tmp_path: Path, size: str) -> None:
    config = replace(SIZES[size], depth=2 if size in {"small", "base"} else 1)
    generator = torch.Generator().manual_seed(0)
    tensors = {key: torch.randn(shape, generator=generator) for key, shape in published(config).items()}
    torch.save({"meta": {"epoch": 3}, "state_dict": tensors}, tmp_path / "official.pth")
    backbone = load_path(tmp_path / "official.pth", Given(licence="CC-BY-4.0"))
    state = backbone.model.state_dict()
    for key, value in tensors.items():
        ours = mmpretrain.NAMING.to_own(key.removeprefix("backbone."))
        assert torch.equal(state[ours], value), key
    assert not state["mask_token"].any()
    found = backbone.model.config
    assert (found.heads, found.ffn, found.position_px, found.position_interpolation) == (config.heads, config.ffn, 518, "plain")
    assert backbone.licence == "CC-BY-4.0"
    assert backbone.card["parent"]["set_to_zero"] == ["mask_token"]
    assert backbone.card["parent"]["left_out"] == []


def test_the_licence_of_a_parent_goes_along(tmp_path: Path) -> None:
    save_file(randomised(replace(TINY, width=384, heads=6)).state_dict(), tmp_path / "w.safetensors")
    free, bound = (load_path(tmp_path / "w.safetensors", Given(licence=name)) for name in ("apache-2.0", "CC-BY-NC-4.0"))
    assert (free.licence, free.card["restricted_by"]) == ("apache-2.0", [])
    assert (bound.card["parent"]["licence"], bound.card["restricted_by"]) == ("CC-BY-NC-4.0", ["CC-BY-NC-4.0"])


def test_a_whole_size_is_recognised_by_name(tmp_path: Path) -> None:
    model = randomised(SIZES["small"])
    torch.save(mmpretrain.from_own({k: v for k, v in model.state_dict().items() if k != "mask_token"}), tmp_path / "s.pth")
    assert load_path(tmp_path / "s.pth").model.config.name == "small"


def test_a_wrong_checkpoint_is_refused_with_all_that_differs(tmp_path: Path) -> None:
    tensors = {key: torch.zeros(shape) for key, shape in published(replace(SIZES["small"], depth=1)).items()}
    del tensors["backbone.ln1.bias"], tensors["backbone.layers.0.attn.gamma1.weight"]
    tensors["backbone.layers.0.attn.proj.weight"] = torch.zeros(384, 383)
    tensors["backbone.layers.0.attn.rel_pos"] = torch.zeros(3)
    tensors["head.weight"] = torch.zeros(3)
    torch.save(tensors, tmp_path / "wrong.pth")
    with pytest.raises(DataError) as caught:
        load_backbone(tmp_path / "wrong.pth")
    for fault in (
        "in 4 tensors",
        "norm.bias is missing",
        "blocks.0.ls1.gamma is missing",
        "layers.0.attn.rel_pos is unknown",
        "blocks.0.attn.proj.weight is (384, 383), not (384, 384)",
    ):
        assert fault in str(caught.value)


def test_what_lies_beside_a_backbone_is_named(tmp_path: Path) -> None:
    model = randomised(TINY)
    wrapped = {f"backbone.{k}": v for k, v in model.state_dict().items()} | {"dino_head.last_layer.weight": torch.zeros(2)}
    torch.save({"teacher": wrapped, "iteration": 7}, tmp_path / "training.pth")
    backbone = load_path(tmp_path / "training.pth", Given(heads=3))
    assert backbone.card["parent"]["left_out"] == ["dino_head.last_layer.weight"]
    assert backbone.model.config.position_interpolation == "dinov2"
    assert all(torch.equal(value, backbone.model.state_dict()[key]) for key, value in model.state_dict().items())


def test_chunks_of_blocks_are_numbered_through() -> None:
    state = {
        "blocks.0.0.norm1.weight": torch.zeros(1),
        "blocks.1.12.mlp.fc1.bias": torch.ones(1),
        "mask_token": torch.zeros(1, 1),
    }
    assert set(dinov2.to_own(state)) == {"blocks.0.norm1.weight", "blocks.12.mlp.fc1.bias", "mask_token"}


@pytest.mark.parametrize("config", [TINY, GATED, replace(TINY, registers=4), replace(GATED, registers=2)])
@pytest.mark.parametrize("layout", [dinov2, mmpretrain, timm, huggingface])
def test_every_map_goes_there_and_back(config: VitConfig, layout: object) -> None:
    state = {k: v for k, v in randomised(config).state_dict().items() if k not in layout.NO_PLACE_FOR}  # type: ignore[attr-defined]
    written = layout.from_own(state)  # type: ignore[attr-defined]
    back = layout.to_own({key.removeprefix("backbone."): value for key, value in written.items()})  # type: ignore[attr-defined]
    assert back.keys() == state.keys()
    folded = {"cls_token", "pos_embed"} if layout is timm and config.registers else set()
    assert all(torch.equal(back[key], state[key]) for key in state.keys() - folded)
    if folded:  # the class token and its position are one tensor there
        assert torch.equal(back["cls_token"] + back["pos_embed"][:, :1], state["cls_token"] + state["pos_embed"][:, :1])


@pytest.mark.parametrize("config", [TINY, GATED])
def test_new_and_old_names_of_transformers_mean_the_same(config: VitConfig) -> None:
    state = randomised(config).state_dict()
    old = huggingface.from_own(state)
    new = newer_names(old)
    assert old.keys() != new.keys()
    for named in (old, new):
        back = huggingface.to_own(named)
        assert back.keys() == state.keys()
        assert all(torch.equal(back[key], state[key]) for key in state)


def test_a_folder_in_several_files(tmp_path: Path) -> None:
    model = randomised(TINY)
    network = AutoModel.from_config(huggingface_config(TINY))
    network.load_state_dict(newer_names(huggingface.from_own(model.state_dict())))
    network.save_pretrained(tmp_path / "hf", max_shard_size="10KB")
    assert (tmp_path / "hf" / "model.safetensors.index.json").is_file()
    backbone = load_path(tmp_path / "hf")
    assert backbone.model.config.heads == 3
    assert all(torch.equal(value, backbone.model.state_dict()[key]) for key, value in model.state_dict().items())
    index = tmp_path / "hf" / "model.safetensors.index.json"
    index.write_text(index.read_text().replace('"model-00001', '"../model-00001'))
    with pytest.raises(DataError, match="in this folder"):
        load_path(tmp_path / "hf")


def huggingface_config(config: VitConfig) -> object:
    from transformers import Dinov2Config

    settings = huggingface.configuration(config)
    return Dinov2Config(**{k: v for k, v in settings.items() if k not in {"architectures", "model_type"}})


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("owned"),))


def test_pickles_run_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"cls_token": torch.zeros(1)}, "meta": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match="could run code"):
        load_backbone(tmp_path / "evil.pth")
    (tmp_path / "plain.pkl.pth").write_bytes(pickle.dumps({"a": Evil()}))
    with pytest.raises((InputError, DataError)):
        load_backbone(tmp_path / "plain.pkl.pth")
    assert not (tmp_path / "owned").exists()


def test_files_that_are_no_backbone(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "lr": [1.0]}, tmp_path / "empty.pth")
    with pytest.raises(DataError, match="no tensors"):
        load_backbone(tmp_path / "empty.pth")
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "resnet.safetensors")
    with pytest.raises(InputError, match="no layout that is known"):
        load_backbone(tmp_path / "resnet.safetensors")
    state = randomised(TINY).state_dict()
    save_file(state, tmp_path / "tiny.safetensors")
    with pytest.raises(InputError, match="number of heads"):
        load_backbone(tmp_path / "tiny.safetensors")
    del state["pos_embed"]
    save_file(state, tmp_path / "cut.safetensors")
    with pytest.raises(DataError, match="lacks pos_embed"):
        load_backbone(tmp_path / "cut.safetensors")
    (tmp_path / "short.safetensors").write_bytes((tmp_path / "tiny.safetensors").read_bytes()[:-10])
    with pytest.raises(DataError, match="safetensors"):
        load_backbone(tmp_path / "short.safetensors")
    assert load_file(tmp_path / "tiny.safetensors").keys() >= {"cls_token"}
