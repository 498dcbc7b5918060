from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cgeartheye.adaptation.features import turned
from cgeartheye.adaptation.training import segmentation_loss
from cgeartheye.adaptation.validation import calibration_error, fit_temperature


def test_loss_is_cross_entropy_of_labelled_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 4, generator=generator)
    labels = torch.randint(0, 3, (2, 4, 4), generator=generator)
    labels[0] = 255
    expected = F.cross_entropy(logits[1:], labels[1:])
    assert segmentation_loss(logits, labels, []) == pytest.approx(float(expected))
    assert segmentation_loss(logits, torch.full_like(labels, 255), [1]) == 0


def test_rare_classes_add_their_dice_loss() -> None:
    logits = torch.zeros(1, 2, 1, 4)  # probability one half everywhere
    labels = torch.tensor([[[1, 0, 0, 255]]])
    dice = 1 - (2 * 0.5 + 1) / (3 * 0.5 + 1 + 1)
    assert segmentation_loss(logits, labels, [1]) == pytest.approx(np.log(2) + dice)
    assert segmentation_loss(logits, torch.tensor([[[0, 0, 0, 255]]]), [1]) == pytest.approx(np.log(2))


def test_temperature_undoes_overconfidence() -> None:
    generator = torch.Generator().manual_seed(1)
    honest = torch.randn(20_000, 4, generator=generator) * 1.5
    truth = torch.multinomial(torch.softmax(honest, 1), 1, generator=generator)[:, 0]
    assert fit_temperature(honest * 3, truth) == pytest.approx(3, rel=0.05)
    assert calibration_error(honest * 3, truth) > 0.1
    assert calibration_error(honest * 3, truth, 3.0) < 0.02


def test_calibration_error_by_hand() -> None:
    logits = torch.log(torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4]]))
    truth = torch.tensor([0, 1, 0])
    assert calibration_error(logits, truth) == pytest.approx((abs(1.8 - 1) + abs(0.6 - 1)) / 3)


def test_the_eight_views_are_the_symmetries_of_the_square() -> None:
    square = np.arange(9, dtype=np.uint8).reshape(1, 3, 3)
    views = {turned(square, view).tobytes() for view in range(8)}
    assert len(views) == 8
    assert (turned(square, 0) == square).all()
    coloured = np.stack([square, square + 50], axis=-1)
    for view in range(8):
        assert (turned(coloured, view)[..., 0] == turned(square, view)).all()
