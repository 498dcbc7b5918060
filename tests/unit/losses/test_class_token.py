"""The class-token terms against loops over pairs."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cgeartheye.errors import ShapeError
from cgeartheye.losses.class_token import global_loss, local_loss, season_loss, season_weights


def tensors(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cross_entropy(target: Tensor, log_prob: Tensor) -> float:
    return -sum(float(p) * float(q) for p, q in zip(target, log_prob, strict=True))


@pytest.mark.parametrize("G", [2, 3])
def test_global_pairs_are_crossed_without_diagonal(G: int) -> None:
    B, K = 4, 5
    log_probs, targets = tensors(G, B, K, seed=0).log_softmax(-1), tensors(G, B, K, seed=1).softmax(-1)
    pairs = [cross_entropy(targets[t, b], log_probs[s, b]) for t in range(G) for s in range(G) if s != t for b in range(B)]
    assert float(global_loss(log_probs, targets)) == pytest.approx(sum(pairs) / len(pairs))


def test_local_pairs_are_all() -> None:
    G, L, B, K = 2, 3, 4, 5
    log_probs, targets = tensors(L, B, K, seed=0).log_softmax(-1), tensors(G, B, K, seed=1).softmax(-1)
    pairs = [cross_entropy(targets[t, b], log_probs[s, b]) for t in range(G) for s in range(L) for b in range(B)]
    assert float(local_loss(log_probs, targets)) == pytest.approx(sum(pairs) / len(pairs))


def test_a_student_that_knows_nothing_costs_the_logarithm_of_k() -> None:
    targets = tensors(2, 4, 7, seed=1).softmax(-1)
    flat = torch.full((2, 4, 7), -math.log(7), dtype=torch.float64)
    assert float(global_loss(flat, targets)) == pytest.approx(math.log(7))
    assert float(local_loss(flat, targets)) == pytest.approx(math.log(7))


def test_season_term_is_the_mean_over_places_of_the_mean_over_their_dates() -> None:
    B, K = 4, 5
    place = torch.tensor([0, 0, 0, 2, 3, 0])  # the last two slots are empty; place 1 has one date only
    filled = torch.tensor([True, True, True, True, False, False])
    log_probs, targets = tensors(6, K, seed=0).log_softmax(-1), tensors(2, B, K, seed=1).softmax(-1)
    of_place = {
        b: [cross_entropy(targets[t, b], log_probs[s]) for s in range(6) if filled[s] and place[s] == b for t in range(2)]
        for b in (0, 2)
    }
    expected = sum(sum(v) / len(v) for v in of_place.values()) / 2
    weight = season_weights(place, filled, batch=B).double()
    assert float(weight.sum()) == pytest.approx(1)
    assert float(season_loss(log_probs, targets, place=place, weight=weight)) == pytest.approx(expected)


def test_a_batch_without_other_dates_costs_nothing_and_has_gradients() -> None:
    place, filled = torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.bool)
    scores = tensors(3, 5, seed=0).requires_grad_()
    weight = season_weights(place, filled, batch=2).double()
    loss = season_loss(scores.log_softmax(-1), tensors(2, 2, 5, seed=1).softmax(-1), place=place, weight=weight)
    torch.autograd.backward(loss)
    assert float(loss.detach()) == 0
    assert scores.grad is not None
    assert not scores.grad.any()


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError):
        global_loss(tensors(1, 4, 5, seed=0), tensors(1, 4, 5, seed=0))
    with pytest.raises(ShapeError):
        local_loss(tensors(3, 4, 5, seed=0), tensors(2, 4, 6, seed=0))
