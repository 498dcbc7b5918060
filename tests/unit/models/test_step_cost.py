from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cgeartheye.models.attention import Group
from cgeartheye.models.blocks import draw_kept
from cgeartheye.models.sizes import SIZES, build
from cgeartheye.models.step_cost import HeadShape, StepShape, View, kept_rows, learner_parameters, step_flops, step_memory
from cgeartheye.models.vit import VisionTransformer, VitConfig

HEAD = HeadShape(prototypes=64, hidden=96, bottleneck=32, layers=3, shared=False)
NANO = dataclasses.replace(SIZES["nano"], depth=2, drop_path=0.3)
SHAPE = StepShape(samples=4, views=(View(8, 36), View(8, 9), View(4, 4), View(5, 9)), hidden=30)
SIDES = (48, 24, 16, 24)


def mlp(width: int) -> nn.Sequential:
    """A head of three layers and its prototypes, without norms, which cost no products."""
    widths = HEAD.widths(width)
    layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
    return nn.Sequential(*layers, nn.Linear(HEAD.bottleneck, HEAD.prototypes, bias=False))


def seen(backbone: VisionTransformer, heads: Sequence[nn.Module], views: list[Tensor]) -> Tensor:
    """Scores of all class tokens and of 30 patches, summed."""
    classes, hidden = backbone.forward_chosen(views, [None] * len(views), torch.arange(SHAPE.hidden))
    return heads[0](classes).sum() + heads[1](hidden).sum()


@pytest.mark.parametrize(("size", "drop_path"), [("nano", 0.3), ("nano", 0.0), ("giant", 0.4)])
def test_flops_are_those_that_pytorch_counts(size: str, drop_path: float) -> None:
    patch = SIZES[size].patch_px
    config = dataclasses.replace(SIZES[size], depth=1, drop_path=drop_path, position_px=6 * patch)
    sides = [side * patch // 8 for side in SIDES]
    backbone, heads = build(config, seed=0), [mlp(config.width), mlp(config.width)]
    views = [torch.rand(view.rows, 3, side, side) for view, side in zip(SHAPE.views, sides, strict=True)]
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        with torch.no_grad():
            seen(backbone.eval(), heads, views[:1])
        torch.autograd.backward(seen(backbone.train(), heads, views))
    found = step_flops(config, HEAD, SHAPE)
    assert counter.get_total_flops() == pytest.approx(found.total - found.targets, rel=0.01)


def test_recomputing_and_passes_multiply() -> None:
    once = step_flops(NANO, HEAD, SHAPE)
    twice = step_flops(NANO, HEAD, dataclasses.replace(SHAPE, passes=2))
    again = step_flops(NANO, HEAD, dataclasses.replace(SHAPE, recompute="blocks"))
    assert twice.total == 2 * once.total
    assert 1.2 < again.student / once.student < 4 / 3
    assert again.teacher == once.teacher


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 9), st.integers(1, 9), st.floats(0, 0.95))
def test_dropped_rows_are_those_that_are_drawn(first: int, second: int, rate: float) -> None:
    groups = (Group(first, 3), Group(second, 2))
    drawn = draw_kept(groups, rate, 1, generator=torch.Generator())[0].groups
    assert [kept_rows(group.rows, rate) for group in groups] == [group.rows for group in drawn]


@pytest.mark.parametrize("shared", [True, False])
def test_parameters_of_the_student(shared: bool) -> None:
    head = dataclasses.replace(HEAD, shared=shared)
    backbone, heads = build(NANO, seed=0), [mlp(NANO.width)] * (1 if shared else 2)
    counted = sum(p.numel() for module in [backbone, *heads] for p in module.parameters())
    assert learner_parameters(NANO, head) == counted


def saved_bytes(config: VitConfig, views: list[Tensor], *, whole: bool) -> int:
    """Bytes that autograd keeps of a backbone's pass, parameters left out."""
    model = build(config, seed=0).train()
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        nothing: list[Tensor | None] = [None] * len(views)
        hidden = torch.arange(SHAPE.hidden)
        alive = model.forward_views(views, nothing) if whole else model.forward_chosen(views, nothing, hidden)
    del alive
    return sum(kept.values())


@pytest.mark.parametrize("drop_path", [0.0, 0.3])
def test_kept_activations_are_those_that_autograd_saves(drop_path: float) -> None:
    config = dataclasses.replace(SIZES["small"], depth=4, drop_path=drop_path, position_px=84)
    views = [torch.rand(view.rows, 3, side, side) for view, side in zip(SHAPE.views, (84, 42, 28, 42), strict=True)]
    head = dataclasses.replace(HEAD, prototypes=1, hidden=1, bottleneck=1)
    found = step_memory(config, head, SHAPE)
    assert found.moment == "backward"
    assert found.activations == pytest.approx(saved_bytes(config, views, whole=False), rel=0.05)
    anchored = step_memory(config, head, dataclasses.replace(SHAPE, anchor=SHAPE.views[0]))
    gram = SHAPE.views[0].rows * SHAPE.views[0].patches * (SHAPE.views[0].patches + config.width) * 4
    assert anchored.activations - gram == pytest.approx(saved_bytes(config, views, whole=True), rel=0.05)


def test_memory_follows_what_is_asked() -> None:
    plain = step_memory(SIZES["large"], HEAD, SHAPE)
    halves = step_memory(SIZES["large"], HEAD, dataclasses.replace(SHAPE, processes=2))
    assert halves.parameters + halves.moments == pytest.approx((plain.parameters + plain.moments) / 2, rel=1e-6)
    deep = dataclasses.replace(SHAPE, samples=64, views=tuple(View(16 * v.rows, v.patches) for v in SHAPE.views))
    kept, again = (step_memory(SIZES["large"], HEAD, dataclasses.replace(deep, recompute=kind)) for kind in ("nothing", "blocks"))
    assert again.activations < kept.activations / 10
    many = dataclasses.replace(HEAD, prototypes=65_536)
    wide = step_memory(SIZES["nano"], many, SHAPE)
    assert wide.targets == (2 * 4 + 30) * 65_536 * 4
    two = step_memory(SIZES["nano"], many, dataclasses.replace(SHAPE, passes=2))
    assert two.targets == 2 * wide.targets
    assert two.activations == wide.activations
