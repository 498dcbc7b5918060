from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cgeartheye.errors import DataError, InputError
from cgeartheye.files import sha256_file
from cgeartheye.models.sizes import build
from cgeartheye.models.vit import VitConfig
from cgeartheye.weights.backbone import OwnBackbone
from cgeartheye.weights.load import load_backbone
from cgeartheye.weights.store import read_card, save_backbone

TINY = VitConfig(name="tiny", depth=2, width=16, heads=2, hidden=32, patch_px=4, position_px=16, mean=(0.1, 0.2, 0.3))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_backbone(tmp_path / "b", build(TINY, seed=3), {"name": "mine", "licence": "CC-BY-4.0", "gsd_m": 0.75, "init_seed": 3})
    return tmp_path / "b"


def test_what_is_saved_is_what_is_loaded(saved: Path) -> None:
    model, backbone = build(TINY, seed=3).eval(), load_backbone(saved)
    picture = torch.randint(0, 256, (2, 3, 13, 18), dtype=torch.uint8)
    assert torch.equal(backbone(picture).patches, model(picture).patches)
    assert torch.equal(backbone.levels(picture, [0], "all")[0].patches, model.levels(picture, [0], "all")[0].patches)
    assert (backbone.name, backbone.licence, backbone.width, backbone.patch_px, backbone.depth) == ("mine", "CC-BY-4.0", 16, 4, 2)
    assert backbone.fingerprint == sha256_file(saved / "backbone.safetensors")
    assert backbone.card["gsd_m"] == 0.75
    assert not backbone.training
    assert load_backbone(str(saved / "backbone.safetensors")).fingerprint == backbone.fingerprint


def test_equal_weights_give_equal_bytes(saved: Path, tmp_path: Path) -> None:
    save_backbone(tmp_path / "again", build(TINY, seed=3), {})
    assert (tmp_path / "again" / "backbone.safetensors").read_bytes() == (saved / "backbone.safetensors").read_bytes()
    keys = load_file(saved / "backbone.safetensors").keys()
    assert {"cls_token", "pos_embed", "mask_token", "blocks.1.attn.qkv.weight", "blocks.0.ls1.gamma", "norm.bias"} <= keys


def test_the_untrained_twin_is_the_initial_network(saved: Path) -> None:
    backbone = load_backbone(saved)
    twin = backbone.untrained(3)
    assert isinstance(twin, OwnBackbone)
    assert all(torch.equal(a, b) for a, b in zip(twin.parameters(), backbone.parameters(), strict=True))
    assert twin.fingerprint == backbone.fingerprint
    assert backbone.untrained(4).fingerprint != backbone.fingerprint
    assert len(backbone.layer_scales()) == 4


def test_missing_and_pickled_files_are_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no backbone\.safetensors"):
        load_backbone(tmp_path / "nowhere")
    (tmp_path / "cut.pth").write_bytes(b"\x80\x02}")
    with pytest.raises(DataError, match="no readable checkpoint"):
        load_backbone(tmp_path / "cut.pth")
    (saved / "backbone.json").unlink()
    for path in (saved, saved / "backbone.safetensors"):
        with pytest.raises(InputError, match=r"no backbone\.json"):
            load_backbone(path)


def test_damaged_and_foreign_files_are_named(saved: Path) -> None:
    weights, card = saved / "backbone.safetensors", json.loads((saved / "backbone.json").read_text())
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    with pytest.raises(DataError, match="is not the file"):
        load_backbone(saved)
    card["fingerprint"] = sha256_file(weights)
    (saved / "backbone.json").write_text(json.dumps(card))
    with pytest.raises(DataError, match="safetensors"):
        load_backbone(saved)
    (saved / "backbone.json").write_text(json.dumps({**card, "schema_version": 99}))
    with pytest.raises(DataError, match="schema_version 99"):
        load_backbone(saved)
    (saved / "backbone.json").write_text(json.dumps({"schema_version": 1}))
    with pytest.raises(DataError, match="has no card, config, fingerprint"):
        load_backbone(saved)


def rewrite(folder: Path, state: dict[str, torch.Tensor], config: dict[str, object] | None = None) -> None:
    save_file(state, folder / "backbone.safetensors")
    card = json.loads((folder / "backbone.json").read_text())
    card["fingerprint"] = sha256_file(folder / "backbone.safetensors")
    card["config"] = config or card["config"]
    (folder / "backbone.json").write_text(json.dumps(card))


def test_keys_and_shapes_are_strict(saved: Path) -> None:
    state = load_file(saved / "backbone.safetensors")
    bad = {**state, "extra": torch.zeros(1), "cls_token": torch.zeros(1, 1, 8)}
    del bad["norm.bias"]
    rewrite(saved, bad)
    with pytest.raises(DataError) as caught:
        load_backbone(saved)
    for fault in ("3 tensors", "norm.bias is missing", "extra is unknown", "cls_token is (1, 1, 8), not (1, 1, 16)"):
        assert fault in str(caught.value)
    rewrite(saved, state, replace(TINY, width=32).to_json())
    with pytest.raises(DataError, match=r"do not fit the network in \d+ tensors"):
        load_backbone(saved)
    rewrite(saved, state, {**TINY.to_json(), "heads": 3})
    with pytest.raises(DataError, match="configuration"):
        load_backbone(saved)
    rewrite(saved, state, {**TINY.to_json(), "unknown": 3})
    with pytest.raises(DataError, match="configuration"):
        load_backbone(saved)


def test_the_card_is_read_without_the_weights(saved: Path) -> None:
    (saved / "backbone.safetensors").write_bytes(b"")
    assert read_card(saved)["card"]["licence"] == "CC-BY-4.0"
