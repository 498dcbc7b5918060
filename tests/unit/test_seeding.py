"""Named streams: known answers, independence of order, splits by name."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cgeartheye.seeding import derive, hash_share, splitmix64, stream


def test_splitmix64_gives_the_published_values() -> None:
    hashed = splitmix64(np.array([0, 1, 7], dtype=np.uint64))
    assert [int(v) for v in hashed] == [0xE220A8397B1DCDAF, 0x910A2DEC89025CC1, 0x63CBE1E459320DD7]


@given(st.lists(st.integers(0, 2**64 - 1), unique=True, min_size=2, max_size=50))
def test_splitmix64_is_one_to_one(values: list[int]) -> None:
    assert len(set(splitmix64(np.array(values, dtype=np.uint64)).tolist())) == len(values)


def test_streams_depend_on_every_key_and_on_nothing_else() -> None:
    first = stream(3, "crops", 7, 1).random(4)
    stream(3, "masks", 7, 1).random(100)
    assert np.array_equal(first, stream(3, "crops", 7, 1).random(4))
    others = {derive(3, "crops", 7, 2), derive(3, "crops", 71), derive(4, "crops", 7, 1), derive(3, "masks", 7, 1)}
    assert len(others | {derive(3, "crops", 7, 1)}) == 5


def test_hash_share_is_uniform_and_depends_on_the_salt() -> None:
    shares = np.array([hash_share(f"forest/{i}.jpg") for i in range(4000)])
    assert 0.27 < (shares < 0.3).mean() < 0.33
    assert hash_share("forest/1.jpg") != hash_share("forest/1.jpg", "other")
