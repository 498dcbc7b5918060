from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgeartheye.pretraining.prototypes import prototypes_for


@pytest.mark.parametrize(
    ("chips", "expected"),
    [
        (1, 256),
        (6_144, 256),
        (12_288, 512),
        (98_304, 4_096),
        (99_999, 4_096),
        (100_000, 16_384),
        (316_228, 16_384),
        (316_229, 32_768),
        (1_000_000, 32_768),
        (1_000_001, 65_536),
        (10_000_000, 65_536),
        (10_000_001, 131_072),
    ],
)
def test_the_number_follows_the_archive(chips: int, expected: int) -> None:
    assert prototypes_for(chips, 4096) == expected


@given(st.integers(0, 10**9), st.integers(1, 10**5))
def test_sinkhorn_has_rows_enough(chips: int, batch: int) -> None:
    K = prototypes_for(chips, batch)
    assert K & (K - 1) == 0
    assert max(64, 16 * 2 * batch) >= K
    assert prototypes_for(2 * chips, batch) >= K
    assert prototypes_for(chips, 2 * batch) >= K
