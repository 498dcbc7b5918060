"""The Gram loss against a slow loop, closed forms, finite differences, and faults that the loop must see."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cgeartheye.errors import ShapeError
from cgeartheye.losses.gram import gram_loss


def patches(seed: int, *, width: int = 6, dtype: torch.dtype = torch.float64) -> Tensor:
    """Three pictures of five patches, of uneven length."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(3, 5, width, generator=g, dtype=dtype) * (1 + 4 * torch.rand(3, 5, 1, generator=g, dtype=dtype))


def slow(student: Tensor, anchor: Tensor) -> float:
    """One picture, one pair of patches after the other."""
    total, pairs = 0.0, 0
    for own, fixed in zip(student, anchor, strict=True):
        for i in range(len(own)):
            for j in range(len(own)):
                cosines = [float(x[i] @ x[j] / (x[i].norm() * x[j].norm())) for x in (own, fixed)]
                total += (cosines[0] - cosines[1]) ** 2
                pairs += 1
    return total / pairs


def check(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    assert float(loss(patches(0), patches(1))) == pytest.approx(slow(patches(0), patches(1)), rel=1e-9)


def test_it_equals_the_slow_loop_of_any_widths() -> None:
    check(gram_loss)
    assert float(gram_loss(patches(0), patches(1, width=9))) == pytest.approx(slow(patches(0), patches(1, width=9)), rel=1e-9)


def _all_pictures_together(student: Tensor, anchor: Tensor) -> Tensor:
    return gram_loss(student.flatten(0, 1)[None], anchor.flatten(0, 1)[None])


def _without_lengths(student: Tensor, anchor: Tensor) -> Tensor:
    return (student @ student.mT - anchor @ anchor.mT).square().mean()


def _of_channels(student: Tensor, anchor: Tensor) -> Tensor:
    return gram_loss(student.mT, anchor.mT)


FAULTS = {
    "pictures mixed": _all_pictures_together,
    "not normalised": _without_lengths,
    "channels for patches": _of_channels,
    "next picture's anchor": lambda student, anchor: gram_loss(student, anchor.roll(1, 0)),
    "next patch's anchor": lambda student, anchor: gram_loss(student, anchor.roll(1, 1)),
    "absolute": lambda student, anchor: gram_loss(student, anchor).sqrt(),
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_seen(name: str) -> None:
    with pytest.raises(AssertionError):
        check(FAULTS[name])


def test_only_likeness_counts() -> None:
    turn = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)).Q
    assert float(gram_loss(patches(0), patches(0))) == 0
    assert float(gram_loss(patches(0) @ turn * 3, patches(0))) == pytest.approx(0, abs=1e-28)


def test_orthogonal_patches_against_equal_and_opposite_ones() -> None:
    orthogonal = torch.eye(4)[None] * 7
    equal = torch.ones(1, 4, 4)
    assert float(gram_loss(orthogonal, equal)) == pytest.approx(12 / 16)  # all but the diagonal differ by 1
    opposite = torch.tensor([[[1.0, 0], [-2, 0]]])
    assert float(gram_loss(opposite, torch.ones(1, 2, 2))) == pytest.approx(2 * 2**2 / 4)


def test_gradients_equal_finite_differences_and_the_anchor_gets_none() -> None:
    student, anchor = patches(0).requires_grad_(), patches(1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: gram_loss(x, anchor.detach()), (student,))
    torch.autograd.backward(gram_loss(student, anchor))
    assert anchor.grad is None
    assert student.grad is not None


def test_half_precision_is_compared_in_single() -> None:
    student, anchor = patches(0).bfloat16(), patches(1).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = gram_loss(student, anchor)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(slow(student.double(), anchor.double()), rel=1e-5)


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match="patches are"):
        gram_loss(torch.zeros(2, 4, 3), torch.zeros(2, 9, 3))
