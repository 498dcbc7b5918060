"""The chunked cross-entropy against autograd on the whole matrix."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cgeartheye.errors import ShapeError
from cgeartheye.losses import prototypes as module
from cgeartheye.losses.prototypes import prototype_cross_entropy


def problem(seed: int, *, n: int, K: int, R: int, T: int, d: int = 6) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    rows = F.normalize(torch.randn(n, d, generator=g, dtype=torch.float64), dim=-1).requires_grad_()
    prototypes = F.normalize(torch.randn(K, d, generator=g, dtype=torch.float64), dim=-1).requires_grad_()
    return {
        "rows": rows,
        "prototypes": prototypes,
        "targets": torch.rand(R, K, generator=g, dtype=torch.float64).pow(4).log().softmax(-1),
        "index": torch.randint(0, R, (T, n), generator=g),
        "weight": torch.rand(n, generator=g, dtype=torch.float64),
    }


def whole(rows: Tensor, prototypes: Tensor, targets: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    log_probs = torch.log_softmax(rows @ prototypes.T / 0.1, -1)
    return -(targets[index].mean(0) * log_probs).sum(-1) * weight


@given(st.integers(0, 10_000), st.integers(1, 17), st.integers(2, 30), st.integers(1, 9), st.integers(1, 3), st.integers(1, 60))
@settings(max_examples=40, deadline=None)
def test_value_and_gradients_equal_autograd_s(seed: int, n: int, K: int, R: int, T: int, chunk: int) -> None:
    given = problem(seed, n=n, K=K, R=R, T=T)
    expected = whole(**given)
    slopes = torch.autograd.grad(expected.sum() * 3, (given["rows"], given["prototypes"]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", chunk)
        total, each = prototype_cross_entropy(**given, temperature=0.1)
        found = torch.autograd.grad(total * 3, (given["rows"], given["prototypes"]))
    torch.testing.assert_close(total, expected.sum(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(each * given["weight"], expected, rtol=1e-12, atol=1e-12)
    for one, other in zip(found, slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_gradcheck() -> None:
    given = problem(1, n=5, K=7, R=4, T=2)
    rest = {name: given[name] for name in ("targets", "index", "weight")}
    assert torch.autograd.gradcheck(
        lambda r, p: prototype_cross_entropy(r, p, **rest, temperature=0.1)[0], (given["rows"], given["prototypes"])
    )


def test_a_student_that_knows_nothing_costs_the_logarithm_of_k() -> None:
    given = problem(2, n=3, K=11, R=2, T=1)
    _, each = prototype_cross_entropy(**{**given, "rows": torch.zeros_like(given["rows"])}, temperature=0.1)
    torch.testing.assert_close(each, torch.full((3,), math.log(11), dtype=torch.float64))


def test_prototypes_that_stand_still_get_no_gradient() -> None:
    given = problem(3, n=3, K=5, R=2, T=1)
    total, _ = prototype_cross_entropy(**{**given, "prototypes": given["prototypes"].detach()}, temperature=0.1)
    torch.autograd.backward(total)
    assert given["rows"].grad is not None
    assert given["prototypes"].grad is None


def test_the_teacher_gets_no_gradient_even_if_it_is_not_detached() -> None:
    given = problem(3, n=3, K=5, R=2, T=1)
    targets = given["targets"].clone().requires_grad_()
    total, _ = prototype_cross_entropy(**{**given, "targets": targets * 1.0}, temperature=0.1)
    torch.autograd.backward(total)
    assert targets.grad is None
    assert given["rows"].grad is not None


def test_half_precision_stays_close() -> None:
    given = problem(4, n=40, K=50, R=20, T=2)
    half = {
        **given,
        "rows": given["rows"].detach().to(torch.bfloat16).requires_grad_(),
        "prototypes": given["prototypes"].float(),
    }
    total, each = prototype_cross_entropy(**half, temperature=0.1)
    assert total.dtype == each.dtype == torch.float32
    assert float(total.detach()) == pytest.approx(float(whole(**given).sum().detach()), rel=0.02)


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation made, in numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: object, types: object, args: tuple[object, ...] = (), kwargs: object = None) -> object:
        out = func(*args, **(kwargs or {}))  # type: ignore[operator]
        for value in out if isinstance(out, tuple | list) else (out,):
            self.numbers = max(self.numbers, value.untyped_storage().nbytes() // 8 if isinstance(value, Tensor) else 0)
        return out


def test_rows_times_prototypes_are_never_held(monkeypatch: pytest.MonkeyPatch) -> None:
    given = problem(5, n=64, K=50, R=8, T=2)
    monkeypatch.setattr(module, "CHUNK", 400)  # 8 rows at a time
    with Largest() as largest:
        total, _ = prototype_cross_entropy(**given, temperature=0.1)
        torch.autograd.backward(total)
    assert largest.numbers < 64 * 50 / 4


@pytest.mark.parametrize("wrong", [{"index": torch.zeros(1, 2, dtype=torch.int64)}, {"targets": torch.rand(2, 4)}])
def test_shapes_that_do_not_fit_are_refused(wrong: dict[str, Tensor]) -> None:
    with pytest.raises(ShapeError):
        prototype_cross_entropy(**{**problem(6, n=3, K=5, R=2, T=1), **wrong}, temperature=0.1)
