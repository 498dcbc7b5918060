"""From one phase to the next: positions as torch resamples them, networks that compute the same, nothing lost on the way."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from cgeartheye.errors import DataError, ShapeError
from cgeartheye.models.positions import Interpolation
from cgeartheye.models.sizes import SIZES, build
from cgeartheye.models.vit import Features, VisionTransformer
from cgeartheye.pretraining.phases import carry, config_of, position_px_of, resample_positions
from cgeartheye.settings.pretrain import PretrainSettings
from cgeartheye.training.optimizer import MOMENTS


def network(position_px: int, seed: int, method: Interpolation = "antialias") -> VisionTransformer:
    config = dataclasses.replace(SIZES["nano"], depth=1, position_px=position_px, position_interpolation=method)
    model = build(config, seed=seed).eval()
    model.pos_embed.data.normal_(generator=torch.Generator().manual_seed(seed))
    return model


def tensors_of(student: VisionTransformer, teacher: VisionTransformer, fill: float) -> dict[str, Tensor]:
    """The names that a training has: two networks, the moments of the student, and what only the log needs."""
    found = {f"networks.student.backbone.{name}": value for name, value in student.state_dict().items()}
    found |= {f"networks.teacher.backbone.{name}": value for name, value in teacher.state_dict().items()}
    for name, parameter in student.named_parameters():
        found |= {f"moments.{kind}.backbone.{name}": torch.full(parameter.shape, fill) for kind in MOMENTS}
    return {**found, "used": torch.full((3,), fill)}


@torch.inference_mode()
def features(model: VisionTransformer, side: int) -> Features:
    found: Features = model(torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)))
    return found


@pytest.mark.parametrize("target", [3, 6, 9])
def test_positions_are_resampled_as_torch_does(target: int) -> None:
    table = torch.randn(1, 1 + 36, 5, generator=torch.Generator().manual_seed(0))
    found = resample_positions(table, side=target, method="antialias")
    square = table[:, 1:].view(1, 6, 6, 5).permute(0, 3, 1, 2)
    reference = F.interpolate(square, size=(target, target), mode="bicubic", align_corners=False, antialias=True)
    torch.testing.assert_close(found[:, 1:], reference.permute(0, 2, 3, 1).reshape(1, -1, 5), atol=2e-6, rtol=1e-5)
    assert torch.equal(found[:, :1], table[:, :1])
    assert found.shape == (1, 1 + target * target, 5)


def test_a_table_that_is_no_square_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(1, 8, 4\)"):
        resample_positions(torch.zeros(1, 8, 4), side=3, method="plain")


def test_a_phase_of_the_same_size_goes_on_exactly() -> None:
    old, new = tensors_of(network(48, 1), network(48, 2), 5.0), tensors_of(network(48, 3), network(48, 4), 0.0)
    carry(old, new, method="plain")
    assert all(torch.equal(new[name], old[name]) for name in old if name != "used")
    assert torch.equal(new["used"], torch.zeros(3))


@pytest.mark.parametrize("method", ["plain", "antialias", "dinov2"])
def test_at_its_new_size_each_network_computes_what_it_did(method: Interpolation) -> None:
    student, teacher = network(48, 1, method), network(48, 2, method)
    begun = network(96, 3, method), network(96, 4, method)
    old, new = tensors_of(student, teacher, 5.0), tensors_of(*begun, 1.0)
    carry(old, new, method=method)
    for before, after in zip((student, teacher), begun, strict=True):
        for x, y in zip(features(before, 96), features(after, 96), strict=True):
            torch.testing.assert_close(x, y)
    for name, value in new.items():
        if name.startswith("moments."):
            assert (value == (0.0 if name.endswith("pos_embed") else 5.0)).all(), name


def test_everything_is_accounted_for_before_anything_is_copied() -> None:
    old, new = tensors_of(network(48, 1), network(48, 2), 5.0), tensors_of(network(96, 3), network(96, 4), 0.0)
    del old["moments.exp_avg.backbone.norm.bias"]
    old["networks.student.more"] = torch.zeros(2)
    old["networks.teacher.backbone.norm.weight"] = torch.zeros(7)
    before = {name: value.clone() for name, value in new.items()}
    with pytest.raises(DataError) as error:
        carry(old, new, method="plain")
    text = str(error.value)
    assert "3 tensors" in text
    for fault in ("norm.bias is missing", "student.more is unexpected", "norm.weight is (7,), not (128,)"):
        assert fault in text
    assert all(torch.equal(new[name], before[name]) for name in new)


def test_a_sharded_phase_is_carried_as_a_whole_one(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))

        def sharded(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            return {k: distribute_tensor(v, mesh, [Shard(0)]) if v.ndim else v for k, v in tensors.items()}

        old, new = tensors_of(network(48, 1), network(48, 2), 5.0), tensors_of(network(96, 3), network(96, 4), 0.0)
        parts = sharded(new)
        carry(old, new, method="plain")
        carry(sharded(old), parts, method="plain")
        for name, value in parts.items():
            assert torch.equal(value.full_tensor() if isinstance(value, DTensor) else value, new[name]), name
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize(("side", "expected"), [(224, 224), (518, 518), (225, 238), (14, 14)])
def test_positions_belong_to_the_global_views(side: int, expected: int) -> None:
    settings = PretrainSettings(backbone="small", views={"global_px": side})
    assert position_px_of(settings, 14) == expected
    assert math.isqrt(build_tokens(settings)) * 14 == expected


def build_tokens(settings: PretrainSettings) -> int:
    """Patches that the network's own padding makes of a global view."""
    config = dataclasses.replace(SIZES["nano"], depth=1, patch_px=14, position_px=14)
    return features(build(config, seed=0), settings.views.global_px).patches.shape[1] ** 2


def test_the_last_phase_of_the_paper_has_the_published_network() -> None:
    settings = PretrainSettings(backbone="small", phases=({"views": {"global_px": 518}, "drop_path": 0.2},))
    first = config_of(SIZES["small"], settings.phase(0))
    last = config_of(first, settings.phase(1))
    assert (first.position_px, first.drop_path) == (224, 0.1)
    assert last == dataclasses.replace(SIZES["small"], drop_path=0.2)
