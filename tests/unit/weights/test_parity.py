"""Our forward pass against timm's and transformers', with weights at which every fault shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from twins import TimmTwin, TransformersTwin, Twin, randomised

from cgeartheye.models import blocks
from cgeartheye.models.positions import Interpolation
from cgeartheye.models.sizes import SIZES
from cgeartheye.models.vit import VisionTransformer, VitConfig

PICTURES: Final = ((98, 98), (224, 224), (518, 518), (518, 392))
DEPTH: Final = {"small": 3, "base": 2, "large": 2, "huge": 1, "giant": 1}
PEERS: Final[dict[str, Callable[[VisionTransformer], Twin]]] = {"timm": TimmTwin, "transformers": TransformersTwin}


def resizes(peer: str, registers: int) -> Interpolation:
    return "antialias" if peer == "timm" or registers else "plain"


def network(size: str, peer: str, *, registers: int = 0) -> VisionTransformer:
    config = replace(SIZES[size], depth=DEPTH[size], registers=registers, position_interpolation=resizes(peer, registers))
    return randomised(config)


def pixels(height: int, width: int) -> Tensor:
    return torch.rand(1, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(height + width))


@torch.no_grad()
def compare(ours: VisionTransformer, twin: Twin, height: int, width: int) -> tuple[float, float]:
    """Return the largest difference in the model's type, and relative to the norm of the peer's tokens."""
    kind = ours.pos_embed.dtype
    given = pixels(height, width).to(kind)
    features = ours(given)
    expected_class, expected_patches = twin(ours.normalise(given))
    ours_all = torch.cat([features.class_token[:, None], features.patches.flatten(1, 2)], dim=1)
    theirs = torch.cat([expected_class[:, None], expected_patches], dim=1)
    assert ours_all.shape == theirs.shape
    difference = ours_all - theirs
    relative = difference.norm(dim=-1) / theirs.norm(dim=-1)
    return float(difference.abs().max()), float(relative.max())


@pytest.mark.parametrize("peer", list(PEERS))
@pytest.mark.parametrize("size", list(DEPTH))
def test_every_size_equals_its_peers(size: str, peer: str) -> None:
    ours = network(size, peer)
    twin = PEERS[peer](ours)
    for height, width in PICTURES:
        _, relative = compare(ours, twin, height, width)
        assert relative < 1e-4, (height, width)
    ours.double(), twin.network.double()
    for height, width in PICTURES:
        absolute, _ = compare(ours, twin, height, width)
        # the peers resize positions in float32
        assert absolute < (1e-9 if (height, width) == (518, 518) else 1e-6), (height, width)


@pytest.mark.parametrize("peer", list(PEERS))
def test_registers_equal_the_peers(peer: str) -> None:
    ours = network("small", peer, registers=4).double()
    twin = PEERS[peer](ours)
    for height, width in PICTURES:
        absolute, _ = compare(ours, twin, height, width)
        assert absolute < (1e-9 if (height, width) == (518, 518) else 1e-6), (height, width)


def swap_queries_and_keys(model: VisionTransformer) -> None:
    for block in model.blocks:
        query, key, value = block.attn.qkv.weight.chunk(3)
        block.attn.qkv.weight = nn.Parameter(torch.cat([key, query, value]))


def swap_gate_and_value(model: VisionTransformer) -> None:
    for block in model.blocks:
        for name in ("weight", "bias"):
            gate, value = getattr(block.mlp.w12, name).chunk(2)
            setattr(block.mlp.w12, name, nn.Parameter(torch.cat([value, gate])))


def other_heads(model: VisionTransformer) -> None:
    for block in model.blocks:
        block.attn.heads *= 2


def other_epsilon(model: VisionTransformer) -> None:
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5


def no_layer_scale(model: VisionTransformer) -> None:
    for block in model.blocks:
        block.ls2.gamma.data.fill_(1.0)


def no_class_position(model: VisionTransformer) -> None:
    model.pos_embed.data[:, 0] = 0


def transposed_positions(model: VisionTransformer) -> None:
    side = model.config.position_px // model.patch_px
    table = model.pos_embed.data[:, 1:].view(1, side, side, -1)
    model.pos_embed.data[:, 1:] = table.transpose(1, 2).flatten(1, 2)


def no_final_norm(model: VisionTransformer) -> None:
    model.norm = nn.Identity()  # type: ignore[assignment]


def blue_first(model: VisionTransformer) -> None:
    model.patch_embed.proj.weight.data = model.patch_embed.proj.weight.data.flip(1)


def no_projection_bias(model: VisionTransformer) -> None:
    model.blocks[0].attn.proj.bias.data.zero_()


def resized_otherwise(method: Interpolation) -> Callable[[VisionTransformer], None]:
    def fault(model: VisionTransformer) -> None:
        model.config = replace(model.config, position_interpolation=method)

    return fault


FAULTS: Final[dict[str, Callable[[VisionTransformer], None]]] = {
    "queries and keys swapped": swap_queries_and_keys,
    "gate and value swapped": swap_gate_and_value,
    "another number of heads": other_heads,
    "another epsilon": other_epsilon,
    "LayerScale dropped": no_layer_scale,
    "class position dropped": no_class_position,
    "positions transposed": transposed_positions,
    "final norm dropped": no_final_norm,
    "blue first": blue_first,
    "a bias dropped": no_projection_bias,
    "positions with DINOv2's offset": resized_otherwise("dinov2"),
    "positions antialiased": resized_otherwise("antialias"),
}
GATED = VitConfig(
    name="gated",
    depth=2,
    width=48,
    heads=4,
    hidden=96,
    ffn="swiglu",
    patch_px=14,
    position_px=518,
    position_interpolation="plain",
)


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_planted_fault_is_seen(fault: str) -> None:
    ours = randomised(GATED).double()
    twin = TransformersTwin(ours)
    assert compare(ours, twin, 98, 126)[0] < 1e-6
    with torch.no_grad():
        FAULTS[fault](ours)
    assert compare(ours, twin, 98, 126)[0] > 1e-4


def test_the_approximate_gelu_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = randomised(replace(GATED, ffn="mlp")).double()
    twin = TransformersTwin(ours)
    assert compare(ours, twin, 98, 126)[0] < 1e-6
    exact = F.gelu
    monkeypatch.setattr(blocks.F, "gelu", lambda x: exact(x, approximate="tanh"))
    ours_tanh = compare(ours, twin_with_exact_gelu(twin, exact), 98, 126)[0]
    assert ours_tanh > 1e-5


def twin_with_exact_gelu(twin: Twin, exact: Callable[..., Tensor]) -> Twin:
    """Hold the peer's activation to the exact function while ours is replaced."""
    for module in twin.network.modules():
        if hasattr(module, "activation"):
            module.activation = exact
    return twin
