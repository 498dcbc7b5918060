from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from cgeartheye.errors import ShapeError
from cgeartheye.inference.features import extract, prepare
from cgeartheye.models.sizes import build
from cgeartheye.models.vit import Features, VitConfig

TINY = VitConfig(name="tiny", depth=2, width=16, heads=2, hidden=32, patch_px=4, layer_scale=1.0, position_px=16)


def pictures(n: int, side: int = 16) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(n)]


class Recorder(nn.Module):
    """Remembers the shape of every batch; its tokens are the mean colour."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Features:
        self.shapes.append(tuple(images.shape))
        colour = images.float().mean(dim=(2, 3))
        return Features(colour, images.float().permute(0, 2, 3, 1))


def test_readouts_are_what_they_say() -> None:
    model, images = build(TINY, seed=0).train(), pictures(5)
    found = extract(model, iter(images), size_px=None, readouts=("patch", "class", "mean"), batch=2)
    assert model.training
    with torch.no_grad():
        features = model.eval()(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2))
    tokens = features.patches.reshape(5, -1, 16).double().numpy()
    np.testing.assert_allclose(found["class"], features.class_token.numpy(), atol=1e-5)
    np.testing.assert_allclose(found["mean"], tokens.mean(axis=1), atol=1e-5)
    np.testing.assert_allclose(found["patch"], np.hstack([tokens.mean(axis=1), tokens.std(axis=1)]), atol=1e-5)
    assert all(v.dtype == np.float32 for v in found.values())


def test_batches_are_streamed_and_sizes_kept_apart() -> None:
    recorder, seen = Recorder(), []

    def source() -> object:
        for image in [*pictures(3), *pictures(2, 8), *pictures(4)]:
            seen.append(len(recorder.shapes))
            yield image

    found = extract(recorder, source(), size_px=None, readouts=("class",), batch=2)  # type: ignore[arg-type] # a generator
    assert [shape[0] for shape in recorder.shapes] == [2, 1, 2, 2, 2]
    assert seen[-1] == 4  # the last picture was asked for after four batches had run
    expected = [image.reshape(-1, 3).mean(axis=0) for image in [*pictures(3), *pictures(2, 8), *pictures(4)]]
    np.testing.assert_allclose(found["class"], expected, rtol=1e-5)


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (33, 33), (24, 50)])
def test_resizing_is_antialiased_bicubic_of_the_shorter_side_and_a_centre_crop(shape: tuple[int, int]) -> None:
    ramp = np.add.outer(np.arange(shape[0]) * 2, np.arange(shape[1]) * 2)
    image = np.stack([ramp, ramp[::-1], 255 - ramp], axis=2).clip(0, 255).astype(np.uint8)
    got = prepare(image, 24).permute(1, 2, 0).numpy().astype(int)
    H, W = shape
    scale = 24 / min(H, W)
    resized = Image.fromarray(image).resize((round(W * scale), round(H * scale)), Image.Resampling.BICUBIC)
    left, top = (resized.width - 24) // 2, (resized.height - 24) // 2
    expected = np.asarray(resized.crop((left, top, left + 24, top + 24))).astype(int)
    assert got.shape == (24, 24, 3)
    assert np.abs(got - expected).max() <= 1


def test_a_picture_of_the_wanted_size_is_untouched() -> None:
    image = pictures(1, 24)[0]
    assert np.array_equal(prepare(image, 24).permute(1, 2, 0).numpy(), image)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ShapeError, match="readouts"):
        extract(Recorder(), pictures(1), size_px=None, readouts=("token",))
    with pytest.raises(ShapeError, match="no picture"):
        extract(Recorder(), [], size_px=None, readouts=("class",))
    with pytest.raises(ShapeError, match="uint8"):
        extract(Recorder(), [np.zeros((4, 4, 3))], size_px=None, readouts=("class",))  # type: ignore[list-item] # wrong on purpose
