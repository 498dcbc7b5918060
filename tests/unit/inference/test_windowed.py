from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from cgeartheye.errors import DataError
from cgeartheye.geometry.blending import ONE
from cgeartheye.geometry.windows import Window, WindowPlan
from cgeartheye.inference.windowed import Picture, block_sums, fill_holes, predict_picture, read_padded


class Convolutions(nn.Module):
    """A dense model whose receptive field reaches 4 px: three 3 x 3 convolutions and one of 3 x 3 to the classes."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        sizes = [3, 8, 8, 8, classes]
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(sizes))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = images.float() / 255
        for layer in self.layers[:-1]:
            x = torch.tanh(layer(x))
        return self.layers[-1](x)


class Mixing(nn.Module):
    """A model in which every pixel depends on the whole window, like attention does."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = images.float() / 255
        return torch.stack([x[:, 0], x.mean((1, 2, 3))[:, None, None] * x[:, 1] * 2, x[:, 2] ** 2], dim=1) * 4


@pytest.fixture
def picture() -> np.ndarray:
    noise = np.random.default_rng(0).normal(size=(143, 211, 3)).cumsum(0).cumsum(1)
    return ((noise - noise.min()) / np.ptp(noise) * 255).astype(np.uint8)


def reference(model: nn.Module, picture: NDArray[np.uint8], plan: WindowPlan, classes: int) -> NDArray[np.float64]:
    """Windows, weights and sums by the definition, in double precision and with no shared code but the plan's sizes."""
    h, w = picture.shape[:2]
    core, halo = plan.core_px, plan.halo_px
    rows, cols = -(-h // core), -(-w // core)
    padded = np.pad(picture, ((halo, rows * core - h + halo), (halo, cols * core - w + halo), (0, 0)), mode="reflect")
    total = np.zeros((classes, rows * core, cols * core))

    def weight(position: NDArray[np.float64], index: int, count: int) -> NDArray[np.float64]:
        distance_in = (position + 0.5 - halo) / halo + 0.5  # of the rising ramp, centred on the core's border
        distance_out = (position + 0.5 - (core + halo)) / halo + 0.5
        rising = np.ones_like(position) if index == 0 else np.clip(distance_in, 0, 1)
        falling = np.zeros_like(position) if index == count - 1 else np.clip(distance_out, 0, 1)
        return rising - falling

    position = np.arange(core + 2 * halo, dtype=float)
    for i in range(rows):
        for j in range(cols):
            piece = padded[i * core : (i + 1) * core + 2 * halo, j * core : (j + 1) * core + 2 * halo]
            with torch.inference_mode():
                p = torch.softmax(model(torch.from_numpy(piece.copy()).permute(2, 0, 1)[None]), 1)[0].double().numpy()
            p = p * weight(position, i, rows)[:, None] * weight(position, j, cols)
            big = np.zeros((classes, rows * core + 2 * halo, cols * core + 2 * halo))
            big[:, i * core : (i + 1) * core + 2 * halo, j * core : (j + 1) * core + 2 * halo] = p
            total += big[:, halo : halo + rows * core, halo : halo + cols * core]
    return total[:, :h, :w]


@pytest.mark.parametrize("superblock", [1, 3])
def test_streamed_windows_equal_the_definition(picture: NDArray[np.uint8], superblock: int) -> None:
    plan = WindowPlan(143, 211, 64, 8, 8, superblock)
    ours = predict_picture(Mixing().eval(), picture, plan, classes=3)
    np.testing.assert_allclose(ours, reference(Mixing(), picture, plan, 3), atol=1e-6)
    np.testing.assert_allclose(ours.sum(0), 1, atol=1e-6)


def test_finite_receptive_field_equals_the_whole_pass(picture: NDArray[np.uint8]) -> None:
    model = Convolutions().eval()
    margin = 16
    padded = np.pad(picture, ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
    with torch.inference_mode():
        logits = model(torch.from_numpy(padded).permute(2, 0, 1)[None])
        whole = torch.softmax(logits, 1)[0, :, margin:-margin, margin:-margin].numpy()
    for window, halo in ((48, 8), (64, 16), (112, 16)):  # half the halo, 4 px, is all the feather leaves as context
        tiled = predict_picture(model, picture, WindowPlan(143, 211, window, halo, 8, 2), classes=5)
        np.testing.assert_allclose(tiled, whole, atol=1e-5)


def test_too_small_a_halo_is_noticed_by_that_test(picture: NDArray[np.uint8]) -> None:
    model = Convolutions().eval()
    whole = predict_picture(model, picture, WindowPlan(143, 211, 112, 16, 8), classes=5)
    assert np.abs(predict_picture(model, picture, WindowPlan(143, 211, 64, 0, 8), classes=5) - whole).max() > 1e-3


@pytest.mark.parametrize(("superblock", "batch"), [(1, 8), (2, 3), (3, 1), (9, 8)])
def test_sums_do_not_depend_on_superblocks_or_batches(picture: NDArray[np.uint8], superblock: int, batch: int) -> None:
    everything = np.ones(picture.shape[:2], bool)

    def total(superblock: int, batch: int) -> NDArray[np.int32]:
        plan = WindowPlan(143, 211, 48, 8, 8, superblock)
        out = np.zeros((3, 143, 211), np.int32)
        for block in plan.blocks():
            part = block_sums(Mixing(), block, lambda w: (picture[w.slices], everything[w.slices]), classes=3, batch=batch)
            out[:, *block.support.slices] += part.sums
        return out

    assert (total(superblock, batch) == total(4, 5)).all()


def test_scene_smaller_than_a_window_is_padded(picture: NDArray[np.uint8]) -> None:
    small = picture[:5, :7]
    probabilities = predict_picture(Mixing(), small, WindowPlan(5, 7, 48, 8, 8), classes=3)
    np.testing.assert_allclose(probabilities, reference(Mixing(), small, WindowPlan(5, 7, 48, 8, 8), 3), atol=1e-6)


def test_read_padded_is_numpys_reflection(picture: NDArray[np.uint8]) -> None:
    scene = Window(0, 0, 143, 211)
    valid = picture[..., 0] > 90
    pixels, mask = read_padded(lambda w: (picture[w.slices], valid[w.slices]), Window(-20, 180, 60, 90), scene)
    assert (pixels == np.pad(picture, ((20, 0), (0, 59), (0, 0)), mode="reflect")[:60, 180:270]).all()
    assert (mask == np.pad(valid, ((20, 0), (0, 59)), mode="reflect")[:60, 180:270]).all()


def test_holes_get_the_mean_of_the_rest() -> None:
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0] = [[10, 20, 30], [20, 40, 61]]
    filled = fill_holes(pixels, np.array([[True, True], [False, True]]))
    assert filled[1, 0].tolist() == [10, 20, 30]
    assert (filled[0] == pixels[0]).all()


def test_windows_without_data_are_skipped_and_holes_are_not_valid(picture: NDArray[np.uint8]) -> None:
    valid = np.ones(picture.shape[:2], bool)
    valid[:100, :100] = False
    seen = []

    def model(images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return Mixing()(images)

    plan = WindowPlan(143, 211, 48, 8, 8, 9)
    (block,) = plan.blocks()
    part = block_sums(model, block, lambda w: (picture[w.slices], valid[w.slices]), classes=3, batch=1)
    assert (part.valid == valid).all()
    assert len(seen) == len(block.cores) - 9  # cores of 32 px: 3 x 3 of them, feather included, lie in the hole
    assert (part.sums.sum(0)[valid] > ONE - 8).all()


def test_broken_windows_are_lost_alone(picture: NDArray[np.uint8]) -> None:
    everything = np.ones(picture.shape[:2], bool)

    def read(window: Window) -> Picture:
        if window.intersect(Window(70, 70, 4, 4)):
            raise DataError("truncated")
        return picture[window.slices], everything[window.slices]

    plan = WindowPlan(143, 211, 48, 8, 8, 9)
    (block,) = plan.blocks()
    part = block_sums(Mixing(), block, read, classes=3)
    hit = [core for core in block.cores if plan.window(*core).intersect(Window(70, 70, 4, 4))]
    assert part.lost == hit
    assert 0 < len(hit) < len(block.cores)
    expected = np.ones(picture.shape[:2], bool)
    for core in hit:
        expected[plan.core(*core).intersect(plan.scene).slices] = False
    assert (part.valid == expected).all()
