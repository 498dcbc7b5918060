from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cgeartheye.curation.drawing import Block, find_cuts, histogram, priorities
from cgeartheye.curation.quotas import Rules, plan_quotas
from cgeartheye.errors import DataError
from cgeartheye.seeding import splitmix64

TOY = np.array([600, 394, 6, 20, 10])
CLASSES = ["forest", "forest", "forest", "water", "water"]


@pytest.mark.parametrize(
    ("total", "alpha", "factor", "drawn"),
    [
        (100, [30, 19.7, 1, 33.333, 16.667], 1.38067, [42, 27, 1, 20, 10]),
        (20, [6, 3.94, 1, 6.667, 3.333], 0.95286, [6, 4, 1, 6, 3]),
        (10, [3, 1.97, 1, 3.333, 1.667], 0.90271, [3, 2, 1, 3, 1]),
        (500, [150, 98.5, 1.5, 166.667, 83.333], 1.88, [282, 185, 3, 20, 10]),
        (2000, None, None, [600, 394, 6, 20, 10]),
    ],
)
def test_toy_table(total: int, alpha: list[float] | None, factor: float | None, drawn: list[int]) -> None:
    found = plan_quotas(TOY, CLASSES, total)
    assert found.drawn.tolist() == drawn
    if alpha is not None:
        assert found.alpha.tolist() == pytest.approx(alpha, abs=5e-4)
        assert found.factor == pytest.approx(factor, abs=5e-6)


def test_shares_are_normalised_over_the_classes_present() -> None:
    cells = np.array([5000, 5000])
    found = plan_quotas(cells, ["forest", "water"], 1000, rules=Rules(shares={"forest": 3, "water": 1, "wetland": 96}))
    assert found.drawn.tolist() == [750, 250]


def test_keep_shares_draws_fewer() -> None:
    found = plan_quotas(TOY, CLASSES, 100, rules=Rules(shortage="keep_shares"))
    assert found.drawn.tolist() == [30, 19, 1, 20, 10]  # the sum of 80.7 rounded down, the floors


def test_more_strata_than_places_is_an_error_with_the_number() -> None:
    with pytest.raises(DataError, match="at least 5"):
        plan_quotas(TOY, CLASSES, 4)
    with pytest.raises(DataError, match="share above 0"):
        plan_quotas(TOY, CLASSES, 40, rules=Rules(shares={"wetland": 1}))


@settings(max_examples=150, deadline=None)
@given(
    cells=st.lists(st.integers(1, 500), min_size=1, max_size=14),
    total=st.integers(1, 4000),
    seed=st.integers(0, 99),
    shortage=st.sampled_from(["redistribute", "keep_shares"]),
)
def test_totals_floors_and_caps_hold(cells: list[int], total: int, seed: int, shortage: str) -> None:
    k = np.array(cells)
    classes = np.random.default_rng(seed).choice(["forest", "water", "other"], len(k)).tolist()
    if min(total, k.sum()) < len(k):
        return
    found = plan_quotas(k, classes, total, rules=Rules(shortage=shortage))  # type: ignore[arg-type]  # drawn from the two words
    assert (found.drawn >= 1).all()
    assert (found.drawn <= k).all()
    if shortage == "redistribute":
        assert found.drawn.sum() == min(total, k.sum())
        free = ~(found.capped | found.floored)
        assert (np.abs(found.drawn[free] - found.factor * found.alpha[free]) < 1 + 1e-6).all()


def draw(cells: np.ndarray, strata: np.ndarray, quotas: np.ndarray, *, seed: int) -> np.ndarray:
    block = Block(cells, strata)
    return find_cuts(lambda: [block], histogram(block, len(quotas), seed), quotas, seed).drawn(block)


def test_priority_is_the_published_hash() -> None:
    cells = np.array([0, 7, 2**40 + 3])
    seed = 42
    expected = [
        int(splitmix64(np.array([int(c) ^ int(splitmix64(np.array([seed], np.uint64))[0])], np.uint64))[0]) for c in cells
    ]
    assert priorities(cells, seed).tolist() == expected


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**62), quota=st.integers(1, 30))
def test_draw_takes_the_lowest_and_a_larger_quota_keeps_them(seed: int, quota: int) -> None:
    random = np.random.default_rng(seed)
    cells = np.unique(random.integers(0, 2**40, 200))
    strata = random.integers(0, 3, len(cells))
    sizes = np.bincount(strata, minlength=3)
    small, large = (np.minimum(sizes, q) for q in (quota, quota + 7))
    first, second = draw(cells, strata, small, seed=seed), draw(cells, strata, large, seed=seed)
    assert np.bincount(strata[first], minlength=3).tolist() == small.tolist()
    assert (second | ~first).all()
    rank = priorities(cells, seed)
    for stratum in range(3):
        mine = strata == stratum
        assert set(cells[mine & first]) == set(cells[mine][np.argsort(rank[mine])[: small[stratum]]])


def test_draw_does_not_depend_on_the_order_or_company_of_cells() -> None:
    random = np.random.default_rng(0)
    cells = np.unique(random.integers(0, 2**40, 300))
    strata = random.integers(0, 2, len(cells))
    quota = np.array([20, 30])
    whole = set(cells[draw(cells, strata, quota, seed=3)])
    mixed = random.permutation(len(cells))
    assert set(cells[mixed][draw(cells[mixed], strata[mixed], quota, seed=3)]) == whole
    alone = strata == 1
    assert set(cells[alone][draw(cells[alone], np.zeros(alone.sum(), np.int64), quota[1:], seed=3)]) == {
        c for c, s in zip(cells, strata, strict=True) if s == 1 and c in whole
    }


def test_floors_after_caps_do_not_draw_more_than_asked() -> None:
    cells = np.array([45, *[1000] * 60])  # the first is capped at the first factor, and not once the floors are kept
    found = plan_quotas(cells, ["water", *["forest"] * 60], 100)
    assert found.drawn.tolist() == [40, *[1] * 60]
    assert not found.capped.any()


def test_a_stratum_without_cells_or_without_drawable_ones_gives_none() -> None:
    found = plan_quotas(np.array([0, 50, 50]), ["water", "water", "forest"], 60, caps=np.array([0, 0, 50]))
    assert found.drawn.tolist() == [0, 0, 50]
    assert found.alpha.tolist() == [1, 30, 30]


def test_too_small_a_budget_may_leave_the_smallest_strata_empty() -> None:
    found = plan_quotas(TOY, CLASSES, 3, rules=Rules(small_budget="empty_strata"))
    assert found.drawn.tolist() == [1, 1, 0, 1, 0]  # 0.9, 0.59, 0.01, 1, 0.5


@settings(max_examples=100, deadline=None)
@given(
    cells=st.lists(st.integers(0, 400), min_size=1, max_size=12),
    total=st.integers(1, 2000),
    seed=st.integers(0, 99),
)
def test_the_level_is_the_one_at_which_the_total_comes_out(cells: list[int], total: int, seed: int) -> None:
    k = np.array(cells)
    random = np.random.default_rng(seed)
    caps = random.integers(0, k + 1)
    classes = random.choice(["forest", "water", "other"], len(k)).tolist()
    rules = Rules(small_budget="empty_strata")
    if caps.sum() == 0:
        return
    found = plan_quotas(k, classes, total, caps=caps, rules=rules)
    budget = min(total, caps.sum())
    assert found.drawn.sum() == budget
    assert (found.drawn <= caps).all()
    if budget >= (caps > 0).sum():
        assert np.clip(found.factor * found.alpha, np.minimum(1, caps), caps).sum() == pytest.approx(budget)
        assert ((found.drawn >= 1) == (caps > 0)).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**62), weighted=st.booleans(), parts=st.integers(1, 5))
def test_cuts_over_blocks_are_the_sorted_order(seed: int, weighted: bool, parts: int) -> None:
    random = np.random.default_rng(seed)
    cells = np.unique(random.integers(0, 2**40, 400))
    strata = random.integers(0, 4, len(cells))
    weight = random.choice([0, 0.01, 1, 50], len(cells)).astype(np.float32) if weighted else None
    whole = Block(cells, strata, weight)
    counts = histogram(whole, 4, seed)
    quotas = random.integers(0, counts.sum(axis=1) + 1)
    pieces = [Block(cells[i::parts], strata[i::parts], None if weight is None else weight[i::parts]) for i in range(parts)]
    cuts = find_cuts(lambda: reversed(pieces), sum(histogram(piece, 4, seed) for piece in pieces), quotas, seed)
    keys = priorities(cells, seed, weight)
    for stratum in range(4):
        mine = np.flatnonzero((strata == stratum) & (True if weight is None else weight > 0))
        expected = set(mine[np.argsort(keys[mine])[: quotas[stratum]]].tolist())
        assert set(np.flatnonzero(cuts.drawn(whole) & (strata == stratum)).tolist()) == expected


def test_a_weight_makes_a_cell_so_much_more_likely() -> None:
    cells, strata = np.arange(40_000), np.zeros(40_000, np.int64)
    weight = np.where(cells % 2, 3.0, 1.0).astype(np.float32)
    block = Block(cells, strata, weight)
    chosen = find_cuts(lambda: [block], histogram(block, 1, 1), np.array([8000]), 1).drawn(block)
    # Efraimidis and Spirakis: a cell is in with 1 - exp(-w t)
    heavy, light = chosen[1::2].mean(), chosen[::2].mean()
    assert np.log1p(-heavy) / np.log1p(-light) == pytest.approx(3, rel=0.06)
