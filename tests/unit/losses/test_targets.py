"""Teacher targets against the textbook's loops and closed forms."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cgeartheye.losses.targets import centred, sinkhorn, updated_centre


def textbook(scores: Tensor, temperature: float, iterations: int) -> Tensor:
    """Sinkhorn-Knopp as published: the whole matrix, rows and columns in turn, float64."""
    Q = torch.exp(scores.double() / temperature).T
    K, R = Q.shape
    Q /= Q.sum()
    for _ in range(iterations):
        Q /= Q.sum(1, keepdim=True)
        Q /= K
        Q /= Q.sum(0, keepdim=True)
        Q /= R
    return (Q * R).T


@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(2, 30), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_sinkhorn_equals_the_textbook(seed: int, R: int, K: int, iterations: int) -> None:
    scores = torch.rand(R, K, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    found = sinkhorn(scores.clone(), temperature=0.07, iterations=iterations)  # which overwrites its scores
    torch.testing.assert_close(found.double(), textbook(scores, 0.07, iterations), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(found.sum(1), torch.ones(R))


def test_sinkhorn_ignores_a_constant_that_would_overflow() -> None:
    scores = torch.randn(8, 5, generator=torch.Generator().manual_seed(0)) / 4
    plain = sinkhorn(scores.clone(), temperature=0.04)
    torch.testing.assert_close(sinkhorn(scores + 1000, temperature=0.04), plain, rtol=1e-2, atol=1e-4)
    assert torch.isfinite(sinkhorn(scores * 1000, temperature=0.04)).all()


def test_targets_take_the_place_of_the_scores() -> None:
    for make in (lambda s: sinkhorn(s, temperature=0.1), lambda s: centred(s, torch.zeros(5), temperature=0.1)):
        scores = torch.rand(8, 5, generator=torch.Generator().manual_seed(0))
        assert make(scores).data_ptr() == scores.data_ptr()


def test_no_rows_are_no_targets() -> None:
    assert sinkhorn(torch.zeros(0, 5), temperature=0.1).shape == (0, 5)
    assert centred(torch.zeros(0, 5), torch.zeros(5), temperature=0.1).shape == (0, 5)


def test_sinkhorn_balances_prototypes() -> None:
    scores = torch.rand(64, 8, generator=torch.Generator().manual_seed(1))
    scores[:, 0] += 0.5  # without balance over half goes to the first prototype
    assert torch.softmax(scores / 0.05, 1).sum(0)[0] > 32
    torch.testing.assert_close(
        sinkhorn(scores, temperature=0.05, iterations=200).sum(0), torch.full((8,), 8.0), rtol=1e-3, atol=1e-3
    )


def test_centred_closed_form() -> None:
    scores = torch.tensor([[0.3, 0.1]])
    expected = torch.sigmoid(torch.tensor((0.2 - 0.05) / 0.1))
    assert torch.allclose(centred(scores, torch.tensor([0.15, 0.1]), temperature=0.1)[0, 0], expected)


def test_the_centre_follows_slowly() -> None:
    moved = updated_centre(torch.tensor([1.0, 0.0]), torch.tensor([[0.0, 2.0], [0.0, 4.0]]), momentum=0.9)
    torch.testing.assert_close(moved, torch.tensor([0.9, 0.3]))


def test_a_broken_batch_leaves_the_centre() -> None:
    centre = torch.tensor([1.0, 0.0])
    assert torch.equal(updated_centre(centre, torch.tensor([[float("nan"), 2.0]])), centre)
    assert torch.equal(updated_centre(centre, torch.zeros(0, 2)), centre)
