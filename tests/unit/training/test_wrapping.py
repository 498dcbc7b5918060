from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from cgeartheye.models.sizes import SIZES, build
from cgeartheye.models.vit import VisionTransformer
from cgeartheye.training.wrapping import compile_blocks, recompute_activations, recompute_blocks, shard

VIEWS = (28, 14)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeviceMesh]:
    rendezvous = tmp_path_factory.mktemp("gloo") / "store"
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def network(size: str) -> VisionTransformer:
    """Full width, two blocks, LayerScale at which blocks matter."""
    config = replace(SIZES[size], depth=2 if size in {"nano", "small"} else 1, layer_scale=0.5, drop_path=0.0)
    return build(config, seed=0).train()


def views(model: VisionTransformer) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(2, 3, side, side, generator=generator) for side in VIEWS]


def loss_and_gradients(model: VisionTransformer) -> tuple[float, dict[str, Tensor]]:
    found = model.forward_views(views(model), [None, None])
    loss = sum((f.class_token.sin().sum() + f.patches.cos().sum() for f in found), torch.zeros(()))
    loss.backward()
    gradients = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            grad = parameter.grad
            clean = name.replace("_checkpoint_wrapped_module.", "").replace("_orig_mod.", "")
            gradients[clean] = grad.full_tensor() if hasattr(grad, "full_tensor") else grad
    return float(loss.detach()), gradients


def same(model: VisionTransformer, wrapped: VisionTransformer) -> None:
    loss, gradients = loss_and_gradients(model)
    other, others = loss_and_gradients(wrapped)
    assert other == pytest.approx(loss, rel=1e-5)
    assert others.keys() == gradients.keys()
    for name, gradient in gradients.items():  # by norm: fused kernels add up in another order
        assert (others[name] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-5, name


@pytest.mark.parametrize("size", list(SIZES))
def test_recomputed_and_sharded_blocks_learn_the_same(size: str, mesh: DeviceMesh) -> None:
    model = network(size)
    wrapped = shard(recompute_blocks(copy.deepcopy(model)), mesh)
    same(model, wrapped)
    if size == "nano":
        levels = wrapped.levels(views(model)[0], [0])
        torch.testing.assert_close(levels[0].patches.detach(), model.levels(views(model)[0], [0])[0].patches.detach())


@pytest.mark.parametrize("size", ["small", "giant"])
def test_activations_computed_again_change_no_bit_and_are_not_kept(size: str) -> None:
    model = network(size)
    lean = recompute_activations(copy.deepcopy(model))
    (loss, gradients), (other, others) = loss_and_gradients(model), loss_and_gradients(lean)
    assert loss == other
    assert all(torch.equal(gradient, others[name]) for name, gradient in gradients.items())
    assert kept_by(lean) < kept_by(model)


def kept_by(model: VisionTransformer) -> int:
    """Bytes that autograd keeps of a pass, each storage once."""
    seen: dict[int, int] = {}

    def pack(value: Tensor) -> Tensor:
        seen[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        model.forward_views(views(model), [None, None])
    return sum(seen.values())


@pytest.mark.parametrize("size", list(SIZES))
def test_compiled_blocks_learn_the_same(size: str) -> None:
    torch._dynamo.reset()
    model = network(size)
    same(model, compile_blocks(copy.deepcopy(model), backend="aot_eager"))


@pytest.mark.parametrize("size", ["nano", "giant"])
def test_the_whole_network_is_one_graph(size: str) -> None:
    torch._dynamo.reset()
    model = network(size).eval()
    picture = torch.randint(0, 256, (1, 3, 30, 45), dtype=torch.uint8)
    with torch.no_grad():
        whole = torch.compile(model, backend="eager", fullgraph=True)(picture)
        torch.testing.assert_close(whole.patches, model(picture).patches, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", list(SIZES))
def test_bfloat16_follows_float32(size: str) -> None:
    model = network(size).eval()
    picture = torch.randint(0, 256, (2, 3, 28, 42), dtype=torch.uint8)
    with torch.no_grad():
        exact = model(picture).patches
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(picture).patches.float()
        cast = copy.deepcopy(model).bfloat16()(picture).patches.float()
    for found in (rough, cast):
        assert (found - exact).norm() < 0.03 * exact.norm()


@pytest.mark.slow
@pytest.mark.skipif(not any((Path(p) / "c++").exists() for p in os.environ.get("PATH", "").split(":")), reason="no C++ compiler")
def test_inductor_computes_the_same() -> None:
    torch._dynamo.reset()
    model = network("small")
    same(model, compile_blocks(copy.deepcopy(model)))
