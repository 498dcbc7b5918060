"""`export` and `backbones` as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from cgeartheye.cli.main import build_app
from cgeartheye.errors import InputError
from cgeartheye.models.sizes import SIZES, build
from cgeartheye.weights.load import load_path
from cgeartheye.weights.store import save_backbone


def call(*arguments: str) -> str:
    result = CliRunner().invoke(build_app(), list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_backbones_lists_the_published_sizes() -> None:
    text = call("backbones", "--size-px", "518")
    for told in ("22,056,576", "86,580,480", "304,368,640", "632,272,640", "1,136,480,768", "6144 gated", "1370"):
        assert told in text
    told = json.loads(call("backbones", "--json", "--precision", "bfloat16"))
    assert list(told) == list(SIZES)
    assert told["giant"]["weight_bytes"] == 2 * 1_136_480_768
    with pytest.raises(InputError, match="precision"):
        call("backbones", "--precision", "int8")


def test_export_there_and_back(tmp_path: Path) -> None:
    model = build(SIZES["nano"], seed=0)
    save_backbone(tmp_path / "own", model, {"name": "mine", "licence": "CC0-1.0", "gsd_m": 0.5})
    text = call("export", str(tmp_path / "own"), "--to", "huggingface", "--out", str(tmp_path / "hf"))
    assert "licence CC0-1.0" in text
    told = json.loads(call("export", str(tmp_path / "hf"), "--to", "own", "--out", str(tmp_path / "back"), "--json"))
    assert told["network"]["name"] == "nano"
    assert told["left_out"] == []
    state = load_path(tmp_path / "back").model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    four = json.loads(
        call(
            "export",
            str(tmp_path / "back"),
            "--to",
            "own",
            "--out",
            str(tmp_path / "four"),
            "--add-band",
            "nir:0.4:0.2",
            "--json",
        )
    )
    assert four["network"]["bands"] == ["red", "green", "blue", "nir"]


def test_wrong_requests_are_explained(tmp_path: Path) -> None:
    save_backbone(tmp_path / "own", build(SIZES["nano"], seed=0), {})
    with pytest.raises(InputError, match="known are own"):
        call("export", str(tmp_path / "own"), "--to", "caffe", "--out", str(tmp_path / "x"))
    with pytest.raises(InputError, match="not empty"):
        call("export", str(tmp_path / "own"), "--to", "timm", "--out", str(tmp_path / "own"))
    with pytest.raises(InputError, match="its own library"):
        call("export", "timm:resnet18", "--to", "own", "--out", str(tmp_path / "x"))
    with pytest.raises(InputError, match="no backbone"):
        call("export", str(tmp_path / "none"), "--to", "own", "--out", str(tmp_path / "x"))
    assert "nobody says" in call("export", str(tmp_path / "own"), "--to", "dinov2", "--out", str(tmp_path / "y"))
