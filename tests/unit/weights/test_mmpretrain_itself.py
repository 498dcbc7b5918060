"""Our network against MMPretrain's own class, run by a Python that has it; see CONTRIBUTING for how to make one."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from twins import randomised

from cgeartheye.models.sizes import SIZES
from cgeartheye.weights.layouts import mmpretrain

PYTHON = os.environ.get("CGEARTHEYE_MMPRETRAIN_PYTHON", "")
PICTURES = ((98, 98), (224, 224), (518, 518), (518, 392))
DEPTH = {"small": 3, "base": 2, "large": 2, "huge": 1, "giant": 1}
ORACLE = """
import sys, torch
from safetensors.torch import load_file, save_file
from mmpretrain.models.backbones import VisionTransformer
folder, width, depth, heads, hidden, gated = sys.argv[1], *map(int, sys.argv[2:])
arch = {"embed_dims": width, "num_layers": depth, "num_heads": heads, "feedforward_channels": hidden}
options = {"layer_cfgs": {"ffn_type": "swiglu_fused"}} if gated else {}
model = VisionTransformer(arch=arch, img_size=518, patch_size=14, layer_scale_init_value=1e-5, out_type="raw", **options)
model.double()
model.eval()
state = {k.removeprefix("backbone."): v for k, v in load_file(f"{folder}/weights.safetensors").items()}
model.load_state_dict(state, strict=True)
with torch.no_grad():
    found = {name: model(pixels)[0] for name, pixels in load_file(f"{folder}/pixels.safetensors").items()}
save_file(found, f"{folder}/tokens.safetensors")
"""


@pytest.mark.skipif(not PYTHON, reason="CGEARTHEYE_MMPRETRAIN_PYTHON names no Python that has MMPretrain")
@pytest.mark.parametrize("size", list(DEPTH))
def test_every_size_equals_mmpretrain(tmp_path: Path, size: str) -> None:
    config = replace(SIZES[size], depth=DEPTH[size], position_interpolation="plain")
    ours = randomised(config).double()
    state = mmpretrain.from_own({k: v for k, v in ours.state_dict().items() if k != "mask_token"})
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "weights.safetensors")
    pictures = {f"{h}x{w}": torch.rand(1, 3, h, w, dtype=torch.float64) for h, w in PICTURES}
    save_file({name: ours.normalise(picture) for name, picture in pictures.items()}, tmp_path / "pixels.safetensors")
    shape = [config.width, config.depth, config.heads, config.hidden, int(config.ffn == "swiglu")]
    subprocess.run([PYTHON, "-W", "ignore", "-c", ORACLE, str(tmp_path), *map(str, shape)], check=True)
    for name, expected in load_file(tmp_path / "tokens.safetensors").items():
        with torch.no_grad():
            features = ours(pictures[name])
        found = torch.cat([features.class_token[:, None], features.patches.flatten(1, 2)], dim=1)
        assert (found - expected).abs().max() < (1e-9 if name == "518x518" else 1e-6), name
