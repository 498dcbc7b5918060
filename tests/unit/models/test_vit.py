from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, get_args

import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cgeartheye.errors import ShapeError
from cgeartheye.models.attention import Group
from cgeartheye.models.blocks import draw_kept
from cgeartheye.models.positions import Interpolation, resize_positions
from cgeartheye.models.sizes import SIZES, build, initialise
from cgeartheye.models.vit import VisionTransformer, VitConfig, pad_to_patch, patch_grid

TINY = VitConfig(name="tiny", depth=3, width=24, heads=3, hidden=48, patch_px=4, layer_scale=0.5, position_px=16)


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


@pytest.fixture(scope="module")
def tiny() -> VisionTransformer:
    return build(TINY, seed=1).double().eval()


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("small", 22_056_576),
        ("base", 86_580_480),
        ("large", 304_368_640),
        ("huge", 632_272_640),
        ("giant", 1_136_480_768),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, count: int) -> None:
    with torch.device("meta"):
        model = VisionTransformer(SIZES[name])
    assert sum(p.numel() for p in model.parameters()) == count


def timm_twin(name: str, config: VitConfig) -> tuple[nn.Module, VisionTransformer]:
    torch.manual_seed(0)
    other = timm.create_model(name, pretrained=False, depth=config.depth, dynamic_img_size=True).eval()
    for parameter in other.parameters():
        nn.init.normal_(parameter, std=0.05)
    for key, parameter in other.named_parameters():
        if key.endswith("gamma"):
            nn.init.uniform_(parameter, 0.1, 1.0)
    state = other.state_dict()
    renamed = {key.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): v for key, v in state.items()}
    ours = VisionTransformer(config).eval()
    ours.load_state_dict({**(renamed if config.ffn == "swiglu" else state), "mask_token": torch.zeros(1, config.width)})
    return other, ours


@pytest.mark.parametrize(("name", "size"), [("vit_small_patch14_dinov2", "small"), ("vit_giant_patch14_dinov2", "giant")])
def test_equals_timm_at_the_native_size(name: str, size: str) -> None:
    other, ours = timm_twin(name, replace(SIZES[size], depth=2 if size == "small" else 1))
    pixels = torch.rand(1, 3, 518, 518, generator=torch.Generator().manual_seed(3))
    if size == "small":
        exact = other.double().forward_features(ours.double().normalise(pixels.double()))
        got = ours(pixels.double())
        torch.testing.assert_close(got.class_token, exact[:, 0], rtol=0, atol=1e-9)
        torch.testing.assert_close(got.patches.flatten(1, 2), exact[:, 1:], rtol=0, atol=1e-9)
    other, ours = other.float(), ours.float()
    expected = other.forward_features(ours.normalise(pixels))
    got = ours(pixels)
    assert (got.class_token - expected[:, 0]).norm() < 1e-4 * expected[:, 0].norm()
    assert (got.patches.flatten(1, 2) - expected[:, 1:]).norm() < 1e-4 * expected[:, 1:].norm()


def test_registers_equal_timm() -> None:
    config = replace(SIZES["small"], depth=1, registers=4)
    torch.manual_seed(0)
    other = timm.create_model("vit_small_patch14_reg4_dinov2", pretrained=False, depth=1).eval().double()
    state = {
        k: torch.randn(v.shape, generator=torch.Generator().manual_seed(i)) * 0.1
        for i, (k, v) in enumerate(other.state_dict().items())
    }
    other.load_state_dict(state)
    own = {**state, "mask_token": torch.zeros(1, 384), "register_tokens": state["reg_token"]}
    # timm keeps no position for the class token of register models: it is folded into the token
    own["pos_embed"] = torch.cat([torch.zeros(1, 1, 384), state["pos_embed"]], dim=1)
    del own["reg_token"]
    ours = VisionTransformer(config).eval().double()
    ours.load_state_dict(own)
    pixels = torch.rand(1, 3, 518, 518, dtype=torch.float64)
    expected = other.forward_features(ours.normalise(pixels))
    got = ours(pixels)
    torch.testing.assert_close(got.class_token, expected[:, 0], rtol=0, atol=1e-9)
    torch.testing.assert_close(got.patches.flatten(1, 2), expected[:, 5:], rtol=0, atol=1e-9)


def torch_positions(table: Tensor, h: int, w: int, method: Interpolation) -> Tensor:
    """Resize as the peers' code does, by one call of PyTorch."""
    source = table.shape[0]
    if h == w == source:
        return table
    size: dict[str, Any] = {"size": (h, w)}
    if method == "dinov2":
        size = {"scale_factor": ((h + 0.1) / source, (w + 0.1) / source)}
    image = table.permute(2, 0, 1)[None]
    resized = F.interpolate(image, **size, mode="bicubic", align_corners=False, antialias=method == "antialias")
    return resized[0].permute(1, 2, 0)


@given(s=st.integers(1, 9), h=st.integers(1, 20), w=st.integers(1, 20), method=st.sampled_from(get_args(Interpolation)))
@settings(max_examples=120, deadline=None)
def test_positions_equal_torch_bicubic(s: int, h: int, w: int, method: Interpolation) -> None:
    table = torch.randn(s, s, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(s))
    assume(method != "antialias" or w > 1)  # with one column PyTorch's two passes disagree with its own single passes
    expected = torch_positions(table, h, w, method)
    assert expected.shape == (h, w, 5)
    torch.testing.assert_close(resize_positions(table, h, w, method), expected, rtol=0, atol=1e-11)


def test_the_three_ways_to_resize_positions_differ() -> None:
    table = torch.randn(37, 37, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = [resize_positions(table, 7, 7, method) for method in get_args(Interpolation)]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert (found[i] - found[j]).abs().max() > 0.1


def test_positions_are_resized_in_float32_and_take_gradients_after_inference() -> None:
    table = torch.randn(4, 4, 3, generator=torch.Generator().manual_seed(0))
    half = table.bfloat16()
    exact = resize_positions(half.float(), 6, 5)
    assert torch.equal(resize_positions(half, 6, 5), exact.bfloat16())
    with torch.inference_mode():
        resize_positions(table, 3, 2)
    free = table.clone().requires_grad_()
    resize_positions(free, 3, 2).sum().backward()
    assert free.grad is not None


def test_packed_pass_equals_separate_passes_with_masks_and_gradients(tiny: VisionTransformer) -> None:
    views = [images(3, 3, 16, 16), images(5, 3, 8, 12, seed=1), images(2, 3, 21, 10, seed=2)]
    masks = [torch.rand(3, 16, generator=torch.Generator().manual_seed(4)) < 0.4, None, torch.ones(2, 18, dtype=torch.bool)]
    packed, apart = copy.deepcopy(tiny), copy.deepcopy(tiny)
    together = packed.forward_views(views, masks)
    separate = [apart(view, mask) for view, mask in zip(views, masks, strict=True)]
    for one, other in zip(together, separate, strict=True):
        torch.testing.assert_close(one.class_token, other.class_token, rtol=0, atol=1e-12)
        torch.testing.assert_close(one.patches, other.patches, rtol=0, atol=1e-12)
    for found in (together, separate):
        sum((f.class_token.sin().sum() + f.patches.cos().sum()) for f in found).backward()  # type: ignore[union-attr] # a tensor
    for (name, left), right in zip(packed.named_parameters(), apart.parameters(), strict=True):
        assert left.grad is not None, name
        torch.testing.assert_close(left.grad, right.grad, rtol=0, atol=1e-10)


def test_masked_patches_are_not_seen(tiny: VisionTransformer) -> None:
    first, second = images(1, 3, 8, 8), images(1, 3, 8, 8)
    second[..., :4, 4:] = 255 - second[..., :4, 4:]
    mask = torch.tensor([[False, True, False, False]])
    assert torch.equal(tiny(first, mask).patches, tiny(second, mask).patches)
    assert not torch.equal(tiny(first).patches, tiny(second).patches)
    assert not torch.equal(tiny(first, mask).patches, tiny(first).patches)


def test_any_size_is_padded_and_every_pixel_counts(tiny: VisionTransformer) -> None:
    picture = images(1, 3, 9, 6)
    features = tiny(picture)
    assert features.patches.shape == (1, 3, 2, 24)
    padded = torch.cat([picture, picture[..., -1:].expand(-1, -1, -1, 2)], dim=-1)
    padded = torch.cat([padded, padded[:, :, -1:].expand(-1, -1, 3, -1)], dim=2)
    torch.testing.assert_close(tiny(padded).patches, features.patches)
    last = picture.clone()
    last[..., -1, -1] = 255 - last[..., -1, -1]
    assert not torch.equal(tiny(last).class_token, features.class_token)


def test_uint8_equals_float(tiny: VisionTransformer) -> None:
    picture = images(2, 3, 16, 16)
    torch.testing.assert_close(tiny(picture).class_token, tiny(picture.double() / 255).class_token, rtol=0, atol=1e-12)


def test_levels_agree_with_the_forward_pass(tiny: VisionTransformer) -> None:
    picture = images(2, 3, 16, 8)
    whole = tiny(picture)
    raw = tiny.levels(picture, [2, 0, -2], "none")
    assert [level.patches.shape for level in raw] == [(2, 4, 2, 24)] * 3
    torch.testing.assert_close(tiny.norm(raw[0].patches), whole.patches)
    torch.testing.assert_close(tiny.norm(raw[0].class_token), whole.class_token)
    last = tiny.levels(picture, [0, 2])
    assert torch.equal(last[0].patches, raw[1].patches)
    torch.testing.assert_close(last[1], whole)
    every = tiny.levels(picture, [1], "all")[0]
    torch.testing.assert_close(every.patches, tiny.norm(raw[2].patches))
    torch.testing.assert_close(every.class_token, tiny.norm(raw[2].class_token))
    with pytest.raises(ShapeError, match="3 blocks"):
        tiny.levels(picture, [3])


@pytest.mark.parametrize("name", ["nano", "small", "base", "large", "huge", "giant"])
def test_initialisation_touches_every_parameter(name: str) -> None:
    model = VisionTransformer(replace(SIZES[name], depth=1, registers=2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float("nan"))
    initialise(model, seed=0)
    for key, parameter in model.named_parameters():
        assert torch.isfinite(parameter).all(), key
    assert model.blocks[0].ls1.gamma[0].item() == pytest.approx(SIZES[name].layer_scale)
    assert model.blocks[0].attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_build_depends_on_config_and_seed_alone() -> None:
    first, again, other = build(TINY, seed=5), build(TINY, seed=5), build(TINY, seed=6)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.pos_embed, other.pos_embed)
    shallow = build(replace(TINY, depth=1), seed=5)
    assert torch.equal(shallow.blocks[0].mlp.fc1.weight, first.blocks[0].mlp.fc1.weight)


def test_dropped_rows_are_replayed_and_right_in_expectation() -> None:
    config = replace(TINY, drop_path=0.5)
    model = build(config, seed=0).train()
    picture = images(6, 3, 8, 8)
    model.reseed(7)
    first, second = model(picture).class_token, model(picture).class_token
    model.reseed(7)
    assert torch.equal(model(picture).class_token, first)
    assert not torch.equal(first, second)
    assert torch.equal(model.eval()(picture).class_token, build(replace(TINY, drop_path=0.0), seed=0).eval()(picture).class_token)
    copy.deepcopy(model)


def test_kept_rows_are_whole_rows_with_the_exact_scale() -> None:
    groups = (Group(5, 3), Group(1, 2), Group(4, 4))
    kept = draw_kept(groups, 0.4, 400, generator=torch.Generator().manual_seed(0))
    assert kept[0].groups == (Group(3, 3), Group(1, 2), Group(2, 4))
    seen = torch.zeros(33)
    for one in kept:
        assert len(one.tokens) == one.tokens.unique().numel() == 9 + 2 + 8
        rows = one.tokens[:9].view(3, 3)
        assert torch.equal(rows - rows[:, :1], torch.arange(3).expand(3, 3))
        assert (rows[:, 0] % 3 == 0).all()
        seen[one.tokens] += one.scale[:, 0]
    # every token is updated once on average
    torch.testing.assert_close(seen / 400, torch.ones(33), rtol=0, atol=0.2)


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 4, 16, 16), (0, 3, 16, 16), (1, 3, 0, 16)])
def test_wrong_shapes_are_named(tiny: VisionTransformer, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="images"):
        tiny(torch.zeros(shape, dtype=torch.uint8))


def test_wrong_masks_and_configs_are_refused(tiny: VisionTransformer) -> None:
    with pytest.raises(ShapeError, match="mask"):
        tiny(images(1, 3, 16, 16), torch.zeros(1, 4, dtype=torch.bool))
    with pytest.raises(ShapeError, match="views"):
        tiny.forward_views([images(1, 3, 16, 16)], [])
    with pytest.raises(ShapeError, match="heads"):
        replace(TINY, heads=5)
    with pytest.raises(ShapeError, match="drop_path"):
        replace(TINY, drop_path=1.0)


def test_config_survives_json() -> None:
    assert VitConfig.from_json(SIZES["giant"].to_json()) == SIZES["giant"]


@given(st.integers(1, 600), st.integers(1, 600), st.integers(1, 20))
def test_the_grid_is_that_of_the_padded_picture(height: int, width: int, patch_px: int) -> None:
    h, w = patch_grid(height, width, patch_px)
    assert (h * patch_px - height, w * patch_px - width) == (-height % patch_px, -width % patch_px)
    assert pad_to_patch(torch.zeros(1, 1, height, width), patch_px).shape[2:] == (h * patch_px, w * patch_px)


def test_grids_of_the_papers_sizes() -> None:
    """0.5 * s // p * s // p, as a released code base counts them, gives 666 of 684 hidden patches at 518 px."""
    assert [patch_grid(side, side, 14) for side in (98, 224, 518)] == [(7, 7), (16, 16), (37, 37)]
