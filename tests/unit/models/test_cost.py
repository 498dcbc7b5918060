from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cgeartheye.models.cost import ADAM_BYTES, cost
from cgeartheye.models.sizes import SIZES, build
from cgeartheye.models.vit import VitConfig

REAL = ["small", "base", "large", "huge", "giant"]


def shallow(size: str, height: int) -> VitConfig:
    """Positions are made for the picture, so that resizing them adds nothing."""
    return replace(SIZES[size], depth=2, position_px=height)


@pytest.mark.parametrize("size", ["nano", *REAL])
def test_flops_are_those_that_pytorch_counts(size: str) -> None:
    side = 2 * SIZES[size].patch_px
    model = build(replace(shallow(size, side), registers=3), seed=0).eval()
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        model(torch.rand(2, 3, side - 1, side))
    assert counter.get_total_flops() == 2 * cost(model.config, height=side - 1, width=side).forward_flops


@pytest.mark.parametrize("size", REAL)
def test_kept_activations_are_those_that_autograd_saves(size: str) -> None:
    model = build(shallow(size, 140), seed=0)
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    saved: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        kept = model(torch.rand(2, 3, 140, 140))
    found = cost(model.config, height=140, width=140, batch=2)
    assert sum(saved.values()) == pytest.approx(found.training_bytes - ADAM_BYTES * found.parameters, rel=0.05)
    assert kept.class_token.requires_grad


def test_published_parameters_and_growth() -> None:
    total = sum(cost(SIZES[size], height=224, width=224).parameters for size in REAL)
    assert total == 2_181_759_104
    base = cost(SIZES["base"], height=224, width=224)
    assert base.tokens == 257
    assert base.weight_bytes == 4 * 86_580_480
    eight = cost(SIZES["base"], height=224, width=224, batch=8, precision="bfloat16")
    assert eight.frozen_bytes - eight.weight_bytes == 4 * (base.frozen_bytes - base.weight_bytes)
